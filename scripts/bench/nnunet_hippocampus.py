"""nnU-Net v2 on MSD Task04, one fold, for the same minutes as ours: scripts/bench/peers nnunet_hippocampus WORK FOLDS.

  .venv/bin/python -m pipeline export-dataset nnunet configs/hippocampus.yaml --set dataset.folder=TASK04 \\
      --output WORK/raw/Dataset004_Hippocampus
  scripts/bench/peers nnunet_hippocampus WORK runs/hippocampus/folds.csv
  .venv/bin/python -m pipeline evaluate WORK/masks MANIFEST_OF_FOLD_0 --metric dice

Planning, preprocessing, training and prediction are the package's own, 3d_fullres; only the number of its iterations is
cut, to 440 batches of 2, which took ten minutes on two free cores, and mirroring at prediction is left on, its default.
"""

import csv
import json
import os
import sys
import time
from pathlib import Path

from scripts.bench.measure import row

ITERATIONS_PER_EPOCH = 10


def main(work: Path, folds: Path, iterations: int = 440) -> None:
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(work / name)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2"}

    import torch

    from pipeline.machine import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(2)
    prepared = prepare(work)
    split(folds, prepared / "splits_final.json")
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((prepared / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    dataset = json.loads((prepared / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, dataset, device=torch.device("cpu"))
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = ITERATIONS_PER_EPOCH, 1
    trainer.num_epochs = iterations // ITERATIONS_PER_EPOCH
    trainer.save_every = trainer.num_epochs
    started = time.monotonic()
    trainer.run_training()
    minutes = (time.monotonic() - started) / 60
    patch = plans["configurations"]["3d_fullres"]["patch_size"]
    row(f"nnU-Net, {iterations} iterations, patch {patch}", f"{minutes:.1f} minutes")
    trainer.perform_actual_validation(False)
    (work / "masks").mkdir(exist_ok=True)
    for mask in Path(trainer.output_folder, "validation").glob("*.nii.gz"):
        mask.replace(work / "masks" / mask.name)


def prepare(work: Path) -> Path:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    folder = work / "preprocessed" / "Dataset004_Hippocampus"
    if not (folder / "nnUNetPlans_3d_fullres").exists():
        extract_fingerprints([4], num_processes=2)
        plan_experiments([4])
        preprocess([4], configurations=("3d_fullres",), num_processes=(2,))
    return folder


def split(folds: Path, into: Path) -> None:
    """Give fold 0 the same cases as ours."""
    with folds.open() as stream:
        places = {line["case_id"]: line["fold"] for line in csv.DictReader(stream)}
    validation = sorted(case for case, fold in places.items() if fold == "0")
    into.write_text(json.dumps([{"train": sorted(set(places) - set(validation)), "val": validation}]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
