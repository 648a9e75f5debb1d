"""Planner: from facts and machine to a configuration with a reason for each value; it also fills in every `auto`."""

from pipeline.planner.resolve import AUTO, resolve

__all__ = ["AUTO", "resolve"]
