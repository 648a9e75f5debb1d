"""Prints the annotated tree of the package for the README: each file with the first line of its docstring.

Run: .venv/bin/python scripts/figures/tree.py, or with --write to put it between the README's marks.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
START, END = "<!-- tree: made by scripts/figures/tree.py -->\n", "<!-- end of tree -->\n"


def tree() -> str:
    """Return the lines of the tree, packages before their modules."""
    lines = []
    for folder in [ROOT / "pipeline", *sorted(path.parent for path in (ROOT / "pipeline").rglob("__init__.py"))[1:]]:
        depth = len(folder.relative_to(ROOT).parts) - 1
        lines.append(_line(f"{folder.name}/", depth, folder / "__init__.py"))
        modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        lines += [_line(path.name, depth + 1, path) for path in sorted(modules, key=lambda path: path.name != "run.py")]
    return "\n".join(lines) + "\n"


def _line(name: str, depth: int, file: Path) -> str:
    told = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0].rstrip(".")
    return f"{'  ' * depth}{name}".ljust(28) + " " + told


def main() -> None:
    text = START + "```\n" + tree() + "```\n" + END
    if "--write" not in sys.argv:
        print(text)
        return
    readme = ROOT / "README.md"
    old = readme.read_text()
    before, rest = old.split(START, 1)
    readme.write_text(before + text + rest.split(END, 1)[1])


if __name__ == "__main__":
    main()
