"""Score masks that were made elsewhere, by another program or a rater, with the same tables as a run.

Example:
  python -m pipeline evaluate masks/ data_manifests/x.csv --output scores/
  where masks/ holds a file CASE_ID.nii.gz for each case, with the label values of the manifest.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.metrics.base import Metric


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="folder of masks named after their cases")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV with the column 'label'")
    parser.add_argument("--output", type=Path, default=Path("evaluation"), help="folder for the tables")
    parser.add_argument("--metric", action="append", default=[], metavar="NAME", dest="metrics",
                        help="such as dice or assd; may be given several times (default: dice, hd95, nsd)")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Score the masks; return 1 where a labelled case has none."""
    import pipeline.config  # noqa: F401  brings every registry into being
    from pipeline.datasets.manifest import ManifestCsv
    from pipeline.errors import plural
    from pipeline.machine import Machine
    from pipeline.plugin import load_plugins
    from pipeline.progress import TerminalProgress
    from pipeline.stages.evaluate import evaluate_folder
    from pipeline.tasks.segmentation import Segmentation

    load_plugins(())
    chosen = [_metric(name) for name in arguments.metrics] or list(Segmentation().default_metrics())
    evaluation, missing = evaluate_folder(
        arguments.predictions, ManifestCsv(path=arguments.manifest).cases(), arguments.output, chosen,
        machine=Machine(), progress=TerminalProgress(),
    )  # fmt: skip
    for name, value in evaluation.headline.items():
        print(f"{name}: {value:.3f}")
    print(f"tables: {arguments.output / evaluation.per_case} and {arguments.output / evaluation.summary}")
    if missing:
        print(f"{plural(len(missing), 'labelled case')} without a mask, in no figure: {', '.join(missing)}")
    return 1 if missing else 0


def _metric(name: str) -> "Metric":
    """Return a metric of masks by its name.

    Raises:
        ConfigError: there is none of this name, or it judges whole volumes.
    """
    from pydantic_core import PydanticCustomError

    from pipeline.errors import ConfigError
    from pipeline.metrics.base import MaskPair, metrics

    try:
        found = metrics.parse(name)
    except (PydanticCustomError, ValueError) as error:
        raise ConfigError(f"--metric {name}: {error}") from None
    if found.kind is not MaskPair:
        raise ConfigError(f"--metric {name}: it judges classes of whole volumes; expected a metric of masks, as dice.")
    return found
