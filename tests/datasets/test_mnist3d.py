"""3D-MNIST: what is made from digits, and the published file."""

import numpy as np
import pytest

from pipeline.datasets.mnist3d import Mnist3d
from pipeline.datasets.mnist3d_digits import Cloud, digits, draw_points, make_grids, split_images, voxelise
from pipeline.errors import DataError
from pipeline.imaging.block import member_of, read_block

FLAT = Cloud(side=16, points=3000, rotation_degrees=0.0, noise=0.0)


def small(folder, **options):
    return Mnist3d.model_validate({"folder": folder, "copies": [1, 2], "points": 100, **options})


def test_no_digit_image_is_in_both_parts(tmp_path):
    cases = small(tmp_path).cases().cases
    groups = {split: {case.group for case in cases if case.split == split} for split in ("", "test")}
    assert not groups[""] & groups["test"]
    assert len(groups[""] | groups["test"]) == 1797
    assert len([case for case in cases if case.split == "test"]) == 2 * len(groups["test"])
    assert len({case.case_id for case in cases}) == len(cases)


def test_a_case_names_the_class_of_its_image(tmp_path):
    _, labels = digits()
    for case in small(tmp_path).cases().cases[::97]:
        assert case.classes == (str(labels[int(case.group.removeprefix("digit_"))]),)


def test_files_are_made_once_and_are_equal_each_time(tmp_path):
    contents = []
    for folder in ("a", "b"):
        dataset = small(tmp_path / folder)
        case = dataset.cases().cases[0]
        dataset.write_files(case)
        file = member_of(case.images["image"]).file
        contents.append(read_block(file, "X_train"))
        before = file.stat().st_mtime_ns
        dataset.write_files(case)
        assert file.stat().st_mtime_ns == before
    assert np.array_equal(*contents)
    assert contents[0].shape == (1438, 16, 16, 16)
    assert (contents[0].max((1, 2, 3)) == 1).all()


def test_other_options_have_another_folder(tmp_path):
    one, other = (small(tmp_path, rotation_degrees=angle).cases().cases[0].images["image"] for angle in (10, 20))
    assert one.parents[1] != other.parents[1]


def test_an_unturned_digit_shows_its_image_along_the_depth():
    images, _ = digits()
    grid = make_grids(images, [(5, 0)], FLAT, seed=0)[0]
    coarse = grid.sum(0).reshape(8, 2, 8, 2).sum((1, 3))
    inked = images[5][:, images[5].any(0)][images[5].any(1)]
    found = np.corrcoef(coarse.sum(1), np.interp(np.linspace(0, 1, 8), np.linspace(0, 1, len(inked)), inked.sum(1)))
    assert found[0, 1] > 0.9


def test_each_copy_is_turned_differently_and_each_alone_is_the_same():
    images, _ = digits()
    cloud = Cloud(8, 200, 45.0, 0.02)
    both = make_grids(images, [(3, 0), (3, 1)], cloud, seed=1)
    assert not np.array_equal(both[0], both[1])
    assert np.array_equal(make_grids(images, [(3, 1)], cloud, seed=1)[0], both[1])


def test_turning_keeps_distances():
    image = digits()[0][0]
    flat, turned = (
        draw_points(image, Cloud(16, 500, angle, 0.0), np.random.Generator(np.random.Philox(4))) for angle in (0, 90)
    )
    assert np.allclose(np.linalg.norm(flat, axis=1), np.linalg.norm(turned, axis=1))


def test_voxels_are_cubes():
    points = np.array([[0, 0, 0], [1, 4, 2.0]])
    grid = voxelise(points, 4)
    assert np.argwhere(grid).tolist() == [[1, 0, 1], [2, 3, 3]]


def test_split_takes_the_share():
    train, test = split_images(100, 0.25, seed=3)
    assert (len(train), len(test)) == (75, 25)
    assert sorted([*train, *test]) == list(range(100))


def test_the_published_file_keeps_its_split(real_data):
    dataset = Mnist3d(file=real_data / "mnist3d_8" / "voxelgrid.npz")
    assert not dataset.makes_files
    manifest = dataset.cases()
    counts = {split: sum(case.split == split for case in manifest.cases) for split in ("", "test")}
    assert counts == {"": 6000, "test": 1000}
    first = manifest.cases[0]
    assert first.case_id == "train_00000"
    assert first.classes == ("5",)
    member = member_of(first.images["image"])
    assert read_block(member.file, member.array)[member.index].shape == (8, 8, 8)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Mnist3d(file=tmp_path / "none.h5").cases()


def test_labels_that_are_no_digits_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X_train=np.zeros((2, 8)), y_train=np.array([1, 12]), X_test=np.zeros((1, 8)),
             y_test=np.array([1]))  # fmt: skip
    with pytest.raises(DataError, match="expected digits"):
        Mnist3d(file=tmp_path / "a.npz").cases()
