"""Plug-ins are frozen, found by name, and their errors keep their path."""

import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import PositiveInt, ValidationError

from pipeline.errors import ConfigError
from pipeline.plugin import Plugin, Registry, load_plugins, source_hash


class Shape(Plugin):
    pass


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Registry[Shape]:
    monkeypatch.setattr(Registry, "all", {})
    registry = Registry("shape", Shape, "tests_without_modules")
    registry._discovered = True

    @registry.register
    class Circle(Shape):
        """Round."""

        name: Literal["circle"] = "circle"
        radius: PositiveInt = 1

    return registry


def test_a_plugin_is_found_by_name_or_mapping(shapes: Registry[Shape]) -> None:
    assert shapes.parse("circle") == shapes.parse({"name": "circle", "radius": 1})
    assert shapes.names() == ["circle"]
    with pytest.raises(ValidationError, match="frozen"):
        shapes.parse("circle").radius = 3


def test_an_unknown_name_is_answered_with_the_nearest(shapes: Registry[Shape]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'circle'"):
        shapes.get("cirkle")


def test_two_classes_cannot_have_one_name(shapes: Registry[Shape]) -> None:
    class Other(Shape):
        name: Literal["circle"] = "circle"

    with pytest.raises(ConfigError, match="taken"):
        shapes.register(Other)


def test_modules_of_the_user_are_imported_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "lab_nets_of_this_test.py").write_text("VALUE = 3\n")
    load_plugins(["lab_nets_of_this_test"], search=tmp_path)
    assert sys.modules["lab_nets_of_this_test"].VALUE == 3
    with pytest.raises(ConfigError, match="no_such_lab"):
        load_plugins(["no_such_lab"])
    (tmp_path / "broken_lab.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        load_plugins(["broken_lab"], search=tmp_path)


def test_code_of_a_users_plugin_is_part_of_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "hash_lab.py"
    head = "from typing import Literal\nfrom pipeline.plugin import Plugin\n"
    text = head + "class A(Plugin):\n    name: Literal['a'] = 'a'\n"
    file.write_text(text)
    load_plugins(["hash_lab"], search=tmp_path)
    plugin = sys.modules["hash_lab"].A()
    before = source_hash(plugin)
    file.write_text(text + "# changed\n")
    assert source_hash(plugin) != before
