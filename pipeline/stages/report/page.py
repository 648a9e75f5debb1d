"""What a report page is made of, and how it becomes one self-contained HTML file."""

import base64
import hashlib
import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Card:
    """One figure to read first."""

    label: str
    value: str
    detail: str = ""
    """Below the figure: its interval, or what it is over."""


@dataclass(frozen=True)
class Note:
    """Something that the reader must know before trusting the figures."""

    text: str
    level: Literal["info", "warning"] = "warning"
    items: tuple[str, ...] = ()
    """What it is about, one a line, e.g. the cases that were left out."""


@dataclass(frozen=True)
class Column:
    """Head of a column of a table."""

    name: str
    unit: str = ""
    numeric: bool = True
    hint: str = ""
    """Explanation that appears when the pointer rests on it."""


@dataclass(frozen=True)
class Cell:
    """One field of a table."""

    text: str
    sort: float | str | None = None
    """What the column is sorted by; the text where None."""
    detail: str = ""
    """Smaller, after the text: an interval, a spread."""
    colour: str = ""
    """Colour of a dot before the text, e.g. that of a class in the pictures."""
    shade: str = ""
    """Colour of the ground; the text on it stays readable."""
    interval: tuple[float, float, float] | None = None
    """Low, mean and high as shares of the width (0 to 1), drawn as a line with a dot."""
    mark: float | None = None
    """Another share of the width, drawn as a hollow diamond: what the interval is compared with."""
    bar: float | None = None
    """Share of the width (0 to 1), drawn as a bar behind the text."""


@dataclass(frozen=True)
class Table:
    """Rows of cells below heads."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    sortable: bool = False
    folded: str = ""
    """Line to click on before the table shows; always open where empty."""
    total: bool = False
    """Whether the last row sums up the others."""
    is_stacked: bool = False
    """Whether details stand below the texts, which saves width."""


@dataclass(frozen=True)
class Figure:
    """A picture with a caption."""

    source: str
    """Data URI, as `png` and `svg` make them."""
    alt: str
    """What it shows, for those who do not see it."""
    caption: str = ""
    title: str = ""
    is_dark: bool = False
    """Whether it has a black ground, as pictures of volumes do."""


@dataclass(frozen=True)
class Text:
    """A paragraph; or, where `folded` names it or `is_code` says so, a text as it stands."""

    text: str
    is_code: bool = False
    folded: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values side by side."""

    items: tuple[tuple[str, str], ...]
    folded: str = ""


@dataclass(frozen=True)
class Row:
    """Two parts side by side where the window is wide enough."""

    items: tuple[Table | Figure | Text | Facts, ...]


Item = Table | Figure | Text | Facts | Row


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; left out of the page where it has no items."""

    anchor: str
    """Name in links; letters and hyphens."""
    title: str
    items: tuple[Item, ...]
    lead: str = ""
    """First sentence: what to look for here."""


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    verdict: str
    """One sentence that says how it went."""
    cards: tuple[Card, ...] = ()
    notes: tuple[Note, ...] = ()
    sections: tuple[Section, ...] = ()
    footer: str = ""


def render(page: Page) -> str:
    """Turn a page into HTML that needs no other file, no network and no script to be read.

    The only script makes tables sortable; a content security policy forbids everything else. All texts
    are escaped.
    """
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    folder = files("pipeline.stages.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["kind"] = lambda item, kind: type(item).__name__ == kind
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        sections=[section for section in page.sections if section.items],
        css=folder.joinpath("page.css").read_text(encoding="utf-8"),
        script=_SORT,
        script_hash=base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode(),
    )


def png(content: bytes) -> str:
    """Return a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def svg(content: str) -> str:
    """Return an SVG drawing as a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(content.encode()).decode()}"


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure with so many decimals; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


_SORT = """
for (const head of document.querySelectorAll("table.sortable th")) {
  head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      const x = key(a), y = key(b), p = parseFloat(x), q = parseFloat(y);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(p) || isNaN(q) ? x.localeCompare(y, undefined, {numeric: true}) : p - q;
      return up ? order : -order;
    };
    [...body.rows].sort(compare).forEach(row => body.appendChild(row));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
"""
