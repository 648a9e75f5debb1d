"""Resampling of an image and of 42 labels to 1.5 mm against nnU-Net's default: scripts/bench/peers resampling."""

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from pipeline.imaging.encoding import Encoding
from pipeline.imaging.resample import resample, resample_label
from pipeline.imaging.volume import Geometry, Volume
from scripts.bench.made_ct import SPACING_MM, WORKING_MM, made_ct
from scripts.bench.measure import extra_mib, in_child, interleaved, ratio, row, seconds

EDGE = 8  # the peer repeats the outermost voxel where ours mirrors, so values are compared inside


def main() -> None:
    voxels, label = made_ct()
    geometry = Geometry(shape=voxels.shape, spacing_mm=SPACING_MM)
    image = Volume(voxels[None], geometry)
    as_float = voxels[None].astype(np.float32)
    out = resample(image, WORKING_MM).voxels
    theirs = nnunet(as_float, out.shape[1:], is_seg=False)
    times = interleaved(
        {"ours": lambda: resample(image, WORKING_MM), "nnU-Net": lambda: nnunet(as_float, out.shape[1:], is_seg=False)},
        3, warm=False,
    )  # fmt: skip
    inner = (slice(None), *(slice(EDGE, -EDGE),) * 3)
    # skimage cuts what overshoots the input's range; ours keeps it
    difference = np.abs(np.clip(out, voxels.min(), voxels.max())[inner] - theirs[inner])
    row("image 512 x 512 x 301 to 1.5 mm, cubic, time", ratio(times, "ours", "nnU-Net"))
    row("its values, largest and mean difference in HU", f"{difference.max():.3f}, {difference.mean():.5f}")
    del theirs, difference
    extra, size = in_child(memory, True)
    peer = in_child(memory, False)[0]
    row("its extra memory", f"{extra:.0f} MiB, output {size:.0f} MiB; nnU-Net {peer:.0f} MiB")

    ours = resample_label(label, geometry, WORKING_MM)
    times = interleaved({"ours": lambda: resample_label(label, geometry, WORKING_MM)}, 9)
    kept: list[np.ndarray] = []
    times["nnU-Net"] = [seconds(lambda: kept.append(nnunet(label[None], ours.shape, is_seg=True)))]
    row("labels, 42 values, time (nnU-Net once)", ratio(times, "ours", "nnU-Net"))
    row("labels equal", f"{(ours == kept[0][0]).mean() * 100:.4f} %")


def nnunet(data: np.ndarray, shape: tuple[int, ...], *, is_seg: bool) -> np.ndarray:
    return np.asarray(
        resample_data_or_seg_to_shape(
            data, shape, SPACING_MM, WORKING_MM, is_seg=is_seg, order=1 if is_seg else 3, order_z=0,
            force_separate_z=None,
        )
    )  # fmt: skip


def memory(ours: bool) -> tuple[float, float]:
    voxels, _ = made_ct(organs=1)
    image = Volume(voxels[None], Geometry(shape=voxels.shape, spacing_mm=SPACING_MM))
    small = Volume(voxels[None, :20], Geometry(shape=(20, *voxels.shape[1:]), spacing_mm=SPACING_MM))
    out = resample(small, WORKING_MM, encodings=(Encoding(dtype="int16"),)).voxels  # compiles
    shape = (200, *out.shape[2:])
    if ours:
        used = extra_mib(lambda: resample(image, WORKING_MM, encodings=(Encoding(dtype="int16"),)))
        return used, np.prod(shape) * 2 / 2**20
    as_float = voxels[None].astype(np.float32)
    return extra_mib(lambda: nnunet(as_float, shape, is_seg=False)), 0.0


if __name__ == "__main__":
    main()
