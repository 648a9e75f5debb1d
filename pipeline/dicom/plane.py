"""What a header says of one image plane: the facts that grouping, verdicts and decoding need, and nothing personal."""

from dataclasses import dataclass, field

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PixelData:
    """Where the pixels of a file lie, and what is wrong with them."""

    offset: int = 0
    """First byte of the value in the file; in the inflated stream of a deflated file."""
    length: int = 0
    """Declared length in bytes; -1 where it is encapsulated in fragments."""
    fault: str = ""
    """Kind of fault (`truncated`, `lying lengths`, `transfer syntax`, `no image`), empty where sound."""
    detail: str = ""
    """The fault in words, with its numbers."""


@dataclass(frozen=True, slots=True)
class Header:
    """What one DICOM file says, whole files or all frames of it alike."""

    path: str
    size: int
    patient: str
    """Keyed hash of the patient's id and name, good for one scan only; the values themselves are never kept."""
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""
    frame_of_reference: str = ""
    sop_class: str = ""
    modality: str = ""
    series_number: str = ""
    description: str = ""
    study_description: str = ""
    protocol: str = ""
    body_part: str = ""
    contrast: str = ""
    transfer_syntax: str = ""
    rows: int = 0
    columns: int = 0
    frames: int = 1
    samples: int = 1
    photometric: str = ""
    bits_allocated: int = 0
    bits_stored: int = 0
    high_bit: int = 0
    signed: bool = False
    overlay_bits: bool = False
    """Whether an overlay is declared in the unused high bits."""
    padding: tuple[int, int] | None = None
    """Stored values from, to (inclusive) that stand for no measurement."""
    units: str = ""
    modality_lut: bool = False
    images_in_acquisition: int = 0
    pixels: PixelData = field(default_factory=PixelData)


@dataclass(frozen=True, slots=True)
class Plane:
    """One image plane: a file, or a frame of a multi-frame file."""

    header: Header
    frame: int = 0
    position: Triple | None = None
    """Centre of the first pixel (x, y, z) in mm, LPS+."""
    orientation: tuple[float, ...] = ()
    """Six cosines: along a row (W), then along a column (H)."""
    pixel_spacing: tuple[float, ...] = ()
    """Millimetres between rows (along H), then between columns (along W)."""
    thickness: float | None = None
    spacing_between: float | None = None
    slope: float = 1.0
    intercept: float = 0.0
    image_type: tuple[str, ...] = ()
    echo: str = ""
    temporal: str = ""
    b_value: str = ""
    gradient: str = ""
    kernel: str = ""
    stack: str = ""
    acquisition: str = ""
    trigger: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that gives no plane."""

    kind: str
    """`not DICOM`, `DICOMDIR` or `damaged`."""
    folder: str
