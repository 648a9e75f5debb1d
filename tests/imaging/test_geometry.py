"""Grids and orientations, compared with what SimpleITK says of the same images."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.imaging import geometry as geo
from pipeline.imaging.volume import Geometry, Volume


def _signed_permutations():
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(axes), range(3)] = signs
            yield matrix


def _rotation(degrees_x, degrees_y, degrees_z):
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*np.radians([degrees_x, degrees_y, degrees_z]))
    return np.reshape(turn.GetMatrix(), (3, 3))


OBLIQUE = _rotation(12, -25, 33)
GRIDS = [turn @ matrix for turn in (np.eye(3), OBLIQUE) for matrix in _signed_permutations()]


def _image(direction, shape=(4, 5, 6)):
    voxels = np.random.default_rng(7).integers(-1000, 1000, shape).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 1.25, 3.3))
    image.SetOrigin((-101.5, 33.25, 7.0))
    image.SetDirection(np.ravel(direction).tolist())
    return image


def _volume(image):
    return Volume(sitk.GetArrayFromImage(image)[None], geo.geometry_of(image))


@pytest.mark.parametrize("direction", GRIDS)
def test_canonical_equals_dicom_orient_and_comes_back(direction):
    image = _image(direction)
    source = _volume(image)
    volume, reorientation = geo.canonical(source)
    expected = sitk.DICOMOrient(image, "LPS")
    np.testing.assert_array_equal(volume.voxels[0], sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(geo.affine(volume.geometry), geo.affine(geo.geometry_of(expected)), atol=1e-9)
    np.testing.assert_array_equal(geo.restore(volume.voxels, reorientation), source.voxels)
    np.testing.assert_array_equal(geo.restore(volume.voxels[0], reorientation), source.voxels[0])
    assert np.shares_memory(volume.voxels, source.voxels)
    assert geo.orientation(volume.geometry) == "LPS"


@pytest.mark.parametrize("direction", GRIDS[::5])
def test_positions_equal_those_of_simpleitk(direction):
    image = _image(direction)
    grid = geo.geometry_of(image)
    for index in [(0, 0, 0), (3, 4, 5), (1, 0, 2)]:
        expected = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(geo.to_physical(grid, index), expected, atol=1e-9)
        np.testing.assert_allclose(geo.to_index(grid, expected), index, atol=1e-9)
    np.testing.assert_allclose(geo.affine(geo.from_affine(geo.affine(grid), grid.shape)), geo.affine(grid), atol=1e-12)


@pytest.mark.parametrize("direction", GRIDS)
def test_orientation_has_the_name_that_simpleitk_gives(direction):
    grid = geo.geometry_of(_image(direction))
    assert geo.orientation(grid) == sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)


@pytest.mark.parametrize("degrees", [(45, 0, 0), (0, 45, 45), (45, 45, 45), (90, 45, 0)])
def test_ties_between_axes_fall_as_in_simpleitk(degrees):
    for signs in _signed_permutations():
        image = _image(_rotation(*degrees) @ signs)
        volume, _ = geo.canonical(_volume(image))
        np.testing.assert_array_equal(volume.voxels[0], sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS")))


def test_canonical_keeps_an_already_canonical_volume_exactly():
    source = _volume(_image(np.eye(3)))
    volume, _ = geo.canonical(source)
    assert volume.geometry == source.geometry


def test_reorientation_survives_json():
    _, reorientation = geo.canonical(_volume(_image(GRIDS[17])))
    assert geo.Reorientation.model_validate_json(reorientation.model_dump_json()) == reorientation


def test_oblique_means_off_every_axis_of_the_patient():
    assert not any(geo.is_oblique(geo.geometry_of(_image(direction))) for direction in GRIDS[:48])
    assert geo.is_oblique(geo.geometry_of(_image(OBLIQUE)))
    assert geo.is_oblique(geo.geometry_of(_image(_rotation(0, 0, 0.2))))
    assert not geo.is_oblique(geo.geometry_of(_image(_rotation(0, 0, 0.02))))


def test_image_of_is_the_inverse_of_geometry_of():
    source = _volume(_image(OBLIQUE))
    image = geo.image_of(source.voxels[0], source.geometry)
    assert geo.geometry_of(image) == source.geometry
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), source.voxels[0])
    two = geo.image_of(np.stack([source.voxels[0], source.voxels[0] + 1]), source.geometry)
    assert two.GetNumberOfComponentsPerPixel() == 2


GRID = Geometry(shape=(20, 256, 256), spacing_mm=(5.0, 0.8, 0.8), origin=(-100.0, -90.0, 30.0))


def _changed(**changes):
    return GRID.model_copy(update=changes)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (GRID, []),
        (_changed(origin=(-100.05, -90.0, 30.0)), []),
        (_changed(origin=(-100.0, -90.0, 42.5)), ["origin 12.5 mm apart along D"]),
        (_changed(origin=(-103.0, -88.0, 30.0)), ["origin 2 mm apart along H", "origin 3 mm apart along W"]),
        (_changed(spacing_mm=(5.0, 0.8, 0.8001)), []),
        (_changed(spacing_mm=(4.9, 0.8, 0.8)), ["spacing (5, 0.8, 0.8) against (4.9, 0.8, 0.8) mm"]),
        (_changed(shape=(24, 256, 256)), ["shape (20, 256, 256) against (24, 256, 256)"]),
        (_changed(direction=tuple(_rotation(0, 0, 3).ravel())), ["direction 3 degrees apart"]),
        (_changed(direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)), ["orientation LPS against RAS"]),
    ],
)  # fmt: skip
def test_difference_names_what_differs(other, expected):
    assert geo.difference(GRID, other) == expected


def test_difference_speaks_of_the_grids_own_axes():
    turned = _changed(direction=tuple(OBLIQUE.ravel()))
    moved = geo.cropped_geometry(turned, (0, 10, 0), (20, 266, 256))
    assert geo.difference(turned, moved) == ["origin 8 mm apart along H"]


def test_difference_is_never_silent_where_small_parts_add_up():
    other = _changed(origin=(-100.07, -90.07, 30.07))
    assert len(geo.difference(GRID, other)) == 3


def test_difference_of_tiny_voxels_is_measured_in_voxels():
    tiny = Geometry(shape=(100, 100, 100), spacing_mm=(0.01, 0.01, 0.01))
    moved = tiny.model_copy(update={"origin": (0.05, 0.0, 0.0)})
    assert geo.difference(tiny, moved) == ["origin 0.05 mm apart along W"]


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (5.0, 0.8, 0.8), (500.0, 1.3, 0.31)])
def test_resampled_grid_keeps_the_centre_of_the_field_of_view(spacing):
    turned = _changed(direction=tuple(OBLIQUE.ravel()))
    new = geo.resampled_geometry(turned, spacing)
    assert new.spacing_mm == spacing
    assert new.shape == tuple(
        max(1, round(n * s / t)) for n, s, t in zip(turned.shape, turned.spacing_mm, spacing, strict=True)
    )
    middles = [geo.to_physical(grid, (np.asarray(grid.shape) - 1) / 2) for grid in (turned, new)]
    np.testing.assert_allclose(*middles, atol=1e-9)


def test_resampling_to_the_same_spacing_changes_nothing():
    assert geo.difference(geo.resampled_geometry(GRID, GRID.spacing_mm), GRID) == []


def test_cropped_grid_equals_that_of_simpleitk_and_padding_undoes_it():
    image = _image(OBLIQUE, (10, 11, 12))
    grid = geo.geometry_of(image)
    cropped = geo.cropped_geometry(grid, (1, 2, 3), (9, 8, 7))
    expected = geo.geometry_of(image[3:7, 2:8, 1:9])
    assert cropped.shape == expected.shape
    np.testing.assert_allclose(cropped.origin, expected.origin, atol=1e-9)
    padded = geo.cropped_geometry(cropped, (-1, -2, -3), (9, 9, 9))
    assert geo.difference(padded, grid) == []
    with pytest.raises(ValueError, match="nothing between"):
        geo.cropped_geometry(grid, (3, 3, 3), (3, 4, 4))
