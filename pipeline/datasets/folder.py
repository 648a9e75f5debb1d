"""Any folder of volumes, read in place: patterns say which file is the image of a case and which its label."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.datasets.base import Dataset, Manifest, datasets
from pipeline.datasets.layouts import Layout, find_layout
from pipeline.datasets.listing import Listing, safe_id, shortened, split_ending
from pipeline.datasets.manifest import natural_order
from pipeline.datasets.patterns import Pattern, assign, compile_pattern, files_below
from pipeline.errors import DataError, plural

log = logging.getLogger(__name__)

_LABEL, _TEST = "label", "test"
_Found = dict[str, dict[tuple[str, str], tuple[Path, dict[str, str]]]]
"""Role (`image:CHANNEL`, `label`, `test`) -> (group, case) -> file and fields."""


@datasets.register
class Folder(Dataset):
    """Images and labels whose names say which belong together, such as `images/{case}.nii.gz`.

    Without patterns the usual layouts are tried: images/ and labels/, imagesTr/ and labelsTr/, labels beside
    their images, a folder a case.
    """

    name: Literal["folder"] = "folder"
    folder: Path
    """Where the patterns start."""
    image: str | dict[str, str] | None = None
    """Pattern of the images, or channel -> pattern; `{case}` names the case, `{group}` the patient, `{site}` the site.
    `*` is any part of a name, `**/` any folders."""
    label: str | None = None
    """Pattern of the labels; none where there are none."""
    test: str | None = None
    """Pattern of images without labels, which become cases of the test split."""
    unlabelled: Literal["refuse", "test", "leave_out"] = "refuse"
    """What becomes of images without a label where others have one."""
    optional_channels: tuple[str, ...] = ()
    """Channels that a case may lack."""

    def cases(self) -> Manifest:
        """Match the files with the patterns; images without a label and labels without an image are named."""
        folder = Path.cwd() / self.folder.expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder. Correct the path.")
        files = files_below(folder)
        layout = self._layout(folder, files)
        listing = Listing(folder, tuple(layout.images), self.optional_channels)
        found = _match(folder, files, _patterns(layout), listing.problems)
        _add_cases(found, listing, self.unlabelled, has_labels=layout.label is not None)
        for (group, case), (file, fields) in found.get(_TEST, {}).items():
            listing.add(_id(group, case), {listing.channels[0]: file}, split="test", **_who(fields))
        return listing.manifest(metadata={"layout": layout.to_dict()})

    def _layout(self, folder: Path, files: list[str]) -> Layout:
        if self.image is None:
            found = find_layout(files, self.label)
            if found is None:
                raise DataError(
                    f"{folder}: it has none of the usual layouts (images/ and labels/, imagesTr/ and labelsTr/, labels "
                    "beside images, a folder a case). Say how its files are called, such as "
                    "--set image=scans/{case}_ct.nii.gz --set label=masks/{case}.nii.gz"
                )
            return Layout(found.images, found.label, self.test or found.test)
        images = {"image": self.image} if isinstance(self.image, str) else dict(self.image)
        return Layout(images, self.label, self.test)


def _patterns(layout: Layout) -> dict[str, Pattern]:
    patterns = {f"image:{name}": compile_pattern(text, f"image {name}") for name, text in layout.images.items()}
    for role, text in ((_LABEL, layout.label), (_TEST, layout.test)):
        if text is not None:
            patterns[role] = compile_pattern(text, role)
    return patterns


def _match(folder: Path, files: list[str], patterns: Mapping[str, Pattern], problems: list[str]) -> _Found:
    """Return the files of each pattern by case; note two files for one case, patterns that fit none, files left."""
    found: _Found = defaultdict(dict)
    used: set[str] = set()
    for role, matched in assign(files, patterns).items():
        for file, fields in matched.items():
            key = (fields.get("group") or "", fields["case"])
            if key in found[role]:
                other = found[role][key][0].relative_to(folder).as_posix()
                problems.append(f"case {fields['case']}: {role} is both {other} and {file}; expected one file.")
            found[role][key] = (folder / file, fields)
        used |= matched.keys()
        if not matched:
            problems.append(f"{role.partition(':')[0]}: no file fits {patterns[role].text!r}; {_nearest(files)}.")
    left = [file for file in files if file not in used and split_ending(file)[1]]
    if left:
        log.warning("%s: %s that no pattern fits, such as %s", folder, plural(len(left), "volume file"), left[0])
    return found


def _add_cases(found: _Found, listing: Listing, unlabelled: str, *, has_labels: bool) -> None:
    images = {name: found.get(f"image:{name}", {}) for name in listing.channels}
    labels = found.get(_LABEL, {})
    keys = {key for of_channel in images.values() for key in of_channel}
    without: list[str] = []
    for key in sorted(keys, key=lambda key: natural_order(_id(*key))):
        files = {name: of_channel[key][0] for name, of_channel in images.items() if key in of_channel}
        fields = next(of_channel[key][1] for of_channel in images.values() if key in of_channel)
        label = _label_of(key, labels)
        if has_labels and label is None and unlabelled != "test":
            if unlabelled == "refuse":
                without.append(f"case {_id(*key)}: there is no label for {next(iter(files.values())).name}.")
            continue
        split = "test" if has_labels and label is None else "train"
        listing.add(_id(*key), files, label, split=split, **_who(fields))
    if without:
        listing.problems += shortened(without, "images")
        listing.problems.append("Add labels, or say what becomes of such images: unlabelled=test, or =leave_out.")
    used = {case for _, case in keys}
    orphans = [f"{file.name} is a label without an image." for key, (file, _) in labels.items()
               if key not in keys and (key[0] or key[1] not in used)]  # fmt: skip
    listing.problems += shortened(orphans, "labels")


def _label_of(key: tuple[str, str], labels: Mapping[tuple[str, str], tuple[Path, dict[str, str]]]) -> Path | None:
    """Return the label of a case; its pattern may do without the group."""
    found = labels.get(key) or labels.get(("", key[1]))
    return found[0] if found else None


def _id(group: str, case: str) -> str:
    """Name a case; the patient stands before it where the pattern has both, since scans may be called alike."""
    return safe_id(case if not group or case.startswith(group) else f"{group}_{case}")


def _who(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: fields[name].strip() for name in ("group", "site") if fields.get(name)}


def _nearest(files: Iterable[str]) -> str:
    some = list(files)[:3]
    return f"the files are called {', '.join(some)}, ..." if some else "the folder is empty"
