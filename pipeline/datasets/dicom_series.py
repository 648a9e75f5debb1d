"""A scanner's export as a data set: every DICOM series that can be read as a volume is a case."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pipeline.datasets.base import Case, Dataset, Manifest, datasets
from pipeline.datasets.listing import Listing
from pipeline.datasets.segmentations import Drawn
from pipeline.dicom.audit import Judged, audit
from pipeline.dicom.geometry import stack_of
from pipeline.dicom.rules import parse_rules, select
from pipeline.errors import DataError

log = logging.getLogger(__name__)


@datasets.register
class DicomSeries(Dataset):
    """A tree of DICOM files, one folder a series; nothing is decoded, and nothing personal is kept.

    A series is left out, and said to be, where the audit refuses it or where it is no plain stack of slices in a
    folder of its own.
    """

    name: Literal["dicom"] = "dicom"
    folder: Path
    """Looked through whole."""
    rules: Path | None = None
    """YAML of rules that choose series, as `series --rules` has it; all usable ones are taken without."""
    ids: Literal["hash", "uid"] = "hash"
    """Whether cases are called by a short hash of the series UID, or by the UID itself."""
    labels_folder: Path | None = None
    """Where DICOM segmentations that refer to a series are written as label volumes, one file a case; `import` takes
    a folder beside the manifest. None: segmentations are passed over, which is said."""

    def cases(self) -> Manifest:
        """List the usable series; those left out are in `metadata["left_out"]` with the reason."""
        folder = Path.cwd() / self.folder.expanduser()
        found = audit([folder])
        sharing = _series_by_folder(found.judged)
        chosen = self._chosen(found.judged)
        listing, left_out = Listing(folder), dict[str, str]()
        columns: dict[str, dict[str, str]] = defaultdict(dict)
        drawn = Drawn.of(found.judged) if self.labels_folder else Drawn()
        for judged in found.judged:
            series, header = judged.series, judged.series.header
            case_id = (
                _hash(header.modality.lower() or "series", series.case_id) if self.ids == "hash" else series.case_id
            )
            if header.path in drawn.files:
                continue
            why = _why_not(judged, sharing, chosen)
            label: Path | None = None
            if not why and self.labels_folder:
                try:
                    label = drawn.write_label(series, Path.cwd() / self.labels_folder.expanduser(), case_id)
                except DataError as error:
                    why = f"its segmentation cannot be used: {error}"
            if why:
                left_out[case_id] = why
                continue
            listing.add(case_id, {"image": Path(header.path).parent}, label, group=_group(judged, found.judged))
            for column, text in (("modality", header.modality), ("description", header.description),
                                 ("study", header.study_uid and _hash("study", header.study_uid))):  # fmt: skip
                if text:
                    columns[column][case_id] = text.strip()
        reasons = "; ".join(f"{case}: {why}" for case, why in left_out.items())
        if left_out and not listing.cases:
            raise DataError(f"{folder}: none of {len(left_out)} series can be used: {reasons}")
        if left_out:
            log.warning("%d series left out: %s", len(left_out), reasons)
        metadata = {"left_out": left_out} if left_out else {}
        codes = {"codes": drawn.codes} if drawn.codes else {}
        more = codes | ({"columns": dict(columns)} if columns else {})
        return listing.manifest(drawn.labels, metadata=metadata | more)

    def _chosen(self, judged: tuple[Judged, ...]) -> set[str]:
        if self.rules is None:
            return {one.series.case_id for one in judged}
        import yaml

        from pipeline.yaml_text import parse_yaml

        try:
            tree = parse_yaml(self.rules.expanduser().read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"rules: {self.rules} cannot be read: {' '.join(str(error).split())}.") from None
        return set(select(judged, parse_rules(tree, str(self.rules))).chosen)


def _why_not(judged: Judged, sharing: dict[str, int], chosen: set[str]) -> str:
    """Say why a series is no case; an empty text where it is one.

    Training reads a folder as a plain stack: what needs more than that is left out rather than read wrongly.
    """
    series, verdict = judged.series, judged.verdict
    folders = {str(Path(plane.header.path).parent) for plane in series.planes}
    if not verdict.is_usable:
        return f"{verdict.kind}: {verdict.reason}."
    if series.case_id not in chosen:
        return "no rule takes it."
    if len(folders) > 1 or series.part or any(sharing[folder] > 1 for folder in folders):
        return "it shares its folder with another series, or lies in several; expected a folder for each."
    if series.equal_duplicates or series.damaged_beside:
        return "duplicate or damaged files lie beside its slices. Remove them."
    if verdict.is_uneven or stack_of(series.planes).is_sheared:
        return "its slices are tilted or uneven. Convert it to one volume first."
    return ""


def refused_folders(cases: Iterable[Case]) -> dict[str, str]:
    """Return case id -> why a folder of DICOM files that it names as an image cannot be read as a plain stack.

    A manifest that was written by hand may name what `import dicom` would have left out.
    """
    folders = {
        case.case_id: {channel: path.resolve() for channel, path in case.images.items() if path.is_dir()}
        for case in cases
    }
    every = sorted({path for named in folders.values() for path in named.values()})
    if not every:
        return {}
    found = audit(every)
    sharing = _series_by_folder(found.judged)
    held: dict[Path, list[Judged]] = defaultdict(list)
    for judged in found.judged:
        held[Path(judged.series.header.path).parent.resolve()].append(judged)
    refused = {}
    for case_id, named in folders.items():
        for channel, path in named.items():
            why = (
                f"the folder holds {len(held[path])} DICOM series; expected 1."
                if len(held[path]) != 1
                else _why_not(held[path][0], sharing, {held[path][0].series.case_id})
            )
            if why:
                refused[case_id] = f"case {case_id}: {channel}: {why}"
    return refused


def _series_by_folder(judged: Iterable[Judged]) -> dict[str, int]:
    """Return folder -> number of series with a file in it."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in judged:
        for plane in one.series.planes:
            found[str(Path(plane.header.path).parent)].add(one.series.case_id)
    return {folder: len(ids) for folder, ids in found.items()}


def _group(judged: Judged, everything: Iterable[Judged]) -> str:
    """Name the patient by a hash of the first study UID that is theirs.

    The patient id itself is not hashed: ids are so few that a hash without a key could be turned back.
    """
    patient = judged.series.header.patient
    theirs = [one.series for one in everything if one.series.header.patient == patient]
    return _hash("patient", min(series.header.study_uid or series.case_id for series in theirs))


def _hash(word: str, text: str) -> str:
    return f"{word}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
