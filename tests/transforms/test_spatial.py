"""Mirroring and turning as matrices in millimetres."""

import logging

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from pipeline.imaging.labels import Labels
from pipeline.transforms.base import transforms
from pipeline.transforms.spatial import Affine, Flip, for_labels, for_volume_classes, rotation

EYE = torch.eye(3, dtype=torch.float64)


def random(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[number, 0]))


@pytest.mark.parametrize("degrees", [(30, 0, 0), (0, -40, 0), (0, 0, 50), (25, -13, 40)])
def test_rotation_agrees_with_scipy(degrees: tuple[float, float, float]) -> None:
    expected = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()  # lower case: about fixed axes
    assert np.allclose(rotation(degrees).numpy(), expected)


def test_affine_turns_and_magnifies() -> None:
    matrix = Affine().apply(EYE, ((0.0, 0.0, 90.0), 2.0))
    assert torch.allclose(matrix @ torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([0, 0.5, 0]).double())
    assert torch.linalg.det(matrix) == pytest.approx(1 / 8)


def test_turning_is_done_in_millimetres() -> None:
    spacing = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    matrix = Affine().apply(torch.diag(spacing), ((20.0, 30.0, -10.0), 1.0))
    sides = matrix.T @ matrix  # of a voxel: lengths and angles stay, nothing is sheared
    assert torch.allclose(sides, torch.diag(spacing**2))


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_thick_slices_are_turned_in_their_plane(thick: int) -> None:
    spacing = torch.ones(3, dtype=torch.float64)
    spacing[thick] = 3.5
    matrix = Affine().apply(torch.diag(spacing), ((20.0, 25.0, 30.0), 1.25))
    assert matrix[thick, thick] == 3.5
    others = [axis for axis in range(3) if axis != thick]
    assert not matrix[thick, others].any()
    assert not matrix[others, thick].any()
    assert abs(matrix[others[0], others[1]]) > 0.1
    assert torch.linalg.det(matrix) == pytest.approx(3.5 / 1.25**2)


def test_ranges_and_chances_of_affine() -> None:
    affine = Affine(rotation_degrees=(10, 20, 0), scaling=(0.5, 2), probability=0.3)
    draws = [affine.draw(random(number)) for number in range(4000)]
    turned = np.array([one[0] for one in draws if one is not None and any(one[0])])
    factors = np.array([one[1] for one in draws if one is not None and one[1] != 1])
    assert len(turned) / 4000 == pytest.approx(0.3, abs=0.03)
    assert len(factors) / 4000 == pytest.approx(0.3, abs=0.03)
    assert sum(one is None for one in draws) / 4000 == pytest.approx(0.49, abs=0.03)
    assert np.abs(turned).max(axis=0) == pytest.approx([10, 20, 0], abs=0.2)
    assert factors.min() == pytest.approx(0.5, abs=0.02)
    assert factors.max() == pytest.approx(2, abs=0.02)
    assert np.log(factors).mean() == pytest.approx(0, abs=0.05)


def test_flip_mirrors_each_axis_half_of_the_time() -> None:
    draws = np.array([Flip().draw(random(number)) or (False,) * 3 for number in range(2000)])
    assert draws.mean(axis=0) == pytest.approx([0.5] * 3, abs=0.04)
    assert torch.equal(Flip().apply(EYE, (True, False, True)), torch.diag(torch.tensor([-1.0, 1, -1]).double()))


def test_flip_only_along_what_is_asked() -> None:
    draws = np.array([Flip(axes=("H",)).draw(random(number)) or (False,) * 3 for number in range(200)])
    assert draws.any(axis=0).tolist() == [False, True, False]


def test_a_side_without_partner_takes_w_out_of_flips() -> None:
    chosen = (transforms.parse("flip"), transforms.parse("noise"))
    assert for_labels(chosen, Labels.model_validate({1: "liver"}))[0] == Flip(axes=("D", "H", "W"))
    assert for_labels(chosen, Labels())[0] == Flip(axes=("D", "H", "W"))
    assert for_labels(chosen, Labels.model_validate({1: "kidney_left", 2: "kidney_right"}))[0].axes == ("D", "H", "W")  # type: ignore[attr-defined]
    assert for_labels(chosen, Labels.model_validate({1: "kidney_left", 2: "liver"}))[0].axes == ("D", "H")  # type: ignore[attr-defined]
    assert for_labels(chosen, Labels())[1] is chosen[1]


def test_an_explicit_choice_is_kept_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    labels = Labels.model_validate({1: "kidney_left"})
    with caplog.at_level(logging.WARNING):
        assert for_labels([Flip(axes=("W",))], labels) == (Flip(axes=("W",)),)
    assert "kidney_left has no partner" in caplog.text
    caplog.clear()
    for_labels([Affine(rotation_degrees=(180, 0, 0))], labels)
    assert "kidney_left has no partner" in caplog.text
    caplog.clear()
    for_labels([Flip(), Affine()], labels)
    assert not caplog.text


@pytest.mark.parametrize("options", [{"scaling": (0, 1)}, {"scaling": (2, 1)}, {"rotation_degrees": (0, 0, 200)}])
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="expected"):
        Affine.model_validate(options)


def test_classes_of_whole_volumes_that_name_a_side_take_w_out_of_flips(caplog: pytest.LogCaptureFixture) -> None:
    chosen = (Flip(), transforms.parse("noise"))
    assert for_volume_classes(chosen, ("benign", "malignant"))[0] == Flip(axes=("D", "H", "W"))
    assert for_volume_classes(chosen, ("stroke left", "stroke right")) == (Flip(axes=("D", "H")), chosen[1])
    assert not caplog.text
    for_volume_classes([Flip(axes=("W",))], ("left", "right"))
    assert "left is a class of whole volumes that names a side" in caplog.text
