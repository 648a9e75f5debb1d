"""The configuration of a run: read from YAML, checked as a whole, frozen."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from pipeline.datasets.folds import Folds
from pipeline.errors import ConfigError, join_problems
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow, NormaliseField
from pipeline.machine import Machine
from pipeline.plugin import Plugin, Settings, load_plugins
from pipeline.records import NetworkField, TaskField
from pipeline.stages.base import DatasetField, Parts, Stage
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.ingest import Ingest
from pipeline.stages.predict import Predict
from pipeline.stages.report import MakeReport
from pipeline.stages.sample import Sample
from pipeline.stages.survey import Survey
from pipeline.stages.train import Train
from pipeline.tasks.segmentation import Segmentation
from pipeline.yaml_text import parse_yaml

PLANNED = (
    "folds.k", "folds.stratify", "ingest.crop", "normalise", "network.name", "network.strides", "network.kernels",
    "network.features", "network.norm", "sample.foreground", "train.batch_size", "train.max_minutes", "train.epochs",
    "train.optimizer", "train.schedule", "train.augment", "train.validate_every", "evaluate.metrics",
)  # fmt: skip
"""Options that may say `auto`, beside those whose own type knows it; `network: auto` leaves all of it open."""


class RunConfig(Settings):
    """Everything that defines a run. Paths are relative to the folder the command is started in."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every random draw of the run."""
    plugins: tuple[str, ...] = ()
    """Modules of your own to import; looked up beside the config too."""
    machine: Machine = Machine()
    dataset: DatasetField
    labels: Labels = Labels()
    """Meaning of the label values; optional where the data set says it."""
    task: TaskField = Segmentation()
    folds: Folds = Folds()
    survey: Survey = Survey()
    ingest: Ingest = Ingest()
    normalise: NormaliseField = HuWindow()
    sample: Sample = Sample()
    network: NetworkField
    train: Train = Train()
    predict: Predict = Predict()
    evaluate: Evaluate = Evaluate()
    report: MakeReport = MakeReport()

    _left_open: tuple[str, ...] = PrivateAttr(default=())

    @property
    def left_open(self) -> tuple[str, ...]:
        """Those of `PLANNED` that say `auto`: they hold some value until the planner has chosen one."""
        return self._left_open

    @property
    def parts(self) -> Parts:
        """The sections that several stages read."""
        return Parts.model_construct(**{name: getattr(self, name) for name in Parts.model_fields})

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which they run."""
        return (self.survey, self.ingest, self.sample, self.train, self.predict, self.evaluate, self.report)

    @model_validator(mode="after")
    def _patch_fits_network(self) -> "RunConfig":
        patch = self.sample.patch_size
        if patch == "auto":
            return self
        for axis, side, divisor in zip(("D", "H", "W"), patch, self.network.divisor(), strict=True):
            if side % divisor:
                near = max(divisor, round(side / divisor) * divisor)
                raise ValueError(
                    f"sample.patch_size: found {side} along {axis}; expected a multiple of {divisor}, the product of "
                    f"the network's strides there. Use {near}, or another network."
                )
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, its ancestors (`extends`) and `--set` overrides into a checked configuration.

    Raises:
        ConfigError: with every problem at once, each with its path.
    """
    tree = read_tree(path)
    for text in overrides:
        tree = merge(tree, override(text))
    plugins = tree.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ConfigError(f"{path}: plugins: found {plugins!r}; expected a list of module names.")
    load_plugins(plugins, search=path.parent)
    return check(tree, str(path))


def check(tree: Mapping[str, Any], where: str) -> RunConfig:
    """Turn a plain mapping into a checked configuration.

    Raises:
        ConfigError: with every problem at once.
    """
    plain, left_open = _without_auto(tree)
    try:
        config = RunConfig.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(join_problems(where, list(problems(error.errors(), RunConfig)))) from None
    config._left_open = left_open
    return config


def _without_auto(tree: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a tree without the `auto` of `PLANNED`, and their paths."""
    tree = dict(tree)
    if tree.get("network") == "auto":
        tree["network"] = {path.partition(".")[2]: "auto" for path in PLANNED if path.startswith("network.")}
    found = []
    for path in PLANNED:
        head, _, last = path.partition(".")
        section = tree.get(head)
        if not last and section == "auto":
            found.append(path)
            del tree[head]
        elif isinstance(section, Mapping) and section.get(last) == "auto":
            found.append(path)
            tree[head] = {key: value for key, value in section.items() if key != last}
    if any(path.startswith("network.") for path in found):
        tree["network"] = _placeholder(dict(tree["network"]), found)
    return tree, tuple(found)


def _placeholder(network: dict[str, Any], left_open: Sequence[str]) -> dict[str, Any]:
    """Let a network with open options be built and take any patch until they are chosen."""
    network.setdefault("name", "unet")
    if "network.features" in left_open:
        levels = len(network.get("strides") or (network.get("kernels") or [1])[1:]) + 1
        network["features"] = [16] * levels
    if "network.strides" in left_open and isinstance(network.get("features"), list):
        network["strides"] = [[1, 1, 1]] * (len(network["features"]) - 1)
    return network


def read_tree(path: Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a YAML mapping and merge it over the file that it `extends`."""
    if path.resolve() in _seen:
        raise ConfigError(f"{path}: extends itself through {' -> '.join(str(p.name) for p in _seen)}. Remove the loop.")
    tree = read_yaml(path)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    return merge(read_tree(path.parent / str(parent), (*_seen, path.resolve())), tree)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; a key that stands twice is refused.

    Raises:
        ConfigError: no such file, no valid YAML, no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}). Check the path."
        ) from None
    try:
        tree = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: found a {type(tree).__name__}; expected a mapping such as 'seed: 0'.")
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Put `over` on `base`: mappings key by key, lists replaced, a plug-in whole where its `name` differs."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if not isinstance(old, Mapping) or not isinstance(value, Mapping):
            merged[key] = value
        else:
            is_same = value.get("name", old.get("name")) == old.get("name")
            merged[key] = merge(old, value) if is_same else value
    return merged


def override(text: str) -> dict[str, Any]:
    """Turn `train.epochs=5` into {train: {epochs: 5}}.

    Raises:
        ConfigError: it is not KEY=VALUE with a YAML value.
    """
    name, equals, value_text = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, for example train.epochs=5.")
    try:
        value = yaml.safe_load(value_text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: the value is not valid YAML.") from None
    for key in reversed(name.strip().split(".")):
        value = {key: value}
    return dict(value)


def problems(errors: Iterable[Any], model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterable[str]:
    """Turn pydantic's errors into texts `path: what was found; what is expected`, those of plug-ins included."""
    for error in errors:
        path = (*prefix, *(str(part) for part in error["loc"]))
        context = error.get("ctx", {})
        if error["type"] == "nested":
            yield from problems(context["errors"], context["plugin"], path)
        elif error["type"] == "extra_forbidden":
            known = _known_fields(model, path[len(prefix) : -1])
            near = difflib.get_close_matches(path[-1], known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            yield f"{'.'.join(path)}: unknown option{hint} Known: {', '.join(known)}"
        elif error["type"] == "missing":
            yield f"{'.'.join(path)}: is missing. Add it."
        else:
            message = error["msg"].removeprefix("Value error, ")
            found = "" if error["type"] in ("value_error", "plugin") else f" (found {error['input']!r})"
            yield f"{'.'.join(path)}: {message}{found}" if path else f"{message}{found}"


def _known_fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        field = model.model_fields.get(name)
        if field is None:
            continue
        inside = [part for part in (field.annotation, *get_args(field.annotation)) if isinstance(part, type)]
        model = next((part for part in inside if issubclass(part, BaseModel)), model)
    hidden = {"name"} if issubclass(model, Stage) else set()
    return sorted(set(model.model_fields) - hidden)


def to_yaml(config: RunConfig) -> str:
    """Write a configuration out in full, as YAML that can be run again."""
    tree = config.model_dump(mode="json")
    for path in config.left_open:
        tree = merge(tree, override(f"{path}=auto"))
    for stage in config.stages:
        section = tree.get(stage.name)
        if isinstance(section, dict):
            section.pop("name", None)
    return yaml.safe_dump(_plain(tree), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Plugin):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {_number(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _number(key: Any) -> Any:
    """Give label values back as the integers that they are."""
    return int(key) if isinstance(key, str) and key.lstrip("-").isdigit() else key
