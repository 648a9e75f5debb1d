"""Data sets written out again in the layouts of other programs."""
