"""Series as a scanner would send them, made from a seed: sound ones, and broken ones of more than twenty kinds."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)  # fmt: skip

NAME, ID, BIRTH, ACCESSION, PLACE = "Secret^Person", "SECRET-ID-77", "19550505", "ACC-SECRET", "Secret Hospital"
PRIVATE_WORDS = ("secret", "person", "19550505")
ROWS, COLUMNS, SLICES = 12, 16, 10


@dataclass
class Made:
    """A series before it is written; breakages change it."""

    datasets: list[Dataset]
    rng: np.random.Generator
    syntax: str = ExplicitVRLittleEndian
    after: list[Callable[[list[Path]], None]] = field(default_factory=list)
    """Done to the files once they are written."""

    @property
    def truth(self) -> np.ndarray:
        """Stored values (N, H, W) with their rescale, in the order of the positions."""
        return np.stack([one.truth for one in self.datasets])


def uid(rng: np.random.Generator) -> str:
    return "1.2.826.0.1.3680043.9." + str(int(rng.integers(10**17, 10**18)))


def make(seed: int, *, slices: int = SLICES, step: float = 2.5, orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
         tilt_mm: float = 0.0, heights: list[float] | None = None) -> Made:  # fmt: skip
    """Return a sound series; `tilt_mm` is the drift along H from slice to slice."""
    rng = np.random.Generator(np.random.Philox(seed))
    study, series, frame = uid(rng), uid(rng), uid(rng)
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(row, column)
    start = rng.uniform(-200, 0, 3).round(2)
    heights = heights if heights is not None else [step * number for number in range(slices)]
    base = rng.normal(100, 300, (ROWS, COLUMNS))
    datasets = []
    for number, height in enumerate(heights):
        stored = np.clip(base + 20 * number + rng.normal(0, 5, base.shape) + 1024, 0, 4095).astype(np.uint16)
        position = start + height * normal + number * tilt_mm * column
        datasets.append(_dataset(study, series, frame, uid(rng), number, stored, position, orientation))
    return Made(datasets, rng)


def _dataset(study, series, frame, instance, number, stored, position, orientation) -> Dataset:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, instance
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
    one.PatientName, one.PatientID, one.PatientBirthDate = NAME, ID, BIRTH
    one.AccessionNumber, one.InstitutionName = ACCESSION, PLACE
    one.Modality, one.SeriesDescription, one.BodyPartExamined = "CT", "Abdomen venous 2.5", "ABDOMEN"
    one.ConvolutionKernel, one.ImageType, one.SeriesNumber = "B30f", ["ORIGINAL", "PRIMARY", "AXIAL"], 3
    one.InstanceNumber, one.SliceThickness = 99 - number, 2.5
    one.ImagePositionPatient = [f"{value:.6f}"[:16] for value in position]
    one.ImageOrientationPatient = [f"{value:.9f}"[:16] for value in orientation]
    one.PixelSpacing = [0.8, 0.7]
    one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    set_pixels(one, stored)
    one.truth = stored.astype(np.float64) - 1024
    return one


def set_pixels(one: Dataset, stored: np.ndarray) -> None:
    one.Rows, one.Columns = stored.shape[-2:]
    one.PixelData = stored.tobytes()
    one["PixelData"].VR = "OW"
    one.stored = stored


def set_text(one: Dataset, name: str, text: str) -> None:
    """Set an element to a text that it should not have."""
    with config.disable_value_validation():
        one[name].value if name in one else setattr(one, name, "0")
        one[name] = RawDataElement(one[name].tag, one[name].VR, len(text), text.encode(), 0, False, True)


def write(made: Made, folder: Path, prefix: str = "I") -> list[Path]:
    """Write a series under names that say nothing of the order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = made.rng.permutation(len(made.datasets))
    paths = []
    for name, one in zip(names, made.datasets, strict=True):
        path = folder / f"{prefix}{name:05d}"
        write_file(one, path, made.syntax)
        paths.append(path)
    for change in made.after:
        change(paths)
    return paths


def write_file(one: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    bare = Dataset()
    bare.update(one)
    bare.file_meta = FileMetaDataset()
    bare.file_meta.MediaStorageSOPClassUID, bare.file_meta.MediaStorageSOPInstanceUID = (
        one.SOPClassUID, one.SOPInstanceUID,
    )  # fmt: skip
    bare.file_meta.TransferSyntaxUID = getattr(one, "syntax", syntax)
    if syntax == RLELossless:
        bare.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        bare.compress(RLELossless)
    elif syntax == ExplicitVRBigEndian:
        bare.PixelData = one.stored.byteswap().tobytes()
    bare.save_as(path, enforce_file_format=True, little_endian=syntax != ExplicitVRBigEndian,
                 implicit_vr=syntax == ImplicitVRLittleEndian)  # fmt: skip


SOUND_SYNTAXES = [
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
]  # fmt: skip


def _each(**values: object) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        for one in made.datasets:
            for name, value in values.items():
                setattr(one, name, value)

    return change


def _drop(*names: str) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        for one in made.datasets:
            for name in names:
                delattr(one, name)

    return change


def _missing(*which: int) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        made.datasets = [one for number, one in enumerate(made.datasets) if number not in which]

    return change


def _different_duplicate(made: Made) -> None:
    twin = copy.deepcopy(made.datasets[4])
    twin.SOPInstanceUID = uid(made.rng)
    set_pixels(twin, twin.stored[::-1].copy())
    made.datasets.append(twin)


def _at_heights(heights: list[float]) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        first = [float(value) for value in made.datasets[0].ImagePositionPatient]
        for one, height in zip(made.datasets, heights, strict=True):
            one.ImagePositionPatient = [first[0], first[1], f"{first[2] + height:.4f}"]

    return change


def _cut(share: float) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        made.after.append(lambda paths: paths[3].write_bytes(_head(paths[3].read_bytes(), share)))

    return change


def _head(raw: bytes, share: float) -> bytes:
    return raw[: int(len(raw) * share)]


def _shift_one(made: Made) -> None:
    place = [float(value) for value in made.datasets[5].ImagePositionPatient]
    made.datasets[5].ImagePositionPatient = [place[0] + 9, place[1], place[2]]


def _two_patients(made: Made) -> None:
    for one in made.datasets[5:]:
        one.PatientID, one.PatientName = "OTHER-SECRET", "Other^Person"


def _colour(made: Made) -> None:
    for one in made.datasets:
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 8, 8, 7
        one.PixelData = bytes(ROWS * COLUMNS * 3)


def _no_image(made: Made) -> None:
    _drop("Rows", "Columns", "PixelData", "BitsAllocated", "ImagePositionPatient")(made)
    _each(Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")(made)


def _frames_nowhere(made: Made) -> None:
    one = made.datasets[0]
    one.NumberOfFrames = 4
    one.PixelData = one.PixelData * 4
    del one.ImagePositionPatient
    made.datasets = [one]


def _bomb(made: Made) -> None:
    """A few bytes of RLE that promise a gigabyte."""
    made.syntax = RLELossless
    rows = b"\x28\x00\x10\x00US\x02\x00"
    honest, lying = rows + _us(ROWS), rows + _us(30000)

    def lie(paths: list[Path]) -> None:
        for path in paths:
            path.write_bytes(path.read_bytes().replace(honest, lying))

    made.after.append(lie)


def _us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _unknown_syntax(made: Made) -> None:
    _each(syntax="1.2.840.10008.1.2.4.201")(made)
    for one in made.datasets:
        one.PixelData = encapsulate([one.PixelData])
        one["PixelData"].VR = "OB"


def _sc(made: Made) -> None:
    _each(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImageType=["DERIVED", "SECONDARY"])(made)
    _drop("ImagePositionPatient", "ImageOrientationPatient")(made)


BROKEN: dict[str, tuple[Callable[[Made], None], str]] = {
    "one slice missing": (_missing(4), "missing slices"),
    "two slices missing together": (_missing(4, 5), "missing slices"),
    "slices missing at two places": (_missing(2, 6), "missing slices"),
    "duplicate with different pixels": (_different_duplicate, "duplicates"),
    "two sizes of steps": (_at_heights([0, 2, 4, 6, 8, 10, 15, 20, 25, 30]), "mixed spacing"),
    "uneven steps": (_at_heights([0, 2, 4.5, 6.4, 8.9, 10.8, 13.4, 15.3, 17.8, 19.8]), "uneven steps"),
    "one slice": (_missing(*range(1, SLICES)), "single slice"),
    "no orientation": (_drop("ImageOrientationPatient"), "no orientation"),
    "no position": (_drop("ImagePositionPatient"), "no orientation"),
    "no pixel spacing": (_drop("PixelSpacing"), "no orientation"),
    "cosines of no unit length": (_each(ImageOrientationPatient=[1, 0, 0, 0, 2, 0]), "no orientation"),
    "transfer syntax of HTJ2K": (_unknown_syntax, "transfer syntax"),
    "pixel data cut short": (_cut(0.9), "truncated"),
    "header that promises more rows": (_each(Rows=2 * ROWS), "lying lengths"),
    "header that promises fewer rows": (_each(Rows=ROWS // 2), "lying lengths"),
    "RLE that promises a gigabyte": (_bomb, "lying lengths"),
    "two patients under one UID": (_two_patients, "two patients"),
    "localizer": (_each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "maximum intensity projection": (_each(ImageType=["DERIVED", "SECONDARY", "MIP"]), "projection"),
    "secondary capture": (_sc, "no orientation"),
    "colour": (_colour, "colour"),
    "structured report": (_no_image, "no image"),
    "frames without positions": (_frames_nowhere, "no orientation"),
    "impossible bits": (_each(BitsStored=14, HighBit=11), "pixel format"),
    "rescale slope of zero": (_each(RescaleSlope=0), "pixel format"),
    "slice shifted sideways": (_shift_one, "not aligned"),
}
"""Kind of breakage -> what is done to a sound series, and the kind of verdict that it must get."""


def make_enhanced(seed: int, *, phases: int = 1) -> tuple[Dataset, np.ndarray]:
    """Return one enhanced CT file and its values (phases, N, H, W); its frames stand in no order."""
    made = [make(seed + phase) for phase in range(phases)]
    one = copy.deepcopy(made[0].datasets[0])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "SliceThickness",
                 "RescaleIntercept", "RescaleType", "ConvolutionKernel"):  # fmt: skip
        delattr(one, name)
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.8, 0.7], SliceThickness=2.5)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.CTReconstructionSequence = [_item(ConvolutionKernel="B30f")]
    one.SharedFunctionalGroupsSequence = [shared]
    frames = [(phase, number) for phase in range(phases) for number in range(SLICES)]
    order = [frames[at] for at in made[0].rng.permutation(len(frames))]
    one.PerFrameFunctionalGroupsSequence = [_frame(made, phase, number) for phase, number in order]
    one.NumberOfFrames = len(order)
    one.PixelData = b"".join(made[phase].datasets[number].PixelData for phase, number in order)
    return one, np.stack([series.truth for series in made])


def _frame(made: list[Made], phase: int, number: int) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = [_item(ImagePositionPatient=made[0].datasets[number].ImagePositionPatient)]
    groups.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=-1024)]
    groups.FrameContentSequence = [_item(TemporalPositionIndex=phase + 1)]
    return groups


def _item(**values: object) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def make_broken(kind: str, seed: int) -> Made:
    made = make(seed)
    BROKEN[kind][0](made)
    return made


WAYS = (
    "one slice missing", "two slices missing together", "duplicate with different pixels", "two sizes of steps",
    "uneven steps", "one slice", "no orientation", "no position", "no pixel spacing", "cosines of no unit length",
    "transfer syntax of HTJ2K", "pixel data cut short", "header that promises more rows",
    "RLE that promises a gigabyte", "two patients under one UID", "localizer", "maximum intensity projection",
    "colour", "impossible bits", "slice shifted sideways",
)  # fmt: skip
"""Twenty ways in which series of a large export are broken."""


def write_export(seed: int, folder: Path, *, sound: int, broken: int) -> tuple[list[Path], dict[str, str]]:
    """Write an export of many series, five to a folder and in any order.

    Returns:
        All files of the sound series, and the UID of each broken one with the kind of verdict that it must get.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    order = rng.permutation(sound + broken)
    files: list[Path] = []
    expected: dict[str, str] = {}
    for place, number in enumerate(order.tolist()):
        is_broken = number >= sound
        way = WAYS[(number - sound) % len(WAYS)]
        made = make_broken(way, seed + number) if is_broken else make(seed + number, tilt_mm=0.5 * (number % 3 == 1))
        if not is_broken:
            made.syntax = SOUND_SYNTAXES[number % len(SOUND_SYNTAXES)]
        else:
            expected[made.datasets[0].SeriesInstanceUID] = BROKEN[way][1]
        written = write(made, folder / str(place // 5), prefix=f"S{place:04d}-")
        files += [] if is_broken else written
    return files, expected
