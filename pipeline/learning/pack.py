"""From the folder of a run to a model package: what goes in, and the card that tells a reader what the model is."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.imaging.labels import Labels
from pipeline.learning.models import evaluation, read_postprocess, records_of, run_options
from pipeline.learning.package import write_package
from pipeline.learning.trained import written_recipe
from pipeline.learning.weights import read_tensors
from pipeline.plugin import Plugin
from pipeline.provenance import package_version
from pipeline.records import InferenceRecipe, TrainedModel
from pipeline.workspace import RESULT

_TRAINING = ("epochs", "steps", "best_epoch", "best_score", "seconds", "parameters", "ended")
_METRICS_SHOWN = 4


def pack(run: Path, path: Path, fold: int | None = None, name: str = "") -> str:
    """Write the package of a run.

    Args:
        run: Run folder, or the folder of one training in it.
        path: The package, `.zip` by custom.
        fold: The one fold to take; None for all.
        name: Of the model; that of the run where empty.

    Returns:
        sha256 of the package; equal runs give equal packages.

    Raises:
        ModelError: there is no finished training, or its weights are damaged.
    """
    records = records_of(run, fold)
    root = run.parent if (run / RESULT).exists() else run
    scored = evaluation(root)
    metrics = _json(scored / "summary.json") if scored else {}
    mends = [step.model_dump(mode="json") for step in read_postprocess(scored)]
    recipe = next(iter(records.values())).recipe
    title = name or root.resolve().name
    files: dict[str, bytes] = {}
    models = [_add_model(files, number, record) for number, record in records.items()]
    files["labels.json"] = _dump(recipe.labels.model_dump(mode="json"))
    files["metrics.json"] = _dump(metrics)
    files["MODEL_CARD.md"] = card(title, records, metrics, mends, run_options(root)).encode()
    index = {
        "name": title,
        "made_by": f"volume-pipeline {package_version()}",
        "models": models,
        "options": run_options(root),
        "postprocess": mends,
        "plugins": _foreign([recipe.network, recipe.task]),
    }
    return write_package(path, index, files)


def card(
    name: str,
    records: Mapping[int | None, TrainedModel],
    metrics: Mapping[str, Any],
    mends: list[dict[str, Any]],
    options: Mapping[str, Any],
) -> str:
    """Return the model card, in Markdown."""
    first = next(iter(records.values()))
    lines = [
        f"# {name}",
        "",
        *_what(first.recipe),
        "",
        "## Training",
        "",
        *_training(records),
        "",
        "## How good it is",
        "",
    ]
    lines += _scores(metrics)
    lines += ["", "## Prediction", "", f"Options: `{json.dumps(dict(options), sort_keys=True)}`.", ""]
    lines.append(
        "Masks are mended by: " + (", ".join(f"`{json.dumps(one)}`" for one in mends) if mends else "nothing") + "."
    )
    lines += _gains(metrics.get("postprocess") or {})
    lines += [
        "", "## Limits", "",
        "- Research software, not a medical device: a person must look at what it says.",
        "- It knows images like those that it was trained on. Other scanners, protocols, body parts or diseases were "
        "not tested unless a test set stands above.",
        "- Figures come from the cases of this run; they are no promise for others.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _add_model(files: dict[str, bytes], fold: int | None, record: TrainedModel) -> dict[str, Any]:
    name = "all" if fold is None else f"fold{fold}"
    weights = record.path(record.weights)
    read_tensors(weights, sha256=record.weights_sha256)
    training = record.model_dump(mode="json", include=set(_TRAINING)) | _json(record.path("training.json"))
    files[f"{name}/model.safetensors"] = weights.read_bytes()
    files[f"{name}/recipe.json"] = _dump(written_recipe(record))
    files[f"{name}/training.json"] = _dump(training)
    members = {"weights": "model.safetensors", "recipe": "recipe.json", "training": "training.json"}
    return {"name": name, "fold": fold, **{key: f"{name}/{file}" for key, file in members.items()}}


def _what(recipe: InferenceRecipe) -> list[str]:
    prepare = recipe.prepare
    spacing = (
        " x ".join(f"{step:g}" for step in prepare.spacing_mm) + " mm" if prepare.spacing_mm else "that of the file"
    )
    normalise = ", ".join(f"`{json.dumps(one.model_dump(mode='json'), sort_keys=True)}`" for one in recipe.normalise)
    lines = [
        f"A {recipe.network.name} for {recipe.task.name} in 3-D, made with volume-pipeline {package_version()}.",
        "", "## Input", "",
        f"- Channels: {', '.join(recipe.channels)}",
        f"- Working voxel size (D, H, W): {spacing}; any voxel size and orientation may go in",
        f"- Normalisation: {normalise}",
        f"- Window (D, H, W): {' x '.join(map(str, recipe.patch_size))}",
        "", "## Output", "",
    ]  # fmt: skip
    return lines + _classes(recipe.labels, recipe.class_names)


def _classes(labels: Labels, names: tuple[str, ...]) -> list[str]:
    if not labels:
        return [f"Probabilities of: {', '.join(names)}."]
    pairs = zip(labels.value_of_index(), labels.classes, strict=True)
    lines = ["| value | name |", "|---|---|", *(f"| {value} | {name} |" for value, name in pairs)]
    return lines + [f"\nRegion {name}: {', '.join(members)}." for name, members in labels.regions.items()]


def _training(records: Mapping[int | None, TrainedModel]) -> list[str]:
    lines = [
        "| model | parameters | epochs | steps | best epoch | its score | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for fold, one in records.items():
        score = "" if one.best_score is None or not math.isfinite(one.best_score) else f"{one.best_score:.4f}"
        lines.append(
            f"| {'all cases' if fold is None else f'fold {fold}'} | {one.parameters} | {one.epochs} | {one.steps} | "
            f"{one.best_epoch} | {score} | {one.seconds / 60:.1f} |"
        )
    return lines


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """Return a table of the means of each class, by set of predictions."""
    lines: list[str] = []
    for name, words in (("out_of_fold", "Cases that the model of their fold had not seen"), ("test", "Test cases")):
        part = metrics.get(name) or {}
        classes = part.get("classes") or {}
        if not classes:
            continue
        columns = list(next(iter(classes.values())).get("metrics", {}))[:_METRICS_SHOWN]
        lines += [f"{words} ({part.get('cases')} cases of {part.get('groups')} patients; mean, 95 % interval):", ""]
        lines += [f"| class | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        lines += [
            f"| {one} | {' | '.join(_cell(about['metrics'].get(key)) for key in columns)} |"
            for one, about in classes.items()
        ]
        lines.append("")
    return lines or ["Not evaluated as segmentation here; see `metrics.json`." if metrics else "Not evaluated."]


def _gains(choice: Mapping[str, Any]) -> list[str]:
    """Say what post-processing gained, and on what it was chosen."""
    classes = choice.get("classes") or {}
    if not classes:
        return []
    lines = ["", f"Chosen on {choice['chosen_on']} of {choice['cases']} cases, and kept where the gain carries over "
             "from fold to fold. The figures above are those without it.", ""]  # fmt: skip
    lines += ["| class | Dice without | with | with, chosen on other folds | kept |", "|---" * 5 + "|"]
    for name, one in classes.items():
        nested = "" if one["mended_nested"] is None else f"{one['mended_nested']:.4f}"
        kept = "yes" if one["kept"] else "no"
        lines.append(f"| {name} | {one['raw']:.4f} | {one['mended']:.4f} | {nested} | {kept} |")
    return lines


def _cell(figure: Mapping[str, Any] | None) -> str:
    if not figure or figure.get("mean") is None:
        return ""
    if figure.get("low") is None:
        return f"{figure['mean']:.4g}"
    return f"{figure['mean']:.4g} ({figure['low']:.4g} to {figure['high']:.4g})"


def _foreign(parts: list[Plugin]) -> list[str]:
    """Return the modules outside this package that parts of the recipe come from."""
    return sorted({type(one).__module__ for one in parts if type(one).__module__.split(".")[0] != "pipeline"})


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({type(error).__name__}). Make the run again.") from None
    return found if isinstance(found, dict) else {}


def _dump(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
