"""The usual ways to lay out images and labels in folders, found by what the files are called."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pipeline.datasets.listing import ENDINGS, split_ending
from pipeline.datasets.patterns import assign, compile_pattern

_IMAGE_FOLDERS = ("imagesTr", "images", "image", "imgs", "img", "scans", "volumes", "volume", "data")
_LABEL_FOLDERS = ("labelsTr", "labels", "label", "masks", "mask", "segmentations", "segmentation", "segs", "seg",
                  "annotations", "gt")  # fmt: skip
_TEST_FOLDERS = {"imagesTr": "imagesTs", "images": "images_test"}
_IMAGE_MARKS = ("", "_0000", "_image", "_img", "_volume", "_scan", "_ct", "_mr", "-image", "-img")
_LABEL_MARKS = ("", "_seg", "_label", "_mask", "_labels", "_segmentation", "_gt", "_labelmap", "-seg", "-label",
                "-mask", ".seg", ".label", ".mask")  # fmt: skip
_IMAGE_NAMES = ("image", "img", "ct", "mr", "volume", "scan", "t1", "T1")
_LABEL_NAMES = ("label", "labels", "seg", "mask", "segmentation", "gt")
_MOST_TRIED = 100
"""Files of a folder, and folders of cases, that layouts are tried on."""


@dataclass(frozen=True)
class Layout:
    """Patterns of the files of a data set."""

    images: dict[str, str]
    """Channel -> pattern."""
    label: str | None = None
    test: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as a manifest's metadata keeps it."""
        images: object = self.images["image"] if set(self.images) == {"image"} else self.images
        parts = {"image": images, "label": self.label, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


def find_layout(files: Sequence[str], label: str | None = None) -> Layout | None:
    """Return the layout under which most cases have an image and a label; of equal ones, the first.

    Where no file looks like a label, a folder of images alone is a layout too.

    Args:
        files: Paths relative to the folder.
        label: Pattern of the labels where it is known.
    """
    every = [file for file in files if split_ending(file)[1]]
    volumes = _some(every)
    best, most = None, 0
    for image, mask in _candidates(volumes, label):
        patterns = {"image": compile_pattern(image, "image"), "label": compile_pattern(mask, "label")}
        found = assign(volumes, patterns)
        names = [{fields["case"] for fields in of_role.values()} for of_role in found.values()]
        both = len(names[0] & names[1])
        if both > most:
            best, most = Layout({"image": image}, mask, _test_of(image, volumes)), both
    return best or _images_alone(every)


def _some(volumes: Sequence[str]) -> list[str]:
    """Return the first files of each folder at the top, which are of the same cases, and of the first such folders."""
    by_top: dict[str, list[str]] = {}
    for file in volumes:
        by_top.setdefault(file.split("/")[0] if "/" in file else "", []).append(file)
    known = ("", *_IMAGE_FOLDERS, *_LABEL_FOLDERS, *_TEST_FOLDERS.values())
    tops = [*(top for top in by_top if top in known), *[top for top in by_top if top not in known][:_MOST_TRIED]]
    return [file for top in tops for file in by_top[top][:_MOST_TRIED]]


def _candidates(volumes: Sequence[str], label: str | None) -> Iterator[tuple[str, str]]:
    """Yield pairs of an image and a label pattern that may fit."""
    endings = _usual_endings(volumes)
    tops = {file.split("/")[0] for file in volumes if "/" in file}
    for ending, label_ending in product(endings, endings):
        for mark, label_mark in product(_IMAGE_MARKS, _LABEL_MARKS):
            image_file, label_file = f"{{case}}{mark}{ending}", f"{{case}}{label_mark}{label_ending}"
            for folder in [name for name in _IMAGE_FOLDERS if name in tops]:
                for label_folder in [name for name in _LABEL_FOLDERS if name in tops]:
                    yield f"{folder}/{image_file}", label or f"{label_folder}/{label_file}"
            if mark != label_mark:
                yield image_file, label or label_file
                yield f"{{case}}/{{case}}{mark}{ending}", label or f"{{case}}/{{case}}{label_mark}{label_ending}"
        for name, label_name in product(_IMAGE_NAMES, _LABEL_NAMES):
            yield f"{{case}}/{name}{ending}", label or f"{{case}}/{label_name}{label_ending}"


def _usual_endings(volumes: Iterable[str]) -> list[str]:
    """Return the endings that occur, the most frequent first."""
    counts = Counter(split_ending(file)[1] for file in volumes)
    return sorted(counts, key=lambda ending: (-counts[ending], ENDINGS.index(ending.lower())))


def _test_of(image: str, volumes: Sequence[str]) -> str | None:
    folder, _, file = image.rpartition("/")
    if folder not in _TEST_FOLDERS:
        return None
    test = f"{_TEST_FOLDERS[folder]}/{file}"
    pattern = compile_pattern(test, "test")
    return test if any(pattern.fields(name) is not None for name in volumes) else None


def _images_alone(volumes: Sequence[str]) -> Layout | None:
    for ending in _usual_endings(volumes):
        for folder in ("", *(f"{name}/" for name in _IMAGE_FOLDERS)):
            pattern = compile_pattern(f"{folder}{{case}}{ending}", "image")
            if all(pattern.fields(name) is not None for name in volumes):
                return Layout({"image": pattern.text})
    return None
