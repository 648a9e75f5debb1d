"""Augmentations by name."""
