"""The only torch training and inference code."""
