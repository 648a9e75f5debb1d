"""From a CT's nii.gz and its labels to the store, against nnU-Net's preprocessing: scripts/bench/peers preprocessing.

Reading (against SimpleITK), the whole preparation (time and memory) and what lies on the disk afterwards.
"""

import contextlib
import io
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from pipeline.imaging.ingest import ingest_case
from pipeline.imaging.labels import Labels
from pipeline.imaging.nifti import read_nifti
from pipeline.imaging.prepare import PrepareOptions
from scripts.bench.made_ct import SPACING_MM, WORKING_MM, made_ct
from scripts.bench.measure import extra_mib, in_child, interleaved, ratio, row, seconds, tree_mib
from scripts.bench.nnunet_plans import dataset_json, plans

ORGANS = 41
OPTIONS = PrepareOptions(spacing_mm=WORKING_MM, crop="none")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, _ = write(folder, *made_ct(organs=ORGANS))
        times = interleaved(
            {"ours": lambda: read_nifti(image), "ITK": lambda: sitk.GetArrayFromImage(sitk.ReadImage(str(image)))}, 7
        )
        share = statistics.median(times["ours"]) / statistics.median(times["ITK"])
        row("reading the nii.gz, as a share of SimpleITK's time", f"{share:.2f}")
        ours(folder, "warm")
        times = {"ours": [seconds(lambda k=k: ours(folder, f"o{k}")) for k in range(5)]}  # type: ignore[misc]
        times["nnU-Net"] = [seconds(lambda: theirs(folder))]
        row("nii.gz to store, 42 labels (nnU-Net once)", ratio(times, "ours", "nnU-Net"))
        row("on the disk, as a share of nnU-Net's", f"{stored(folder / 'o0') / stored(folder / 'nnunet'):.2f}")
        mine, peer = in_child(memory, folder, True), in_child(memory, folder, False)
        row("peak memory of it, both in a fresh process", f"{mine:.0f} MiB against {peer:.0f} MiB: {mine / peer:.2f}")


def write(folder: Path, voxels: np.ndarray, label: np.ndarray) -> tuple[Path, Path]:
    paths = folder / "image_0000.nii.gz", folder / "label.nii.gz"
    for path, array in zip(paths, (voxels, label), strict=True):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING_MM[::-1])
        sitk.WriteImage(image, str(path), True)
    return paths


def ours(folder: Path, into: str) -> None:
    labels = Labels.model_validate({0: "background"} | {number: f"organ {number}" for number in range(1, ORGANS + 1)})
    ingest_case(
        {"image": folder / "image_0000.nii.gz"}, folder / "label.nii.gz", labels, "made", OPTIONS, folder / into
    )


def theirs(folder: Path) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    (folder / "nnunet").mkdir(exist_ok=True)
    manager = PlansManager(plans())
    with contextlib.redirect_stdout(io.StringIO()):
        DefaultPreprocessor(verbose=False).run_case_save(
            str(folder / "nnunet" / "made"), [str(folder / "image_0000.nii.gz")], str(folder / "label.nii.gz"),
            manager, manager.get_configuration("3d_fullres"), dataset_json(ORGANS),
        )  # fmt: skip


def stored(folder: Path) -> float:
    """Voxels and labels; nnU-Net's pickle of sampled places and our JSON and places count on neither side."""
    return sum(file.stat().st_size for file in folder.glob("*.b2nd")) / 2**20 or tree_mib(folder)


def memory(folder: Path, is_ours: bool) -> float:
    for made in ("again", "nnunet"):  # nnU-Net does not overwrite its own files
        shutil.rmtree(folder / made, ignore_errors=True)
    return extra_mib(lambda: ours(folder, "again") if is_ours else theirs(folder))


if __name__ == "__main__":
    main()
