"""What lies in scanner exports: audited, chosen by rules, and ready to be predicted, or passed over with its reason."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.batch.sources import Found, Passed, Source
from pipeline.dicom.audit import Judged, audit
from pipeline.dicom.rules import Rules, Selection, select
from pipeline.dicom.series import Series, hashed_id, study_of
from pipeline.errors import ConfigError, plural
from pipeline.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_KEY_BYTES = 16


@dataclass(frozen=True)
class Exports(Found):
    """Findings of an audit, with the audit itself."""

    judged: Mapping[str, Judged] = field(default_factory=dict)
    """Case id, as tables show it -> series and verdict; every series of the export, usable or not."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """`files` looked at, of them `not DICOM`, `DICOMDIR` and `damaged`."""
    text: str = ""
    """How much was looked at, what of it is usable, and what was passed over."""


def find_exports(
    paths: Iterable[Path],
    *,
    channels: Sequence[str] = ("image",),
    rules: Rules | None = None,
    model: str = "",
    key: bytes | None = None,
    workers: int = 1,
    allow_uneven: bool = False,
    progress: Progress | None = None,
) -> Exports:
    """Audit trees of DICOM files and say what is to be predicted; no pixel is decoded.

    Args:
        paths: Folders, looked through whole, or files.
        channels: Of the model. With several, rules must name the channel that each chooses a series for.
        rules: Which series go to the model; without rules every usable one does.
        model: The model as the rules call it; rules for other models take no part. Empty: all rules do.
        key: Turns series UIDs into keyed hashes.
        workers: Processes that read headers.
        allow_uneven: Accept uneven steps, to be resampled to even ones.
        progress: Shows a bar.

    Returns:
        One source for each chosen series (or set of them, one a channel, named by that of the first channel);
        every other series is passed over with its reason. Nothing where there is no DICOM file.

    Raises:
        DataError: a path does not exist.
        ConfigError: there are several channels, and rules do not name a series for each.
    """
    mine = _rules_for(model, rules)
    _check_channels(channels, mine)
    audited = audit(paths, workers=workers, allow_uneven=allow_uneven, progress=progress)
    shown = {one.series.case_id: shown_id(one.series, key) for one in audited.judged}
    selection = select(audited.judged, mine) if mine else _everything(audited.judged)
    refused = tuple(
        Passed(shown[one.series.case_id], "refused", f"{one.verdict.kind}: {one.verdict.reason}")
        for one in audited.judged
        if not one.verdict.is_usable
    )
    chosen = [one for one in audited.judged if one.series.case_id in selection.chosen]
    if len(channels) == 1:
        taken = Found(tuple(_source(channels, [one], shown) for one in chosen))
    else:
        assert mine is not None
        taken = _together(chosen, channels, mine, selection, shown)
    return Exports(
        taken.sources,
        refused + _left(selection, shown) + taken.passed,
        judged={shown[one.series.case_id]: one for one in audited.judged},
        counts=audited.counts,
        text=audited.text(),
    )


def shown_id(series: Series, key: bytes | None) -> str:
    """Return the case id of a series as tables and file names show it: its UID, or a keyed hash of that."""
    return hashed_id(series.case_id, key) if key else series.case_id


def read_key(path: Path) -> bytes:
    """Return the key that a file holds.

    Raises:
        ConfigError: it cannot be read, or is too short to protect anything.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"--key {path}: cannot be read ({error.strerror}). Check the path.") from None
    if len(key) < LEAST_KEY_BYTES:
        found = f"found {len(key)} bytes; expected at least {LEAST_KEY_BYTES}, made at random."
        raise ConfigError(f"--key {path}: {found} Make one with 'head -c 32 /dev/urandom | base64'.")
    return key


def series_of(source: Source) -> tuple[Series, ...]:
    """Return the audited series of a source in the order of the channels; empty for files."""
    if source.series is None:
        return ()
    return source.series if isinstance(source.series, tuple) else (source.series,)


def acquired_voxels(source: Source) -> "NDArray[np.bool_] | None":
    """Return which voxels of a source's grid were scanned; None where all were, as in files."""
    from pipeline.dicom.decode import acquired

    series = series_of(source)
    return acquired(series[0]) if series else None


def find_folders(case_id: str, folders: Mapping[str, Path]) -> Source | Passed:
    """Return a case whose channels are folders of one DICOM series each, audited as an export is.

    Args:
        case_id: As a manifest calls it.
        folders: Channel -> folder.
    """
    chosen = []
    for channel, folder in folders.items():
        found = audit([folder]).judged
        if len(found) != 1:
            why = f"case {case_id}: the folder of channel {channel} holds {len(found)} DICOM series"
            return Passed(case_id, "unreadable", f"{why}; expected one. Give each series its own folder.")
        if not found[0].verdict.is_usable:
            why = f"case {case_id}: {found[0].verdict.kind}: {found[0].verdict.reason}. Export the series again."
            return Passed(case_id, "unreadable", why)
        chosen.append(found[0])
    made = _source(tuple(folders), chosen, {one.series.case_id: case_id for one in chosen})
    return replace(made, case_id=case_id)


def _rules_for(model: str, rules: Rules | None) -> Rules | None:
    if rules is None or not model:
        return rules
    mine = tuple(rule for rule in rules.rules if not rule.model or _same_model(rule.model, model))
    if not mine:
        named = ", ".join(sorted({rule.model for rule in rules.rules}))
        raise ConfigError(f"the rules choose nothing for {model}; they name {named}. Add a rule, or correct `model`.")
    return Rules(rules=mine)


def _same_model(named: str, model: str) -> bool:
    """Say whether rules name a model: by its path or the end of it, so that two `model.zip` are never mixed up."""
    wanted, given = Path(named), Path(model).resolve()
    parts = wanted.parts
    return wanted.resolve() == given or (not wanted.is_absolute() and given.parts[-len(parts) :] == parts)


def _check_channels(channels: Sequence[str], rules: Rules | None) -> None:
    if len(channels) == 1:
        return
    named = {rule.channel for rule in rules.rules} if rules else set()
    missing = [channel for channel in channels if channel not in named]
    if missing or named - set(channels):
        found = ", ".join(sorted(named - {""})) or "none"
        raise ConfigError(
            f"the model needs {plural(len(channels), 'channel')} ({', '.join(channels)}): found rules for {found}; "
            "expected one or more for each. Give every rule its `channel` in the file that --rules names."
        )


def _everything(judged: Iterable[Judged]) -> Selection:
    return Selection({one.series.case_id: () for one in judged if one.verdict.is_usable}, {}, (), {})


def _left(selection: Selection, shown: Mapping[str, str]) -> tuple[Passed, ...]:
    unmatched = [Passed(shown[one], "not selected", "no rule matches it") for one in selection.unmatched]
    over = [
        Passed(shown[one], "not selected", f"rule {name} prefers another series of its study")
        for one, name in selection.passed_over.items()
    ]
    open_ = [Passed(shown[one], "ambiguous", f"rule {why}") for one, why in selection.ambiguous.items()]
    return (*unmatched, *over, *open_)


def _source(channels: Sequence[str], judged: Sequence[Judged], shown: Mapping[str, str]) -> Source:
    files = {
        channel: tuple(dict.fromkeys(Path(plane.header.path) for plane in one.series.planes))
        for channel, one in zip(channels, judged, strict=True)
    }
    notes = dict.fromkeys(note for one in judged for note in one.verdict.notes)
    first = shown[judged[0].series.case_id]
    return Source(first, files, tuple(one.series for one in judged), "; ".join(notes))


def _together(
    chosen: Sequence[Judged], channels: Sequence[str], rules: Rules, selection: Selection, shown: Mapping[str, str]
) -> Found:
    """Make one source of the series of a study, where there is exactly one for each channel."""
    channel_of = {rule.name: rule.channel for rule in rules.rules}
    studies: dict[Hashable, dict[str, list[Judged]]] = {}
    for one in chosen:
        study = studies.setdefault(study_of(one.series), {})
        for name in dict.fromkeys(channel_of[rule] for rule in selection.chosen[one.series.case_id]):
            study.setdefault(name, []).append(one)
    sources, passed = [], []
    for study in studies.values():
        wrong = [channel for channel in channels if len(study.get(channel, [])) != 1]
        if not wrong:
            sources.append(_source(channels, [study[channel][0] for channel in channels], shown))
            continue
        many = any(len(study.get(channel, [])) > 1 for channel in wrong)
        why = ", ".join(f"{len(study.get(channel, []))} series for channel {channel}" for channel in wrong)
        for case_id in dict.fromkeys(shown[one.series.case_id] for found in study.values() for one in found):
            passed.append(Passed(case_id, "ambiguous" if many else "not selected", f"its study has {why}; expected 1"))
    return Found(tuple(sources), tuple(passed))
