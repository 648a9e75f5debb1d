"""Plans of nnU-Net written by hand for the made CT: its default preprocessing at the benchmark's voxel size."""

from typing import Any

from scripts.bench.made_ct import WORKING_MM

KWARGS = {"force_separate_z": None, "is_seg": False, "order": 3, "order_z": 0}


def dataset_json(organs: int) -> dict[str, Any]:
    labels = {"background": 0} | {f"organ {number}": number for number in range(1, organs + 1)}
    return {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}


def plans(patch: tuple[int, int, int] = (96, 96, 96), spacing: tuple[float, ...] = WORKING_MM) -> dict[str, Any]:
    intensity = {"mean": 40.0, "std": 90.0, "percentile_00_5": -160.0, "percentile_99_5": 240.0, "median": 40.0,
                 "min": -1024.0, "max": 3000.0}  # fmt: skip
    configuration = {
        "data_identifier": "made", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": list(patch), "median_image_size_in_voxels": [200, 240, 240], "spacing": list(spacing),
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": KWARGS,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": KWARGS | {"order": 1},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": KWARGS | {"is_seg": True, "order": 1},
        "batch_dice": True, "architecture": {},
    }  # fmt: skip
    return {
        "dataset_name": "Dataset001_Made", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "experiment_planner_used": "none", "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {"0": intensity},
        "original_median_spacing_after_transp": list(spacing), "original_median_shape_after_transp": [301, 512, 512],
    }  # fmt: skip
