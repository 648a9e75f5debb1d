"""What the values of a label volume mean, and how they become class indices."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_serializer, model_validator

from pipeline.plugin import Settings

IGNORE = 255
"""Class index of voxels that count in no loss and no metric; also the name's value in files by custom."""

_RESERVED = ("mirror_pairs", "regions")
_SIDES = (("left", "right"), ("l", "r"))


class Labels(Settings):
    """Names of the values of a label volume.

    In YAML `{0: background, 1: liver, 255: ignore}`; several values with one name are merged, gaps are
    allowed. The name `background` is class 0 whatever its value; `ignore` marks voxels that count nowhere.
    Beside the values may stand `mirror_pairs: [[left_kidney, right_kidney]]` and
    `regions: {whole_tumour: [oedema, core]}`.
    """

    values: dict[int, str] = Field(default_factory=dict)
    """Value in the file -> class name."""
    mirror_pairs: tuple[tuple[str, str], ...] = ()
    """Classes that change places when the patient is mirrored; found by left/right in names where absent."""
    regions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Overlapping classes, each a union of named ones; predicted by one sigmoid each."""

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, data: Any) -> Any:
        """Accept the short form, in which the values stand directly in the mapping."""
        if isinstance(data, Mapping) and "values" not in data:
            short = {key: value for key, value in data.items() if key not in _RESERVED}
            return {"values": short, **{key: data[key] for key in _RESERVED if key in data}}
        return data

    @model_validator(mode="after")
    def _names_exist(self) -> "Labels":
        known = set(self.values.values())
        for pair in self.mirror_pairs:
            for name in pair:
                if name not in known:
                    raise ValueError(f"mirror_pairs names {name!r}, which is no label; labels: {sorted(known)}")
        for region, members in self.regions.items():
            for name in members:
                if name not in known:
                    raise ValueError(f"region {region!r} names {name!r}, which is no label; labels: {sorted(known)}")
        return self

    @model_serializer
    def _to_short_form(self) -> dict[Any, Any]:
        short: dict[Any, Any] = {str(value): name for value, name in self.values.items()}
        if self.mirror_pairs:
            short["mirror_pairs"] = [list(pair) for pair in self.mirror_pairs]
        if self.regions:
            short["regions"] = {name: list(members) for name, members in self.regions.items()}
        return short

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices: background first, then by first value; no `ignore`."""
        names = [name for _, name in sorted(self.values.items())]
        return tuple(dict.fromkeys(["background", *(name for name in names if name != "ignore")]))

    @property
    def foreground(self) -> tuple[str, ...]:
        """What is scored: the regions where there are any, else the classes without background."""
        return tuple(self.regions) or self.classes[1:]

    def index_of_value(self) -> dict[int, int]:
        """Return file value -> class index; `ignore` gives `IGNORE`."""
        order = {name: index for index, name in enumerate(self.classes)}
        table = {0: 0} if 0 not in self.values else {}
        return table | {value: IGNORE if name == "ignore" else order[name] for value, name in self.values.items()}

    def value_of_index(self) -> tuple[int, ...]:
        """Return the file value to write for each class index: the smallest with that name."""
        first: dict[str, int] = {}
        for value, name in sorted(self.values.items()):
            first.setdefault(name, value)
        return tuple(first.get(name, 0) for name in self.classes)

    def swaps(self) -> tuple[tuple[int, int], ...]:
        """Return the pairs of class indices that a left-right mirror image exchanges."""
        order = {name: index for index, name in enumerate(self.classes)}
        return tuple((order[a], order[b]) for a, b in self.mirror_pairs or pairs_by_name(self.classes))

    def channel_swaps(self) -> tuple[tuple[int, int], ...]:
        """Return the pairs of the logits' channels that a left-right mirror image exchanges."""
        if not self.regions:
            return self.swaps()
        sets = [frozenset(members) for members in self.regions.values()]
        mirrored = [frozenset(self.mirrored(members)) for members in sets]
        return tuple((a, b) for a, one in enumerate(mirrored) for b in range(a + 1, len(sets)) if one == sets[b])

    def mirrored(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return what classes are called in a left-right mirror image: those of a pair by their partner."""
        known = self.classes
        partner = {known[a]: known[b] for pair in self.swaps() for a, b in (pair, pair[::-1])}
        return tuple(partner.get(name, name) for name in names)

    def unpaired_sides(self) -> tuple[str, ...]:
        """Return class names that say a side but have no partner, so that mirroring would teach nonsense."""
        paired = {name for pair in self.mirror_pairs or pairs_by_name(self.classes) for name in pair}
        return tuple(name for name in self.classes if name not in paired and _other_side(name) is not None)

    def to_index(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Map a label volume to class indices.

        Args:
            values: Whole numbers of any type and shape; every value is known (the reader checked it).

        Returns:
            uint8 array of the same shape: class indices, `IGNORE` where the value is named `ignore`.
        """
        table = self.index_of_value()
        lowest, highest = min(0, int(values.min())), int(values.max())
        lookup = np.zeros(highest - lowest + 1, np.uint8)
        for value, index in table.items():
            if lowest <= value <= highest:
                lookup[value - lowest] = index
        return lookup[values.astype(np.int64) - lowest]

    def to_values(self, indices: NDArray[np.uint8]) -> NDArray[Any]:
        """Map class indices back to the values of the source files, in the smallest fitting unsigned type."""
        lookup = np.asarray(self.value_of_index())
        smallest = np.min_scalar_type(int(lookup.max())) if lookup.min() >= 0 else np.dtype(np.int16)
        return lookup.astype(smallest)[indices]


def sided(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names that say left or right."""
    return tuple(name for name in names if _other_side(name) is not None)


def _other_side(name: str) -> str | None:
    """Return the name with its side exchanged, or None where it names no side."""
    for separator in "_- ":
        words = name.split(separator)
        for one, other in _SIDES:
            for here, there in ((one, other), (other, one)):
                if here in [word.lower() for word in words]:
                    return separator.join(there if word.lower() == here else word for word in words)
    return None


def pairs_by_name(classes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of class names that differ in their side alone."""
    lower = {name.lower(): name for name in classes}
    pairs = []
    for name in classes:
        other = _other_side(name)
        partner = lower.get(other.lower()) if other else None
        if partner is not None and classes.index(name) < classes.index(partner):
            pairs.append((name, partner))
    return tuple(pairs)
