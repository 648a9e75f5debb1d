"""Preparing keeps positions, gives the store's numbers, and masks come back onto the source voxels."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.imaging.geometry import affine, difference, to_index, to_physical
from pipeline.imaging.native import label_to_source
from pipeline.imaging.prepare import PrepareOptions, prepare
from pipeline.imaging.store import open_case, write_case
from pipeline.imaging.volume import Geometry, Volume

RANDOM = np.random.default_rng(4)
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def ball_in_patient(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """A CT of a ball in a box of fat in air, placed in mm, whatever the grid; and its label."""
    where = to_physical(geometry, np.moveaxis(np.indices(geometry.shape), 0, -1))
    inside = np.linalg.norm(where - (3, -2, 4), axis=-1) < 9
    fat = np.all(np.abs(where - (0, 0, 2)) < (16, 14, 15), axis=-1)
    voxels = np.where(inside, 60, np.where(fat, -100, -1000)) + RANDOM.normal(0, 10, geometry.shape)
    return voxels.round().astype(np.int16), inside.astype(np.uint8)


def grid(axes: tuple[int, ...] = (0, 1, 2), signs: tuple[float, ...] = (1, 1, 1), tilt: float = 0.0) -> Geometry:
    direction = np.zeros((3, 3))
    direction[list(axes), range(3)] = signs
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    centred = Geometry(shape=(34, 40, 44), spacing_mm=(1.5, 1.0, 1.2), direction=tuple((turn @ direction).ravel()))
    middle = to_physical(centred, (np.array(centred.shape) - 1) / 2)
    return centred.model_copy(update={"origin": tuple((np.array([0.5, 1.0, 2.0]) - middle).tolist())})


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_there_and_back_in_every_orientation(axes: tuple[int, ...], signs: tuple[float, ...]) -> None:
    geometry = grid(axes, signs, tilt=0.2 if signs[0] > 0 else 0.0)
    voxels, label = ball_in_patient(geometry)
    case = prepare(Volume(voxels[None], geometry), label, PrepareOptions(spacing_mm=(1.5, 1.5, 1.5)))
    assert case.label is not None
    # The ball lies at the same place in the patient, on the source's and on the working grid.
    for mask, on in ((label, geometry), (case.label, case.meta.geometry)):
        centre = to_physical(on, np.argwhere(mask).mean(axis=0))
        assert centre == pytest.approx((3, -2, 4), abs=0.2)
        assert mask.sum() * on.voxel_ml == pytest.approx(4 / 3 * np.pi * 9**3 / 1000, rel=0.04)
    inside = case.label.astype(bool)
    assert case.voxels[0][inside].mean() == pytest.approx(60, abs=6)
    back = label_to_source(case.label, case.meta.placement)
    assert back.shape == label.shape
    dice = 2 * np.logical_and(back, label).sum() / (back.sum() + label.sum())
    assert dice > 0.95


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::5])
def test_own_spacing_comes_back_voxel_for_voxel(axes: tuple[int, ...], signs: tuple[float, ...]) -> None:
    geometry = grid(axes, signs)
    voxels, _ = ball_in_patient(geometry)
    label = RANDOM.integers(0, 5, geometry.shape).astype(np.uint8)
    case = prepare(Volume(voxels[None], geometry), label, PrepareOptions(crop="none"))
    assert np.array_equal(label_to_source(case.label, case.meta.placement), label)
    at = to_index(geometry, to_physical(case.meta.geometry, (3, 5, 7))).round().astype(int)
    assert case.voxels[0, 3, 5, 7] == voxels[tuple(at)]


def test_the_store_gives_back_what_prepare_made(tmp_path: Path) -> None:
    geometry = grid(signs=(-1, -1, 1))
    voxels, label = ball_in_patient(geometry)
    for kind, options in (
        (np.int16, PrepareOptions(spacing_mm=(2, 2, 2))),
        (np.float32, PrepareOptions(spacing_mm=(1, 1, 1), crop="none", thick="nearest")),
    ):
        source = voxels.astype(kind) * (1 if kind is np.int16 else np.float32(0.013))
        case = prepare(Volume(source[None], geometry), label, options, case_id="a", channels=("CT",))
        meta = write_case(tmp_path / np.dtype(kind).name, case.voxels, case.label, case.meta)
        stored = open_case(tmp_path / np.dtype(kind).name)
        assert stored.meta == meta == case.meta
        whole = ((0, 0, 0), case.shape)
        assert np.array_equal(stored.read(*whole), case.read(*whole))
        assert np.array_equal(stored.read_label(*whole), case.read_label(*whole))
        # Inference has no label, and must see the same voxels where the label did not widen the crop.
        again = prepare(Volume(source[None], geometry), None, options, threads=1)
        assert np.array_equal(again.voxels, case.voxels)
        assert again.meta.placement == case.meta.placement
        assert again.meta.class_voxels is None


def test_crop_holds_body_and_label() -> None:
    geometry = grid()
    voxels, label = ball_in_patient(geometry)
    cropped = prepare(Volume(voxels[None], geometry), None, PrepareOptions(margin_mm=0)).meta
    assert np.prod(cropped.shape) < 0.75 * voxels.size
    label[0, 0, 0] = 7
    whole = prepare(Volume(voxels[None], geometry), label, PrepareOptions(margin_mm=0))
    assert whole.meta.placement.start == (0, 0, 0)
    assert (whole.meta.class_voxels or {})[7] == 1


def test_whole_numbers_in_any_type_are_one() -> None:
    geometry = grid()
    voxels, _ = ball_in_patient(geometry)
    options = PrepareOptions(spacing_mm=(2, 2, 2))
    expected = prepare(Volume(voxels[None], geometry), None, options)
    assert expected.voxels.dtype == np.int16
    for kind in (np.int32, np.float32, np.float64):
        case = prepare(Volume(voxels[None].astype(kind), geometry), None, options)
        assert np.array_equal(case.voxels, expected.voxels)
        assert case.meta == expected.meta


def test_statistics_are_of_the_native_crop() -> None:
    geometry = grid()
    voxels, label = ball_in_patient(geometry)
    stats = prepare(Volume(voxels[None], geometry), label, PrepareOptions(spacing_mm=(3, 3, 3), crop="none")).meta.stats
    assert stats[0].foreground is not None
    assert stats[0].foreground.count == label.sum()
    assert stats[0].foreground.mean == pytest.approx(voxels[label > 0].mean())
    assert stats[0].minimum == voxels.min()


def test_channels_and_scaled_storage() -> None:
    geometry = grid()
    voxels, _ = ball_in_patient(geometry)
    fine = (np.stack([voxels, voxels * 3.3]) * 1e-4).astype(np.float32)
    options = PrepareOptions(spacing_mm=(1.2, 1.2, 1.2), crop="none")
    case = prepare(Volume(fine, geometry), None, options, channels=("a", "b"))
    assert case.voxels.dtype == np.int16
    exact = prepare(Volume(fine[:1], geometry), None, options)
    assert np.array_equal(exact.voxels[0], case.voxels[0])
    values = case.read((0, 0, 0), case.shape)
    assert values.dtype == np.float32
    assert values.shape == (2, *case.shape)
    rounding = case.meta.encodings[1].slope / 2 + 3.3 * case.meta.encodings[0].slope / 2
    assert np.abs(values[1] - 3.3 * values[0]).max() < 1.01 * rounding < 2 * 10e-4


def test_geometry_of_the_placement_is_consistent() -> None:
    geometry = grid((2, 0, 1), (-1, 1, -1))
    voxels, _ = ball_in_patient(geometry)
    placement = prepare(Volume(voxels[None], geometry), None, PrepareOptions(spacing_mm=(2, 1, 3))).meta.placement
    assert placement.source == geometry
    assert difference(placement.cropped, placement.cropped) == []
    centres = [to_physical(g, (np.array(g.shape) - 1) / 2) for g in (placement.cropped, placement.working)]
    assert centres[0] == pytest.approx(centres[1], abs=1e-6)
    steps = [affine(g)[:3, :3] / g.spacing_mm for g in (placement.cropped, placement.working)]
    assert np.allclose(*steps)


def test_what_does_not_fit_is_refused() -> None:
    volume = Volume(np.zeros((1, 4, 4, 4), np.int16), Geometry(shape=(4, 4, 4)))
    with pytest.raises(ValueError, match="fit"):
        prepare(volume, None, PrepareOptions(), channels=("a", "b"))
    with pytest.raises(ValueError, match="fit"):
        prepare(volume, np.zeros((4, 4, 5), np.uint8), PrepareOptions())


def test_real_ct(real_data: Path, tmp_path: Path) -> None:
    import SimpleITK as sitk

    from pipeline.imaging.geometry import geometry_of

    folder = real_data / "ct_multiorgan"
    image, organs = sitk.ReadImage(str(folder / "ct.nii.gz")), sitk.ReadImage(str(folder / "organs.nii.gz"))
    volume = Volume(sitk.GetArrayFromImage(image)[None], geometry_of(image))
    label = np.minimum(sitk.GetArrayFromImage(organs), 200).astype(np.uint8)
    case = prepare(volume, label, PrepareOptions(spacing_mm=(2.0, 2.0, 2.0)), case_id="ct")
    assert case.voxels.dtype == np.int16
    back = label_to_source(case.label, case.meta.placement)
    assert np.mean(back == label) > 0.99
    write_case(tmp_path / "ct", case.voxels, case.label, case.meta)
    size = sum(file.stat().st_size for file in (tmp_path / "ct").iterdir())
    assert size < 0.6 * (case.voxels.nbytes + case.label.nbytes)


def test_a_voxel_size_that_makes_it_absurdly_large_is_refused() -> None:
    volume = Volume(np.zeros((1, 40, 40, 40), np.int16), Geometry(shape=(40, 40, 40), spacing_mm=(1e4, 1e4, 1e4)))
    with pytest.raises(DataError, match="case a: with voxels of 10000 x 10000 x 10000 mm it would become"):
        prepare(volume, None, PrepareOptions(spacing_mm=(1.0, 1.0, 1.0), crop="none"), case_id="a")
