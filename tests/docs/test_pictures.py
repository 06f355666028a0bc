"""The pictures of the documentation are what their scripts draw, and can be read by everybody."""

from __future__ import annotations

import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
SCRIPTS = ROOT / "scripts"
SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 60_000
NAMES = sorted(path.name for path in IMAGES.glob("*.svg"))


@pytest.fixture(scope="module")
def drawn():
    """Name -> text of every picture that is drawn by hand."""
    sys.path.insert(0, str(SCRIPTS / "pictures"))
    try:
        pictures = runpy.run_path(str(SCRIPTS / "pictures" / "__main__.py"))["PICTURES"]
        return {f"{name}.svg": draw().svg() for name, draw in pictures.items()}
    finally:
        sys.path.remove(str(SCRIPTS / "pictures"))
        for name in ("calls", "drawing", "runs"):
            sys.modules.pop(name, None)


def test_the_pictures_are_what_the_script_draws(drawn):
    assert {*drawn, "run.svg"} == set(NAMES)  # that shows a real run, which no other one repeats to the digit
    stale = [name for name in drawn if (IMAGES / name).read_text(encoding="utf-8") != drawn[name]]
    assert stale == [], "run: python scripts/pictures"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_small_and_has_words_for_those_who_do_not_see_it(name):
    text = (IMAGES / name).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert len(text.encode()) < MOST_BYTES
    assert root.get("role") == "img"
    assert len(root.find(f"{SVG}title").text) > 10
    assert len(root.find(f"{SVG}desc").text) > 40


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stands_outside_of_a_picture(name):
    root = ElementTree.parse(IMAGES / name).getroot()
    width, height = map(float, root.get("viewBox").split()[2:])
    for shape in root.iter():
        for x, y in _corners(shape):
            assert 0 <= x <= width, ElementTree.tostring(shape)
            assert 0 <= y <= height, ElementTree.tostring(shape)


def _corners(shape):
    tag, number = shape.tag.replace(SVG, ""), {name: _number(value) for name, value in shape.items()}
    if tag == "rect":
        yield number["x"], number["y"]
        yield number["x"] + number["width"], number["y"] + number["height"]
    elif tag == "polyline":
        yield from (tuple(map(float, point.split(","))) for point in shape.get("points").split())
    elif tag == "text":
        # About the width of the widest usual fonts.
        wide = number.get("textLength") or len(shape.text) * 7.2
        left = number["x"] - {"start": 0, "middle": wide / 2, "end": wide}[shape.get("text-anchor", "start")]
        yield left, number["y"] - 10
        yield left + wide, number["y"]


def _number(value):
    return float(value) if re.fullmatch(r"-?[\d.]+", value) else 0.0


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_on_a_page_with_its_words(name):
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
    assert [page for page in pages if re.search(rf"!\[[^\]]{{10,}}\]\([./]*images/{re.escape(name)}\)", page)]


def test_the_pictures_follow_light_and_dark_pages(drawn):
    for text in drawn.values():
        assert "prefers-color-scheme: dark" in text


def test_spans_of_a_terminal_stand_in_their_columns():
    pytest.importorskip("termios")
    script = runpy.run_path(str(SCRIPTS / "terminal_svg.py"))
    span = script["Span"]
    text = script["svg"]([[span(0, "$ a <b>", bold=True)], [span(2, "██", "green")]], "A run")
    first, second = ElementTree.fromstring(text).iter(f"{SVG}text")
    assert (first.text, first.get("class"), first.get("x")) == ("$ a <b>", "bold", "16")
    assert (second.text, second.get("textLength"), float(second.get("x")) > 16) == ("██", "16.8", True)


def test_every_picture_stands_on_a_page_with_words_for_those_who_do_not_see_it():
    pages = [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
    shown = re.findall(r"!\[([^]]{20,})\]\((?:docs/|\.\./)?images/([\w.-]+)\)", "".join(map(_text_of, pages)))
    assert {name for _, name in shown} == {path.name for path in IMAGES.iterdir()}


def test_pictures_of_a_browser_are_small():
    assert max(path.stat().st_size for path in IMAGES.glob("*.png")) < 150_000


def _text_of(path):
    return path.read_text(encoding="utf-8")
