"""What the phantom is drawn with: body, organs, canvas and scanner."""
