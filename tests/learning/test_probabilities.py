"""Files of probabilities: a name of its own for each class."""

from pathlib import Path

import numpy as np

from pipeline.imaging.geometry import reorientation_of
from pipeline.imaging.placement import Placement
from pipeline.imaging.volume import Geometry
from pipeline.learning.probabilities import ProbabilityMaps, read_probabilities


def test_classes_whose_names_look_alike_have_files_of_their_own(tmp_path: Path) -> None:
    grid = Geometry(shape=(2, 3, 4))
    placement = Placement(reorientation=reorientation_of(grid), start=(0, 0, 0), stop=(2, 3, 4), working=grid)
    names = ("background", "left lung", "left_lung", "Left/Lung", "../evil")
    maps = ProbabilityMaps(names, placement, exclusive=True, axis=0, scratch=tmp_path)
    values = np.random.default_rng(0).integers(0, 255, (6, 2, 3, 4), np.uint8)
    maps.array[:] = values
    written = maps.write(tmp_path / "out")
    maps.close()
    assert len(set(written)) == 7
    assert all(path.parent == tmp_path / "out" for path in written)
    found = read_probabilities(tmp_path / "out")
    assert list(found) == [*names, "entropy"]
    for index, name in enumerate(found):
        assert np.array_equal(np.rint(found[name] * 255), values[index])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
