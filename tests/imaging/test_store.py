"""Cases come back from the store as they went in, patch by patch and from several threads."""

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.imaging.encoding import Encoding
from pipeline.imaging.geometry import reorientation_of
from pipeline.imaging.normalise import measure
from pipeline.imaging.placement import Placement
from pipeline.imaging.store import CaseMeta, LoadedCase, class_points, keep_decoded, open_case, write_case
from pipeline.imaging.volume import Geometry

RANDOM = np.random.default_rng(3)


def make_case(shape: tuple[int, int, int] = (40, 50, 70), channels: int = 1, slope: float = 1.0) -> LoadedCase:
    voxels = RANDOM.integers(-1000, 1000, (channels, *shape)).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    label[5:15, 6:20, 7:30] = 1
    label[20:22, 6:8, 7:9] = 4
    label[-1] = 255
    geometry = Geometry(shape=shape, spacing_mm=(3, 1, 1))
    meta = CaseMeta(
        case_id="case_1",
        channels=tuple(f"c{i}" for i in range(channels)),
        placement=Placement(reorientation=reorientation_of(geometry), start=(0, 0, 0), stop=shape, working=geometry),
        encodings=(Encoding(slope=slope),) * channels,
        stats=tuple(measure(v, label) for v in voxels),
    )
    return LoadedCase(meta, voxels, label)


def test_written_and_read_again(tmp_path: Path) -> None:
    case = make_case(channels=2)
    meta = write_case(tmp_path / "a" / "case_1", case.voxels, case.label, case.meta)
    stored = open_case(tmp_path / "a" / "case_1")
    assert stored.meta == meta
    assert (stored.shape, stored.spacing_mm) == (case.shape, (3, 1, 1))
    assert sum((meta.class_voxels or {}).values()) == case.voxels[0].size
    assert (meta.class_voxels or {})[4] == 8
    for start, stop in (((0, 0, 0), stored.shape), ((3, 7, 11), (33, 39, 70)), ((39, 0, 1), (40, 1, 2))):
        box = tuple(slice(a, b) for a, b in zip(start, stop))
        assert np.array_equal(stored.read(start, stop), case.voxels[(slice(None), *box)])
        assert np.array_equal(stored.read_label(start, stop), case.label[box])
    assert stored.read((0, 0, 0), (4, 4, 4)).dtype == np.int16
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["case_1"]


def test_real_intensities_where_the_store_is_scaled(tmp_path: Path) -> None:
    case = make_case(slope=0.25)
    write_case(tmp_path / "c", case.voxels, None, case.meta)
    stored = open_case(tmp_path / "c")
    read = stored.read((1, 2, 3), (9, 9, 9))
    assert read.dtype == np.float32
    assert np.array_equal(read, case.voxels[:, 1:9, 2:9, 3:9] * 0.25)
    assert np.array_equal(read, stored.decoded().read((1, 2, 3), (9, 9, 9)))


def test_small_and_float_cases(tmp_path: Path) -> None:
    case = make_case((22, 9, 10))
    voxels = RANDOM.normal(size=(1, 22, 9, 10)).astype(np.float32)
    meta = case.meta.model_copy(update={"encodings": (Encoding(dtype="float32"),)})
    write_case(tmp_path / "c", voxels, case.label, meta)
    assert np.array_equal(open_case(tmp_path / "c").read((0, 0, 0), (22, 9, 10)), voxels)


def test_points_are_voxels_of_their_class_and_repeat(tmp_path: Path) -> None:
    case = make_case()
    write_case(tmp_path / "c", case.voxels, case.label, case.meta)
    points = open_case(tmp_path / "c").points
    assert sorted(points) == [0, 1, 4, 255]
    assert points.keys() == case.points.keys()
    for index, where in points.items():
        assert where.dtype == np.int32
        assert np.all(case.label[tuple(where.T)] == index)
        assert len(np.unique(where, axis=0)) == len(where) == min(10_000, np.count_nonzero(case.label == index))
        assert np.array_equal(where, case.points[index])


def test_points_are_evenly_drawn_and_depend_on_the_case() -> None:
    label = np.ones((50, 60, 60), np.uint8)
    points = class_points(label, "x", 5000)[1]
    halves = [np.mean(points[:, axis] < size / 2) for axis, size in enumerate(label.shape)]
    assert halves == pytest.approx([0.5, 0.5, 0.5], abs=0.03)
    assert np.array_equal(points, class_points(label, "x", 5000)[1])
    assert not np.array_equal(points, class_points(label, "y", 5000)[1])


def test_points_in_slabs_are_those_of_raster_order() -> None:
    label = RANDOM.integers(0, 3, (3, 2200, 1000)).astype(np.uint8)  # each slice is a slab
    for index, where in class_points(label, "x", 10**9).items():
        assert np.array_equal(where, np.argwhere(label == index))


def test_decoding_within_a_budget(tmp_path: Path) -> None:
    cases = []
    for name in "abc":
        case = make_case()
        write_case(tmp_path / name, case.voxels, case.label, case.meta)
        cases.append(open_case(tmp_path / name))
    one = cases[0].meta.stored_bytes
    assert one == 40 * 50 * 70 * 3
    kept = keep_decoded(cases, 2 * one)
    assert [isinstance(case, LoadedCase) for case in kept] == [True, True, False]
    for before, after in zip(cases, kept):
        assert np.array_equal(before.read((1, 1, 1), (30, 30, 30)), after.read((1, 1, 1), (30, 30, 30)))
        assert np.array_equal(before.read_label((1, 1, 1), (30, 30, 30)), after.read_label((1, 1, 1), (30, 30, 30)))
        assert np.array_equal(before.points[1], after.points[1])


def test_reading_from_threads(tmp_path: Path) -> None:
    case = make_case((64, 64, 64))
    write_case(tmp_path / "c", case.voxels, case.label, case.meta)
    stored = open_case(tmp_path / "c")
    wrong: list[int] = []

    def read(first: int) -> None:
        for step in range(20):
            start = (first, step, first)
            stop = (first + 30, step + 40, first + 25)
            box = tuple(slice(a, b) for a, b in zip(start, stop))
            if not np.array_equal(stored.read(start, stop), case.voxels[(slice(None), *box)]):
                wrong.append(step)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_case_travels_to_another_process(tmp_path: Path) -> None:
    case = make_case()
    write_case(tmp_path / "c", case.voxels, case.label, case.meta)
    again = pickle.loads(pickle.dumps(open_case(tmp_path / "c")))
    assert np.array_equal(again.read((0, 0, 0), (3, 3, 3)), case.voxels[:, :3, :3, :3])


def test_the_first_of_two_writers_stays(tmp_path: Path) -> None:
    case = make_case()
    write_case(tmp_path / "c", case.voxels, case.label, case.meta)
    write_case(tmp_path / "c", case.voxels + 1, case.label, case.meta)
    assert np.array_equal(open_case(tmp_path / "c").read((0, 0, 0), (3, 3, 3)), case.voxels[:, :3, :3, :3])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    case = make_case()
    with pytest.raises(ValueError, match="float64"):
        write_case(tmp_path / "c", case.voxels.astype(float), case.label, case.meta)
    with pytest.raises(ValueError, match="label"):
        write_case(tmp_path / "c", case.voxels, case.label[1:], case.meta)
    with pytest.raises(AttributeError):
        write_case(tmp_path / "c", case.voxels, case.label, case.meta.model_copy(update={"case_id": None}))
    assert list(tmp_path.iterdir()) == []


def test_unfinished_and_unlabelled_cases_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="makes it again"):
        open_case(tmp_path)
    case = make_case()
    write_case(tmp_path / "c", case.voxels, None, case.meta)
    stored = open_case(tmp_path / "c")
    assert stored.points == {}
    for one in (stored, stored.decoded()):
        with pytest.raises(DataError, match="no label"):
            one.read_label((0, 0, 0), (1, 1, 1))
