"""Volumes on disk and in memory; no torch, no monai."""
