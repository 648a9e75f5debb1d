"""The page on convolutions: its code runs, its pictures are there and are those of the script."""

import importlib.util
import re
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
PAGE = HOME / "docs" / "convolutions.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_there_is_code():
    assert len(BLOCKS) >= 5


def test_the_code_of_the_page_runs_from_top_to_bottom():
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)


@pytest.mark.parametrize("picture", re.findall(r"\((pictures/[^)]+)\)", PAGE.read_text()))
def test_every_picture_is_there(picture):
    assert (PAGE.parent / picture).read_text().startswith("<?xml")


def test_the_script_draws_every_picture_of_the_page(tmp_path):
    spec = importlib.util.spec_from_file_location("figures", HOME / "scripts" / "figures" / "convolutions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = {file.name for file in module.main(tmp_path)}
    assert made == {Path(picture).name for picture in re.findall(r"\((pictures/[^)]+)\)", PAGE.read_text())}
