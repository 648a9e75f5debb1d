"""DICOM segmentations of finished cases, and the columns that lead back to the study."""

from collections.abc import Mapping

from pipeline.batch.exports import series_of
from pipeline.batch.sources import Added, Finished
from pipeline.dicom.codes import SegmentCode
from pipeline.dicom.seg import Algorithm, write_seg
from pipeline.errors import DataError


def write_dicom_seg(
    finished: Finished, *, algorithm: Algorithm, codes: Mapping[str, SegmentCode] | None = None
) -> Added | None:
    """Write `seg/<case>.dcm` for a case that comes from a scanner's export; nothing for files.

    Codes are those of the recipe, over them those that are given; for all other classes what `code_of` finds.

    A source that no segmentation can refer to leaves the case with its mask, to be looked at.
    """
    series, mask = series_of(finished.source), finished.prediction.mask
    if not series or mask is None:
        return None
    name = f"seg/{finished.source.case_id}.dcm"
    try:
        write_seg(
            mask, finished.volume.geometry, series[0], finished.recipe.labels, finished.folder / name,
            algorithm=algorithm, codes={**finished.recipe.codes, **(codes or {})},
        )  # fmt: skip
    except DataError as error:
        return Added(review=(str(error),))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        # What a header that is not as the standard has it makes highdicom raise; its text may quote a name.
        what = f"its source's header is not as the standard has it ({type(error).__name__})"
        return Added(review=(f"no DICOM segmentation: {what}. The mask as NIfTI is complete.",))
    return Added(files=(name,))


def name_study(finished: Finished) -> Added | None:
    """Add the columns `study_uid` and `series_uid`, for those who asked to be led back from keyed hashes."""
    series = series_of(finished.source)
    if not series:
        return None
    header = series[0].header
    return Added(columns={"study_uid": header.study_uid, "series_uid": header.series_uid})
