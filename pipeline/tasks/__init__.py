"""What a network is trained to say: targets, predictions, default loss and metrics."""
