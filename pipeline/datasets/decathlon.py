"""Data sets of the Medical Segmentation Decathlon, read in place."""

from pathlib import Path
from typing import Any, Literal

from pipeline.datasets.base import Dataset, Manifest, datasets
from pipeline.datasets.listing import Listing, distinct, named_values, read_json, split_ending, warn_number
from pipeline.errors import DataError

_LISTS = ("training", "test")


@datasets.register
class Decathlon(Dataset):
    """A folder with `dataset.json`, imagesTr, labelsTr and perhaps imagesTs, as the Decathlon hands them out.

    Test images have no labels there: they become cases of the test split, and where imagesTs was never
    unpacked they are passed over. Training files must be there. Several modalities are the channels of
    one 4-D file.
    """

    name: Literal["decathlon"] = "decathlon"
    folder: Path
    """Where `dataset.json` lies."""

    def cases(self) -> Manifest:
        """List the cases of `dataset.json`; everything else in it is kept as metadata, word for word."""
        folder = Path.cwd() / self.folder.expanduser()
        table = _read_table(folder / "dataset.json")
        listing = Listing(folder / "dataset.json")
        listing.channels = _read_channels(table, listing.problems)
        labels = named_values(table.get("labels"), listing.problems)
        _add_training(table, folder, listing)
        warn_number(folder, table, len(table.get("training", [])))
        _add_test(table, folder, listing)
        return listing.manifest(labels, metadata={key: value for key, value in table.items() if key not in _LISTS})


def _add_training(table: dict[str, Any], folder: Path, listing: Listing) -> None:
    for number, entry in enumerate(table.get("training", [])):
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            listing.problems.append(f"training[{number}] is {entry!r}; expected {{'image': ..., 'label': ...}}.")
            continue
        image = folder / str(entry["image"])
        images = dict.fromkeys(listing.channels, image)
        listing.add(split_ending(image.name)[0], images, folder / str(entry["label"]), split="train")


def _add_test(table: dict[str, Any], folder: Path, listing: Listing) -> None:
    for entry in table.get("test", []):
        image = folder / str(entry["image"] if isinstance(entry, dict) and "image" in entry else entry)
        if image.exists():
            listing.add(split_ending(image.name)[0], dict.fromkeys(listing.channels, image), split="test")


def _read_table(path: Path) -> dict[str, Any]:
    table = read_json(path, "a Decathlon folder")
    if not isinstance(table, dict) or not all(isinstance(table.get(name, []), list) for name in _LISTS):
        raise DataError(f"{path}: expected a mapping with a list 'training'. Is it from the Decathlon?")
    if "channel_names" in table or "file_ending" in table:
        raise DataError(f"{path}: this is an nnU-Net data set, not one of the Decathlon. Use the importer 'nnunet'.")
    return table


def _read_channels(table: dict[str, Any], problems: list[str]) -> tuple[str, ...]:
    """Return the names of the modalities, in the order in which a 4-D file holds them."""
    modality = table.get("modality") or {"0": "image"}
    try:
        return distinct(str(name) for _, name in sorted(modality.items(), key=lambda item: int(item[0])))
    except (AttributeError, ValueError):
        problems.append(f"modality is {modality!r}; expected a mapping such as {{'0': 'CT'}}.")
        return ("image",)
