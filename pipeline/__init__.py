"""Segmentation and classification of CT and MR volumes in 3-D, stage by stage."""

from typing import Any

__all__ = ["load_model", "run"]


def __getattr__(name: str) -> Any:
    """Import the two public verbs at first use, so that `import pipeline` costs nothing."""
    if name == "load_model":
        from pipeline.learning.predictor import load_model

        return load_model
    if name == "run":
        from pipeline.run import run

        return run
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
