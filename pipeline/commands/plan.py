"""Propose a configuration from the facts of the data and this machine, with the reason for each value as a comment.

What the config states stays as it is, and a comment says where the planner would choose otherwise; with a manifest, or
with --anew, everything is planned. The same facts and machine always give the same plan: nothing is timed.

Examples:
  python -m pipeline plan data_manifests/liver.csv --output configs/liver.yaml
  python -m pipeline plan data_manifests/liver.csv --max-memory 8 --max-minutes 60 --set task.name=classification
  python -m pipeline plan configs/ct.yaml --anew
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, metavar="CONFIG|MANIFEST",
                        help="YAML file, or the CSV of a manifest that 'import' wrote")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="YAML", help="file to write; without it the plan is printed")
    parser.add_argument("--max-memory", type=float, metavar="GB", help="memory that a training step may use")
    parser.add_argument("--max-minutes", type=float, metavar="MINUTES", help="time of training for each fold")
    parser.add_argument("--anew", action="store_true",
                        help="of a config keep only what is asked: data set, labels, task; plan the rest")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="state a value, e.g. train.batch_size=4; may be given several times")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Look at the data, print or write the plan."""
    from pipeline.planner.propose import propose
    from pipeline.progress import TerminalProgress
    from pipeline.run import survey
    from pipeline.workspace import write_text

    tree, progress = _stated(arguments), TerminalProgress()
    plan, _ = propose(
        tree, lambda config: survey(config, progress), source=str(arguments.source),
        output=str(arguments.output or "PLAN.yaml"),
    )  # fmt: skip
    text = plan.to_yaml()
    if arguments.output is None:
        print(text, end="")
        return 0
    write_text(arguments.output, text)
    print("\n".join(plan.heading))
    print(f"{arguments.output}: written")
    return 0


def _stated(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what the file and the command line state."""
    from pipeline.config import merge, override, read_tree
    from pipeline.errors import ConfigError
    from pipeline.planner.propose import only_kept, starting_tree
    from pipeline.plugin import load_plugins

    if arguments.source.suffix.lower() == ".csv":
        tree = starting_tree(arguments.source)
    else:
        tree = read_tree(arguments.source)
        tree = only_kept(tree) if arguments.anew else tree
    for text in arguments.overrides:
        tree = merge(tree, override(text))
    if arguments.output is not None:
        _refuse_output(arguments.output, arguments.source, tree.get("dataset"))
    if arguments.max_memory is not None:
        tree = merge(tree, {"machine": {"max_memory_gb": arguments.max_memory}})
    if arguments.max_minutes is not None:
        tree = merge(tree, {"train": {"max_minutes": arguments.max_minutes}})
    plugins = tree.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ConfigError(f"{arguments.source}: plugins: found {plugins!r}; expected a list of module names.")
    load_plugins(plugins, search=arguments.source.parent)
    return tree


def _refuse_output(output: Path, source: Path, dataset: object) -> None:
    """Make sure that the plan replaces neither what it is made from nor the labels beside a manifest."""
    from pipeline.errors import ConfigError

    path = dataset.get("path") if isinstance(dataset, dict) else None
    files = [source, *([Path(path), Path(path).with_suffix(".yaml")] if isinstance(path, str) and path else [])]
    if output.resolve() in {file.resolve() for file in files}:
        raise ConfigError(f"plan: --output {output} is a file that is planned from. Name another one.")
