"""The README says what is there."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tree_is_that_of_the_package() -> None:
    spec = importlib.util.spec_from_file_location("tree", ROOT / "scripts" / "figures" / "tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.tree() in (ROOT / "README.md").read_text(), "run scripts/figures/tree.py --write"


def test_every_file_that_it_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", text) + re.findall(r"`(configs/(?!liver)[a-z0-9_]+\.yaml)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
