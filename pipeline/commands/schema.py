"""Print the JSON Schema of the configuration, for editors that complete and check YAML."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def main(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    import json

    from pipeline.config import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0
