"""Rules that mend a predicted mask, by name."""
