"""Rules that say which series go to which model; what no rule takes, or what a rule cannot decide, is told."""

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationError, field_validator, model_validator

from pipeline.dicom.audit import Judged
from pipeline.dicom.geometry import stack_of
from pipeline.dicom.series import Series, study_of
from pipeline.errors import ConfigError, join_problems
from pipeline.plugin import Settings


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""Regular expression, searched for anywhere, capitals or not."""
Range = tuple[float, float]
"""From, to, both inclusive."""
Direction = Literal["axial", "coronal", "sagittal"]


class Rule(Settings):
    """Which series go to a model: all that is given here must hold."""

    name: str
    """Names the rule in tables."""
    model: str = ""
    """Model package that the series go to."""
    channel: str = ""
    """Channel of the model that the series is, where the model has several."""
    modality: str | None = None
    """`CT`, `MR`, `PT` ..."""
    description: Pattern | None = None
    """Must be found in the series description."""
    exclude: Pattern | None = None
    """Must not be found in the series description."""
    study_description: Pattern | None = None
    """Must be found in the study description."""
    protocol: Pattern | None = None
    """Must be found in the protocol name."""
    body_part: Pattern | None = None
    """Must be found in the body part."""
    kernel: Pattern | None = None
    """Must be found in the reconstruction kernel."""
    image_type: tuple[str, ...] = ()
    """Words that the image type must have, such as ORIGINAL."""
    exclude_image_type: tuple[str, ...] = ()
    """Words that the image type must not have."""
    contrast: bool | None = None
    """Whether a contrast agent must, or must not, be given."""
    slice_thickness_mm: Range | None = None
    """Range of the nominal slice thickness."""
    step_mm: Range | None = None
    """Range of the distance between slices."""
    slices: Range | None = None
    """Range of the number of slices."""
    orientation: Direction | None = None
    """Plane of the slices, as nearly as it is one."""
    take: Literal["one", "all"] = "one"
    """One series a study, or all that match."""
    prefer: tuple[Literal["thinnest", "most slices"], ...] = ()
    """How one of several is chosen, the first word first; where that leaves several, none is taken."""

    @field_validator("prefer", "image_type", "exclude_image_type", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "Rule":
        for name in ("slice_thickness_mm", "step_mm", "slices"):
            ends = getattr(self, name)
            if ends is not None and ends[0] > ends[1]:
                raise ValueError(f"{name}: found {ends[0]:g} to {ends[1]:g}; expected the lower end first")
        return self


class Rules(Settings):
    """What a rules file holds."""

    rules: tuple[Rule, ...]
    """Each is applied by itself: a series may go to several models."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Rules":
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {twice[0]!r}")
        return self


@dataclass(frozen=True)
class Selection:
    """What rules chose from an audit; every usable series is in exactly one of the three or in `passed_over`."""

    chosen: dict[str, tuple[str, ...]]
    """Case id -> names of the rules that take it."""
    ambiguous: dict[str, str]
    """Case id -> which rule could not decide, and between how many."""
    unmatched: tuple[str, ...]
    """Case ids that no rule matches."""
    passed_over: dict[str, str]
    """Case id -> the rule that prefers another series of its study."""


def parse_rules(tree: Mapping[str, Any], where: str) -> Rules:
    """Turn a plain mapping, `{rules: [{name: ..., modality: CT, ...}]}`, into checked rules.

    Raises:
        ConfigError: with every problem at once.
    """
    try:
        return Rules.model_validate(tree)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ConfigError(join_problems(where, problems)) from None


def select(judged: Iterable[Judged], rules: Rules) -> Selection:
    """Choose series by rules; refused series take no part."""
    usable = [one.series for one in judged if one.verdict.is_usable]
    chosen: dict[str, list[str]] = {}
    ambiguous: dict[str, str] = {}
    passed_over: dict[str, str] = {}
    for rule in rules.rules:
        for candidates in _by_study(series for series in usable if matches(rule, series)):
            taken = candidates if rule.take == "all" else _preferred(candidates, rule)
            for series in candidates:
                if series not in taken:
                    passed_over[series.case_id] = rule.name
                elif rule.take == "one" and len(taken) > 1:
                    ambiguous[series.case_id] = f"{rule.name}: {len(taken)} series of the study match alike"
                else:
                    chosen.setdefault(series.case_id, []).append(rule.name)
    ids = [series.case_id for series in usable]
    return Selection(
        chosen={case_id: tuple(names) for case_id, names in chosen.items()},
        ambiguous={case_id: why for case_id, why in ambiguous.items() if case_id not in chosen},
        unmatched=tuple(one for one in ids if one not in chosen and one not in ambiguous and one not in passed_over),
        passed_over={one: name for one, name in passed_over.items() if one not in chosen and one not in ambiguous},
    )


def matches(rule: Rule, series: Series) -> bool:
    """Say whether all that a rule gives holds for a series that is usable."""
    header, plane = series.header, series.planes[0]
    words = {word.upper() for word in plane.image_type}
    return (
        (rule.modality is None or rule.modality.upper() == header.modality.upper())
        and _found(rule.description, header.description)
        and not (rule.exclude is not None and _found(rule.exclude, header.description))
        and _found(rule.study_description, header.study_description)
        and _found(rule.protocol, header.protocol)
        and _found(rule.body_part, header.body_part)
        and _found(rule.kernel, plane.kernel)
        and {word.upper() for word in rule.image_type} <= words
        and not {word.upper() for word in rule.exclude_image_type} & words
        and (rule.contrast is None or rule.contrast == bool(header.contrast))
        and _within(rule.slice_thickness_mm, plane.thickness)
        and _within(rule.step_mm, stack_of(series.planes).usual_step_mm if rule.step_mm else None)
        and _within(rule.slices, len(series.planes))
        and (rule.orientation is None or rule.orientation == plane_of(series))
    )


def plane_of(series: Series) -> Direction:
    """Name the plane of the patient in which the slices lie, as nearly as they do."""
    normal = [abs(part) for part in stack_of(series.planes).axes[2]]
    names: tuple[Direction, ...] = ("sagittal", "coronal", "axial")
    return names[normal.index(max(normal))]


def _found(pattern: str | None, text: str) -> bool:
    return pattern is None or re.search(pattern, text, re.IGNORECASE) is not None


def _within(ends: Range | None, value: float | None) -> bool:
    if ends is None:
        return True
    return value is not None and ends[0] - 1e-6 <= value <= ends[1] + 1e-6


def _by_study(matching: Iterable[Series]) -> list[list[Series]]:
    studies: dict[Hashable, list[Series]] = {}
    for series in matching:
        studies.setdefault(study_of(series), []).append(series)
    return list(studies.values())


def _preferred(candidates: list[Series], rule: Rule) -> list[Series]:
    """Keep the best by each preference in turn; more than one is left where they are alike."""
    for preference in rule.prefer:
        costs = [_cost(series, preference) for series in candidates]
        candidates = [one for one, cost in zip(candidates, costs, strict=True) if cost <= min(costs) + 1e-6]
    return candidates


def _cost(series: Series, preference: str) -> float:
    if preference == "most slices":
        return -len(series.planes)
    return series.planes[0].thickness or stack_of(series.planes).usual_step_mm
