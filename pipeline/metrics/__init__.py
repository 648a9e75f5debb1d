"""Figures of merit by name, and their intervals."""
