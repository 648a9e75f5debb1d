"""Prediction over many cases: what to predict, one after the other, with a table of what became of each."""
