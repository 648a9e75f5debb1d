"""The page as HTML: self-contained, escaped, well-formed."""

import re
from html.parser import HTMLParser

import pytest

from pipeline.stages.report.page import (
    Card,
    Cell,
    Column,
    Facts,
    Figure,
    Note,
    Page,
    Row,
    Section,
    Table,
    Text,
    number,
    png,
    render,
    svg,
)

VOID = {"meta", "img", "line", "circle", "rect", "br"}


class Outline(HTMLParser):
    """Checks that tags close in order, and keeps attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def outline(text):
    parser = Outline()
    parser.feed(text)
    assert parser.open == []
    return parser


@pytest.fixture
def page():
    table = Table(
        (Column("Class", numeric=False), Column("Dice", hint="mean"), Column("line")),
        (
            (
                Cell("a", colour="#e69f00"),
                Cell("0.9", sort=0.9, detail="0.8–1.0"),
                Cell("0.9", interval=(0.8, 0.9, 1.0), mark=0.2),
            ),
            (Cell("b"), Cell("–", sort="", shade="#ffeecc"), Cell("2", bar=0.5)),
        ),
        caption="Classes",
        sortable=True,
        total=True,
    )
    items = (
        table,
        Figure(png(b"not really"), alt="a picture", caption="what", title="Picture", is_dark=True),
        Row((Facts((("cores", "2"),)), Figure(svg("<svg/>"), alt="a chart"))),
        Text("seed: 0", is_code=True, folded="Configuration"),
        Text("A sentence."),
    )
    return Page(
        title="ct", subtitle="today", verdict="It went well.", cards=(Card("Dice", "0.9", "0.8 to 1.0"),),
        notes=(Note("Left out:", items=("one",)),), sections=(Section("results", "Results", items, "Look."),),
        footer="made here",
    )  # fmt: skip


def test_is_well_formed_and_has_every_part(page):
    text = render(page)
    found = outline(text)
    words = " ".join(found.words)
    for part in (
        "ct",
        "It went well.",
        "Left out:",
        "Results",
        "Look.",
        "Classes",
        "0.8–1.0",
        "cores",
        "seed: 0",
        "made here",
    ):
        assert part in words
    assert [attributes["alt"] for tag, attributes in found.tags if tag == "img"] == ["a picture", "a chart"]


def test_asks_nothing_of_the_network(page):
    text = render(page)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "http-equiv" in text
    assert "default-src 'none'" in text


def test_texts_are_escaped():
    evil = '<script>alert("x")</script>'
    table = Table((Column(evil, hint=evil),), ((Cell(evil, sort=evil, detail=evil),),), caption=evil)
    items = (
        table,
        Figure(png(b""), alt=evil, caption=evil),
        Text(evil),
        Text(evil, is_code=True),
        Facts(((evil, evil),)),
    )
    page = Page(
        evil,
        evil,
        evil,
        (Card(evil, evil, evil),),
        (Note(evil, items=(evil,)),),
        (Section("a", evil, items, evil),),
        evil,
    )
    text = render(page)
    assert text.count("<script>") == 1
    assert outline(text)


def test_script_is_the_one_that_the_policy_allows(page):
    import base64
    import hashlib

    text = render(page)
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in text or f"script-src 'sha256-{digest}'" in text


def test_section_without_items_is_left_out(page):
    text = render(Page("t", "s", "v", sections=(Section("empty", "Nothing here", ()),)))
    assert "Nothing here" not in text


def test_numbers():
    assert (number(0.12345), number(2.0, 1), number(None), number(float("nan"))) == ("0.123", "2.0", "–", "–")
