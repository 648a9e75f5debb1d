"""What a scanner exports: read, grouped, judged; no torch."""
