"""Write a small package with a data set or a network of your own, which works at once and has tests to change with it.

Examples:
  python -m pipeline new-plugin network my_net
  python -m pipeline new-plugin dataset ward_7 --output ../ward_7
"""

import argparse
from pathlib import Path

KINDS = ("dataset", "network")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", choices=KINDS, help="what to write")
    parser.add_argument("name", metavar="NAME", help="its name in configs and of its module, such as my_net")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of the package (default: ./NAME)")


def main(arguments: argparse.Namespace) -> int:
    """Write the package."""
    folder = arguments.output or Path(arguments.name)
    _check(arguments.kind, arguments.name, folder)
    for path in write_package(arguments.kind, arguments.name, folder):
        print(path)
    print(
        f"Try it: PYTHONPATH={folder} python -m pytest {folder}. Use it: pip install -e {folder}, "
        f"then '{arguments.kind}: {{name: {arguments.name}, ...}}' in a config; or 'plugins: [{arguments.name}]' there."
    )
    return 0


def write_package(kind: str, name: str, folder: Path) -> list[Path]:
    """Write pyproject.toml, README.md, the module and its tests; return their paths."""
    from string import Template

    from pipeline.workspace import write_text

    templates = Path(__file__).parents[1] / "templates" / kind
    places = {
        "pyproject.toml": "pyproject.toml", "README.md": "README.md", "module.py": f"{name}.py",
        "test.py": f"tests/test_{name}.py",
    }  # fmt: skip
    words = {"name": name, "class_name": "".join(part.capitalize() for part in name.split("_"))}
    for template, place in places.items():
        text = (templates / f"{template}.txt").read_text(encoding="utf-8")
        write_text(folder / place, Template(text).substitute(words))
    return [folder / place for place in places.values()]


def _check(kind: str, name: str, folder: Path) -> None:
    import importlib.util
    import keyword
    import re

    import pipeline.config  # noqa: F401  brings every registry into being
    from pipeline.errors import ConfigError
    from pipeline.plugin import Registry, load_plugins

    load_plugins(())
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) or keyword.iskeyword(name):
        raise ConfigError(f"new-plugin: found the name {name!r}; expected small letters, digits and _, such as my_net.")
    if name in Registry.all[kind].names():
        raise ConfigError(f"new-plugin: there is a {kind} called {name!r} already. Choose another name.")
    if importlib.util.find_spec(name) is not None:
        raise ConfigError(f"new-plugin: there is a Python module called {name!r} already. Choose another name.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"new-plugin: {folder} exists and is not empty. Name another folder with --output.")
