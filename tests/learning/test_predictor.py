"""Prediction end to end: orientation, grid, labels, ensembles, and trained models on disk."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from pipeline.errors import DataError, ModelError
from pipeline.imaging.geometry import geometry_of, image_of
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow, Normalise, ZScore
from pipeline.imaging.prepare import PrepareOptions, prepare
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image
from pipeline.learning.predictor import LoadedModel, PredictOptions, Predictor, load_model
from pipeline.learning.trained import find_trained
from pipeline.learning.weights import save_weights
from pipeline.networks.unet import UNet
from pipeline.postprocess.components import LargestComponent
from pipeline.records import InferenceRecipe, TrainedModel
from pipeline.tasks.base import tasks

LABELS = Labels(values={0: "background", 2: "soft", 7: "bone"})
FP32 = PredictOptions(precision="fp32")
ORIENTATIONS = [
    "".join(axes) for order in itertools.permutations(("RL", "AP", "IS")) for axes in itertools.product(*order)
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(**changes: Any) -> InferenceRecipe:
    labels: Labels = changes.get("labels", LABELS)
    task = changes.get("task", tasks.parse("segmentation"))
    values: dict[str, Any] = {
        "network": UNet(features=(4, 8)),
        "task": task,
        "labels": labels,
        "class_names": task.class_names(labels, changes.pop("classes", ())),
        "channels": ("image",),
        "prepare": PrepareOptions(spacing_mm=(2.0, 2.0, 2.0), crop="none"),
        "normalise": (HuWindow(range_hu=(-1000, 1000)),),
        "patch_size": (8, 12, 8),
    }
    return InferenceRecipe(**(values | changes))


class Thresholds(nn.Module):
    """Logits that make class k the strongest for the k-th range of normalised intensities."""

    def __init__(self, *limits: float) -> None:
        super().__init__()
        self.limits = limits

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.stack([torch.zeros_like(x[:, 0]), *((x[:, 0] - limit) * 10 for limit in self.limits)], 1)
        return steps.cumsum(1)


class Convolution(nn.Module):
    """Three classes that differ in all directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU(), nn.Conv3d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def model(module: nn.Module, **changes: Any) -> LoadedModel:
    return LoadedModel(recipe(**changes), module.eval(), "test")


def smooth(shape: tuple[int, int, int], sigma: float = 2.0) -> NDArray[np.int16]:
    field = gaussian_filter(np.random.default_rng(5).standard_normal(shape), sigma)
    return (field / np.abs(field).max() * 1000).astype(np.int16)


GEOMETRY = Geometry(shape=(17, 22, 19), spacing_mm=(2.5, 1.2, 1.6), origin=(-30.0, 40.0, 100.0))
VOLUME = Volume(smooth(GEOMETRY.shape)[None], GEOMETRY)


def test_mask_is_that_of_thresholds_on_the_native_grid() -> None:
    found = Predictor([model(Thresholds(-0.2005, 0.2005))], FP32).predict(VOLUME, "a")
    assert found.mask is not None
    assert found.mask.dtype == np.uint8
    expected = np.array([0, 2, 7])[np.digitize(VOLUME.voxels[0] / 1000, [-0.2005, 0.2005])]
    assert found.mask.shape == expected.shape
    assert (found.mask == expected).mean() > 0.93  # 2 mm and back
    native = PrepareOptions(crop="none")
    exact = Predictor([model(Thresholds(-0.2005, 0.2005), prepare=native)], FP32).predict(VOLUME, "a")
    assert np.array_equal(exact.mask, expected)


@pytest.mark.slow
def test_every_orientation_gives_the_same_physical_mask() -> None:
    predictor = Predictor([model(Convolution())], FP32)
    base = sitk.DICOMOrient(image_of(VOLUME.voxels[0], GEOMETRY), "LPS")
    expected = predictor.predict(VOLUME, "base").mask
    assert expected is not None
    assert len(np.unique(expected)) == 3
    assert len(ORIENTATIONS) == 48
    for code in ORIENTATIONS:
        turned = sitk.DICOMOrient(base, code)
        geometry = geometry_of(turned)
        found = predictor.predict(Volume(sitk.GetArrayFromImage(turned)[None], geometry), code)
        assert found.mask is not None
        assert found.geometry == geometry
        back = sitk.DICOMOrient(image_of(found.mask, found.geometry), "LPS")
        assert np.array_equal(sitk.GetArrayFromImage(back), expected), code


def test_oblique_grid_gives_the_mask_on_its_own_voxels() -> None:
    predictor = Predictor([model(Convolution())], FP32)
    angles = np.deg2rad([12, 9, -15])
    direction = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [other for other in range(3) if other != axis]
        turn[[i, j, i, j], [i, j, j, i]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
        direction = direction @ turn
    oblique = GEOMETRY.model_copy(update={"direction": tuple(direction.ravel().tolist())})
    found = predictor.predict(Volume(VOLUME.voxels, oblique), "oblique")
    assert found.geometry == oblique
    assert np.array_equal(found.mask, predictor.predict(VOLUME, "straight").mask)
    flipped = sitk.DICOMOrient(image_of(VOLUME.voxels[0], oblique), "IRP")
    turned = predictor.predict(Volume(sitk.GetArrayFromImage(flipped)[None], geometry_of(flipped)), "turned")
    back = sitk.DICOMOrient(image_of(turned.mask, turned.geometry), "LPS")  # type: ignore[arg-type]
    assert np.array_equal(sitk.GetArrayFromImage(back), found.mask)


def test_outside_of_the_crop_is_background() -> None:
    voxels = np.full((1, 30, 40, 50), -1000, np.int16)
    voxels[0, 8:20, 10:28, 12:40] = 400
    volume = Volume(voxels, Geometry(shape=(30, 40, 50)))
    options = PrepareOptions(spacing_mm=(1.0, 1.0, 1.0), crop="body")
    labels = Labels(values={5: "background", 0: "other", 300: "bone"})
    predictor = Predictor([model(Thresholds(-0.5, 0.2), prepare=options, labels=labels)], FP32)
    found = predictor.predict(volume, "a")
    assert found.mask is not None
    assert found.mask.dtype == np.uint16
    assert np.array_equal(found.mask == 300, voxels[0] == 400)
    assert np.array_equal(found.mask == 5, voxels[0] == -1000)
    assert found.volumes_ml == {"other": 0.0, "bone": pytest.approx(12 * 18 * 28 / 1000)}


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 30, 6), (8, 1, 1)])
def test_volume_smaller_than_the_window(shape: tuple[int, int, int]) -> None:
    volume = Volume(smooth(shape, 1.0)[None], Geometry(shape=shape))
    options = PrepareOptions(crop="none")
    made = model(Thresholds(-0.2005, 0.2005), prepare=options, patch_size=(16, 16, 16))
    found = Predictor([made], FP32).predict(volume, "a")
    assert np.array_equal(found.mask, np.array([0, 2, 7])[np.digitize(volume.voxels[0] / 1000, [-0.2005, 0.2005])])


def test_padding_is_the_normalised_background() -> None:
    seen: list[Tensor] = []

    class Watch(Thresholds):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    voxels = np.full((1, 4, 4, 4), 300, np.int16)
    voxels[0, 0, 0, 0] = -1024
    Predictor([model(Watch(0.0, 0.5), prepare=PrepareOptions(crop="none"))], FP32).predict(
        Volume(voxels, Geometry(shape=(4, 4, 4))), "a"
    )
    assert seen[0].shape == (1, 1, 8, 12, 8)
    assert (seen[0] == -1).sum() == 8 * 12 * 8 - 63


def test_files_and_prepared_cases_give_the_same(tmp_path: Path) -> None:
    predictor = Predictor([model(Convolution())], FP32)
    expected = predictor.predict(VOLUME, "a")
    write_image(VOLUME, tmp_path / "a.nii.gz")
    for source in (tmp_path / "a.nii.gz", str(tmp_path / "a.nii.gz"), {"image": tmp_path / "a.nii.gz"}):
        assert np.array_equal(predictor.predict(source, "a").mask, expected.mask)
    case = prepare(VOLUME, None, predictor.recipe.prepare, case_id="b")
    found = predictor.predict_prepared(case)
    assert found.case_id == "b"
    assert np.array_equal(found.mask, expected.mask)


def test_what_is_told_beside_the_mask() -> None:
    predictor = Predictor([model(Convolution())], FP32)
    done: list[int] = []
    found = predictor.predict(VOLUME, "a", advance=done.append)
    assert found.mask is not None
    assert set(found.seconds) == {"read", "prepare", "windows", "network", "confidence", "native_grid"}
    assert found.peak_memory_mb > 100
    ml = 2.5 * 1.2 * 1.6 / 1000
    counts = {"soft": (found.mask == 2).sum(), "bone": (found.mask == 7).sum()}
    assert found.volumes_ml == {name: pytest.approx(count * ml) for name, count in counts.items()}
    prepared = prepare(VOLUME, None, predictor.recipe.prepare)
    assert sum(done) == predictor.window_count(prepared.shape)


def test_members_have_their_own_normalisation() -> None:
    """Two members, one of which sees everything shifted by a window: the mean of their logits decides."""
    options = PrepareOptions(crop="none")
    one = model(Thresholds(0.0), prepare=options, labels=Labels(values={0: "background", 1: "bone"}))
    shifted: tuple[Normalise, ...] = (HuWindow(range_hu=(-600, 1400)),)  # 400 HU become 0
    other = LoadedModel(one.recipe.model_copy(update={"normalise": shifted}), Thresholds(0.0), "other")
    found = Predictor([one, other], FP32).predict(VOLUME, "a")
    certain = VOLUME.voxels[0] != 200
    assert np.array_equal(found.mask[certain], (VOLUME.voxels[0] > 200)[certain])


def test_mirroring_keeps_sides_apart() -> None:
    labels = Labels(values={0: "background", 1: "kidney_left", 2: "kidney_right"})

    class Sides(nn.Module):
        """Left where the patient's left is, by the place in the window."""

        def forward(self, x: Tensor) -> Tensor:
            left = torch.zeros_like(x[:, 0])
            left[..., left.shape[-1] // 2 :] = 1
            return torch.stack([torch.zeros_like(left), left, 1 - left], 1)

    volume = Volume(np.zeros((1, 8, 12, 8), np.int16), Geometry(shape=(8, 12, 8)))
    made = model(Sides(), labels=labels, prepare=PrepareOptions(crop="none"))
    plain = Predictor([made], FP32).predict(volume, "a").mask
    turned = Predictor([made], FP32.model_copy(update={"mirror": ("D", "W")})).predict(volume, "a").mask
    assert plain is not None
    assert np.array_equal(plain, turned)
    assert plain[0, 0].tolist() == [2] * 4 + [1] * 4


def test_mirroring_across_a_side_without_partner_is_refused() -> None:
    labels = Labels(values={0: "background", 1: "kidney_left"})
    with pytest.raises(ModelError, match="kidney_left"):
        Predictor([model(Thresholds(0.0), labels=labels)], PredictOptions(mirror=("W",)))
    Predictor([model(Thresholds(0.0), labels=labels)], PredictOptions(mirror=("D", "H")))


def test_regions_swap_as_their_members_do() -> None:
    values = {0: "background", 1: "left_lung", 2: "right_lung", 3: "heart"}
    regions = {"both": ("left_lung", "right_lung"), "one": ("left_lung",), "other": ("right_lung",)}
    labels = Labels(values=values, regions=regions)
    made = model(Thresholds(-0.2, 0.0), labels=labels)
    assert Predictor([made], PredictOptions(mirror=("W",))).swaps == ((1, 2),)
    lone = Labels(values=values, regions={"one": ("left_lung", "heart"), "all": ("left_lung", "right_lung")})
    with pytest.raises(ModelError, match="region"):
        Predictor([model(Thresholds(0.0), labels=lone)], PredictOptions(mirror=("W",)))


def test_regions_become_the_classes_that_they_name() -> None:
    regions = {"whole": ("oedema", "core"), "core": ("core",)}
    labels = Labels(values={0: "background", 1: "oedema", 3: "core"}, regions=regions)

    class Nested(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0] + 0.2005, x[:, 0] - 0.3005], 1) * 10

    found = Predictor([model(Nested(), labels=labels, prepare=PrepareOptions(crop="none"))], FP32).predict(VOLUME, "a")
    assert found.mask is not None
    values = VOLUME.voxels[0] / 1000
    assert np.array_equal(found.mask == 3, values > 0.3005)
    assert np.array_equal(found.mask == 0, values <= -0.2005)
    assert found.volumes_ml["whole"] == pytest.approx((values > -0.2005).sum() * 0.0048)
    assert found.volumes_ml["core"] == pytest.approx((values > 0.3005).sum() * 0.0048)


def test_whole_volume_classes() -> None:
    if "classification" not in tasks.names():
        pytest.skip("no classification task")
    task = tasks.parse("classification")

    class Judge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3, 4)), -x.mean((1, 2, 3, 4))], 1)

    made = model(Judge(), task=task, classes=("benign", "malignant"), labels=Labels())
    found = Predictor([made], FP32).predict(VOLUME, "a")
    assert found.mask is None
    assert set(found.probabilities) == {"benign", "malignant"}
    assert all(0 <= value <= 1 for value in found.probabilities.values())
    turned = Predictor([made], FP32.model_copy(update={"mirror": ("D", "W")})).predict(VOLUME, "a")
    assert turned.probabilities == {name: pytest.approx(value) for name, value in found.probabilities.items()}


def test_classes_of_whole_volumes_keep_their_side_in_mirror_images() -> None:
    class Side(nn.Module):
        """Brighter on the patient's left or right."""

        def forward(self, x: Tensor) -> Tensor:
            half = x.shape[-1] // 2
            more = x[..., half:].mean((1, 2, 3, 4)) - x[..., :half].mean((1, 2, 3, 4))
            return torch.stack([more, -more], 1)

    def made(*names: str) -> LoadedModel:
        plain = PrepareOptions(crop="none")
        return model(Side(), task=tasks.parse("classification"), classes=names, labels=Labels(), prepare=plain)

    voxels = np.zeros((1, 8, 8, 8), np.int16)
    voxels[..., 4:] = 900
    volume, mirror = Volume(voxels, Geometry(shape=(8, 8, 8))), FP32.model_copy(update={"mirror": ("W",)})
    plain = Predictor([made("stroke_left", "stroke_right")], FP32).predict(volume, "a").probabilities
    turned = Predictor([made("stroke_left", "stroke_right")], mirror).predict(volume, "a").probabilities
    assert plain["stroke_left"] > 0.6
    assert turned == pytest.approx(plain)
    with pytest.raises(ModelError, match="stroke_left names a side"):
        Predictor([made("stroke_left", "none")], mirror)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_an_answer_that_is_no_number_fails_the_case(task: str) -> None:
    class Spoiled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made = torch.stack([x[:, 0], x[:, 0] * float("nan"), x[:, 0]], 1)
            return made if task == "segmentation" else made.mean((2, 3, 4))

    names = {} if task == "segmentation" else {"classes": ("a", "b", "c"), "labels": Labels()}
    with pytest.raises(ModelError, match="case x: the network's answer holds NaN"):
        Predictor([model(Spoiled(), task=tasks.parse(task), **names)], FP32).predict(VOLUME, "x")


def test_air_can_be_skipped() -> None:
    voxels = np.full((1, 40, 12, 8), -1000, np.int16)
    voxels[0, 30:, 2:10, 1:7] = 400
    volume = Volume(voxels, Geometry(shape=(40, 12, 8)))
    calls: list[int] = []

    class Count(Thresholds):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    made = model(Count(-0.5, 0.2), prepare=PrepareOptions(crop="none"))
    everything = Predictor([made], FP32).predict(volume, "a").mask
    counted = sum(calls)
    calls.clear()
    skipped = Predictor([made], FP32.model_copy(update={"skip": "air"})).predict(volume, "a").mask
    assert np.array_equal(everything, skipped)
    assert sum(calls) < counted / 2


def test_wrong_inputs_are_named() -> None:
    predictor = Predictor([model(Convolution())], FP32)
    with pytest.raises(DataError, match="case x: found 2 channels; expected 1"):
        predictor.predict(Volume(np.zeros((2, 4, 4, 4), np.int16), Geometry(shape=(4, 4, 4))), "x")
    with pytest.raises(DataError, match="no file for channel image"):
        predictor.predict({"t1": Path("a.nii.gz")}, "x")


def test_models_must_agree() -> None:
    one, other = model(Convolution()), model(Convolution(), patch_size=(16, 16, 16))
    with pytest.raises(ModelError, match="patch_size differs"):
        Predictor([one, other])
    with pytest.raises(ModelError, match="no model"):
        Predictor([])
    Predictor([one, model(Convolution(), normalise=(ZScore(),))])


def trained(folder: Path) -> nn.Module:
    """Write the folder of a finished training and return its network."""
    made = recipe()
    torch.manual_seed(1)
    module = made.network.build(1, 3, made.patch_size)
    folder.mkdir()
    sha256 = save_weights(module, folder / "model.safetensors")
    record = TrainedModel(recipe=made, weights_sha256=sha256)
    (folder / "result.json").write_text(json.dumps({"key": "k", "record": record.model_dump(mode="json")}))
    return module.eval()


def test_trained_model_comes_back_from_disk(tmp_path: Path) -> None:
    module = trained(tmp_path / "train-fold0-1234")
    loaded = load_model(tmp_path / "train-fold0-1234", FP32, device="cpu")
    expected = Predictor([LoadedModel(recipe(), module, "same")], FP32).predict(VOLUME, "a")
    assert np.array_equal(loaded.predict(VOLUME, "a").mask, expected.mask)


def test_a_run_folder_gives_its_longest_training_of_a_fold(tmp_path: Path) -> None:
    for name, steps in (("train-fold0-1234", 5), ("train-fold0-5678", 9), ("train-fold1-1234", 20)):
        trained(tmp_path / name)
        saved = json.loads((tmp_path / name / "result.json").read_text())
        saved["record"]["steps"] = steps
        (tmp_path / name / "result.json").write_text(json.dumps(saved))
    assert find_trained(tmp_path, 0).folder.name == "train-fold0-5678"
    assert find_trained(tmp_path / "train-fold0-1234", 1).steps == 5
    with pytest.raises(ModelError, match="train-all-"):
        find_trained(tmp_path, None)


def test_broken_models_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "train-fold0-1234"
    with pytest.raises(ModelError, match="no trained model"):
        load_model(folder)
    trained(folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)
    (folder / "result.json").write_text('{"key": "k", "record": {}}')
    with pytest.raises(ModelError, match="fields do not fit"):
        load_model(folder)


def test_postprocessing_mends_the_mask_and_its_volumes() -> None:
    voxels = np.full((1, 12, 14, 16), -1000, np.int16)
    voxels[0, 2:6, 2:8, 2:8] = 800
    voxels[0, 9, 11, 12] = 800
    volume = Volume(voxels, Geometry(shape=(12, 14, 16)))
    made = model(Thresholds(-0.5, 0.2), prepare=PrepareOptions(crop="none"))
    raw = Predictor([made], FP32).predict(volume, "a")
    mended = Predictor([made], FP32, postprocess=[LargestComponent(classes=(2,))]).predict(volume, "a")
    assert raw.mask is not None
    assert mended.mask is not None
    assert raw.volumes_ml["bone"] == pytest.approx(0.145)
    assert mended.volumes_ml["bone"] == pytest.approx(0.144)
    assert mended.mask.dtype == raw.mask.dtype
    changed = np.argwhere(mended.mask != raw.mask)
    assert changed.tolist() == [[9, 11, 12]]
