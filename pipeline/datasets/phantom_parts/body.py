"""The patient and the visit: what is drawn by chance, and the distances that all organs are placed by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.phantom_parts.canvas import Array, Axes, Box, Canvas, Point, SmoothField, ellipsoid

LABELS = {0: "background", 1: "lung", 2: "liver", 3: "kidney", 4: "spine", 5: "rib", 6: "vessel", 7: "lesion"}
NOTHING, LUNG, LIVER, KIDNEY, SPINE, RIB, VESSEL, LESION = LABELS

PHASES = ("native", "arterial", "portal", "late")
"""When the scan was made after the contrast agent was given."""

EVERYWHERE: Box = (slice(None), slice(None), slice(None))

_PHASE_HU = {  # aorta, veins, liver, kidney, spleen, heart
    "native": (42, 40, 56, 33, 48, 42),
    "arterial": (290, 110, 66, 150, 105, 220),
    "portal": (155, 160, 108, 185, 122, 150),
    "late": (115, 118, 92, 150, 98, 112),
}
_FIELDS_MM = {
    "wide": 110.0, "bend_x": 130.0, "bend_y": 130.0, "bend_z": 130.0, "organ": 42.0, "loops": 24.0, "fine": 11.0,
}  # fmt: skip
_SPINE_AHEAD_MM = 41.0


@dataclass(frozen=True)
class Body:
    """What stays the same when a patient is scanned again; lengths in mm."""

    seed: NDArray[np.uint64]
    width: float
    depth: float
    fat_mm: float
    bone_hu: float
    lung_hu: float
    fatty_liver_hu: float
    right_dome: float
    left_dome: float
    vertebra_mm: float
    spine_phase: float
    scoliosis_mm: float
    kidneys: tuple[Point, Point]
    fields: dict[str, SmoothField]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Body":
        """Draw a patient."""
        shift = rng.uniform
        right, left = (
            (side * shift(55, 66), shift(34, 42), low + shift(-14, 10)) for side, low in ((-1, -100), (1, -86))
        )
        return cls(
            seed=rng.integers(0, 2**63, 2, np.uint64),
            width=shift(140, 166),
            depth=shift(104, 122),
            fat_mm=shift(6, 24),
            bone_hu=shift(110, 210),
            lung_hu=shift(-890, -800),
            fatty_liver_hu=-shift(0, 30) * (rng.random() < 0.4),
            right_dome=shift(38, 60),
            left_dome=shift(26, 48),
            vertebra_mm=shift(26, 30),
            spine_phase=shift(0, 1),
            scoliosis_mm=shift(-7, 7),
            kidneys=(right, left),
            fields={name: SmoothField.draw(rng, scale) for name, scale in _FIELDS_MM.items()},
        )


@dataclass(frozen=True)
class Visit:
    """What differs between two scans of one patient."""

    phase: str
    breath_mm: float
    turn: float
    shift: tuple[float, float]
    oral_contrast: bool
    opaque: float
    mattress_hu: float
    mattress_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, phase: str) -> "Visit":
        """Draw a scan in a given phase."""
        return cls(
            phase=phase,
            breath_mm=rng.uniform(-8, 8),
            turn=np.radians(rng.uniform(-5, 5)),
            shift=(rng.uniform(-10, 10), rng.uniform(-8, 8)),
            oral_contrast=rng.random() < 0.35,
            opaque=rng.uniform(0.0, 1.0),
            mattress_hu=rng.uniform(-930, -840),
            mattress_mm=rng.uniform(14, 34),
        )


@dataclass(frozen=True)
class Contrast:
    """Intensities in HU that the contrast agent changes."""

    aorta: float
    vein: float
    liver: float
    kidney: float
    spleen: float
    heart: float


class Trunk:
    """A patient on the scanner's table, being painted.

    Attributes:
        canvas: What is painted on.
        body, visit: The patient and the scan.
        hu: Intensities of this scan.
        noise: Values of the patient's random fields over the grid, about standard normal.
        rng: Draws the small things: vessels, lesions; the same in every scan of the patient.
        skin, muscle, cavity: Distance in mm to the skin, to the muscle below the fat, and to the room
            within the chest and belly wall; negative inside.
        dome: Height of the diaphragm at every (x, y).
        spine_x, spine_y: Where the middle of the spine is at every z.
        heart: Distance in mm to the heart.
    """

    def __init__(self, body: Body, visit: Visit, axes: Axes, edge_mm: float) -> None:
        self.body, self.visit = body, visit
        self.rng = np.random.Generator(np.random.Philox(key=body.seed))
        self.noise = {name: field.at(axes) for name, field in body.fields.items()}
        hu = (value + jitter for value, jitter in zip(_PHASE_HU[visit.phase], self.rng.uniform(-6, 6, 6), strict=True))
        self.hu = Contrast(*hu)
        bend = [
            6.5 * self.noise["bend_" + axis] + sign * 1.2 * self.noise["organ"]
            for axis, sign in (("z", 1), ("y", -1), ("x", 1))
        ]
        self.canvas = Canvas(axes, edge_mm, bend)
        self.canvas.lay_down(visit.turn, visit.shift)
        x, y, z = self.canvas.positions(EVERYWHERE)
        self.skin, self.muscle, self.cavity = self._walls(x, y, z)
        self.dome = self._dome(x, y)
        self.spine_x, self.spine_y = self.spine_at(z)
        centre = (22, -24, 32 + 0.6 * visit.breath_mm)
        self.heart = ellipsoid((x, y, z), centre, (60, 44, 52), turn=0.45, tilt=-0.5)

    def spine_at(self, z: Array) -> tuple[Array, Array]:
        """Return x and y of the middle of the vertebral bodies at heights z: its curves from the side and behind."""
        x, y = self.body.scoliosis_mm * np.sin(z / 70 + 1), _SPINE_AHEAD_MM + 9 * np.sin((z + 40) / 85)
        return x.astype(np.float32), y.astype(np.float32)

    def spine_point(self, z: float, ahead: Point) -> Point:
        """Return a point beside the spine at height z: `ahead` is added to its middle."""
        x, y = self.spine_at(np.array([z], np.float32))
        return float(x[0]) + ahead[0], float(y[0]) + ahead[1], z + ahead[2]

    def _walls(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        body, noise = self.body, self.noise
        chest = 1 / (1 + np.exp(-(z - 10) / 30))
        width = body.width * (1 + 0.05 * chest - 0.0006 * np.maximum(-z - 80, 0))
        depth = body.depth * (1 + 0.04 * chest)
        radius = np.sqrt(x * x + y * y) + 1e-3
        power = 2.35
        scaled = ((np.abs(x) / width) ** power + (np.abs(y) / depth) ** power) ** (1 / power) + 1e-4
        groove = 9 * np.exp(-((x / 22) ** 2)) * (y > 0)
        skin = radius * (1 - 1 / scaled) + groove + 2.5 * noise["wide"]
        back = np.clip(y / depth, 0, 1) ** 2
        fat = body.fat_mm * (0.55 + 0.7 * (1 - chest) + 0.25 * noise["wide"] - 0.25 * back * chest)
        muscle = skin + np.maximum(fat, 3)
        beside_spine = 25 * np.exp(-((x / 44) ** 4)) * np.clip(y / 40, 0, 1) ** 2
        apex = 50 * (np.maximum(z - 95, 0) / 80) ** 2
        return skin, muscle, muscle + 14 + 4 * chest + 9 * back + beside_spine + apex + 1.2 * noise["organ"]

    def _dome(self, x: Array, y: Array) -> Array:
        """Return the height of the diaphragm, which the breath moves."""
        right = self.body.right_dome * np.exp(-(((x + 72) / 58) ** 2) - ((y + 2) / 66) ** 2)
        left = self.body.left_dome * np.exp(-(((x - 72) / 55) ** 2) - ((y + 2) / 62) ** 2)
        middle = 22 * np.exp(-((x / 40) ** 2) - ((y + 30) / 50) ** 2)
        return np.asarray(-34 + self.visit.breath_mm + 1.25 * (right + left) + middle - 0.25 * y, np.float32)
