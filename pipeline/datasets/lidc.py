"""Lung nodules cut out of the LIDC-IDRI scans: images, masks and a table of the radiologists' ratings."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from pipeline.datasets.base import Case, Dataset, Manifest, datasets
from pipeline.errors import DataError, join_problems, plural
from pipeline.imaging.labels import Labels

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = ("file", "patient_id", "malignant", "diameter_mm")
_MOST_MISSING = 10


@datasets.register
class LidcNodules(Dataset):
    """One case a nodule, grouped by patient: mask for segmentation, benign or malignant for classification."""

    name: Literal["lidc_nodules"] = "lidc_nodules"
    folder: Path
    """Holds `nodules.csv` (file, patient_id, malignant, diameter_mm, ...), `images/` and `masks/`."""

    def cases(self) -> Manifest:
        """List the nodules; the other columns, the diameter among them, become `metadata["columns"]`."""
        folder = Path.cwd() / self.folder.expanduser()
        table = _read_table(folder / "nodules.csv")
        problems: list[str] = []
        rows = [{str(column): str(cell) for column, cell in row.items()} for row in table.to_dict("records")]
        cases = tuple(case for row in rows if (case := _make_case(row, folder, problems)) is not None)
        twice = sorted(table["file"][table["file"].duplicated()])
        problems += [f"file {name!r} is listed twice." for name in twice]
        files = [file for case in cases for file in (*case.images.values(), case.label) if file and not file.exists()]
        problems += [f"{file} is listed but not there." for file in files[:_MOST_MISSING]]
        if len(files) > _MOST_MISSING:
            problems.append(f"{plural(len(files) - _MOST_MISSING, 'more listed file')} not there.")
        if problems:
            raise DataError(join_problems(f"{folder / 'nodules.csv'}", problems))
        ids = [case.case_id for case in cases]
        others = [column for column in table.columns if column not in ("file", "patient_id", "malignant")]
        columns = {str(column): dict(zip(ids, table[column], strict=True)) for column in others}
        return Manifest(
            cases=cases,
            labels=Labels(values={0: "background", 1: "nodule"}),
            class_names=("benign", "malignant"),
            metadata={"columns": columns},
        )


def _make_case(row: dict[str, str], folder: Path, problems: list[str]) -> Case | None:
    name = row["file"]
    if row["malignant"] not in ("0", "1"):
        problems.append(f"{name}: malignant is {row['malignant']!r}; expected 0 or 1.")
        return None
    try:
        return Case(
            case_id=name.removesuffix(".gz").removesuffix(".nii"),
            images={"image": folder / "images" / name},
            label=folder / "masks" / name,
            classes=("malignant" if row["malignant"] == "1" else "benign",),
            group=row["patient_id"],
        )
    except ValidationError:
        problems.append(f"file {name!r} gives no case id; expected letters, digits, '.', '_' and '-'. Rename it.")
        return None


def _read_table(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; expected a table of nodules. Correct `folder`.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}; expected a CSV.") from error
    lacking = [column for column in _NEEDED if column not in table.columns]
    if lacking or table.empty:
        found = f"columns {', '.join(table.columns)} and {plural(len(table), 'row')}"
        raise DataError(f"{path}: found {found}; expected {', '.join(_NEEDED)} and a row for each nodule.")
    return table.fillna("")
