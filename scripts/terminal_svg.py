"""Draws the picture of a run in a terminal: ``python scripts/terminal_svg.py`` writes docs/images/run.svg.

``chatpool run`` really runs, in a pseudo-terminal of 80 columns, against a practice server that breaks a fifth of all
calls; it is killed in the middle, and the same command goes on.  Needs pyte (the extra ``docs``), and Linux or macOS.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from fcntl import ioctl
from html import escape
from itertools import groupby
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any, Iterable, List, NamedTuple, Sequence

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "run.svg"
TITLE = "A run in a terminal, killed in the middle and resumed"

COLUMNS, ROWS = 80, 40
PROMPTS = 2000
COMMAND = "chatpool run prompts.jsonl -o answers.jsonl --model gpt-4o-mini"
ARGUMENTS = ["--max-workers", "32"]

_CHARACTER_PIXELS, _LINE_PIXELS, _MARGIN_PIXELS, _BAR_PIXELS = 8.4, 19, 16, 30
_COLOURS = {
    "default": "#e6edf3",
    "black": "#9198a1",
    "red": "#ff7b72",
    "green": "#3fb950",
    "brown": "#d29922",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": "#ffffff",
}
_BUTTONS = ((20, "#ff5f57"), (40, "#febc2e"), (60, "#28c840"))


class Span(NamedTuple):
    """Characters of one look in a line: the column of the first, the text, a colour of ``_COLOURS``, bold or not."""

    column: int
    text: str
    colour: str = "default"
    bold: bool = False


def svg(lines: Sequence[Sequence[Span]], title: str) -> str:
    """Return a terminal with these lines, as the text of a file."""
    width = COLUMNS * _CHARACTER_PIXELS + 2 * _MARGIN_PIXELS
    height = len(lines) * _LINE_PIXELS + _BAR_PIXELS + _MARGIN_PIXELS
    said = "\n".join("".join(span.text for span in line).rstrip() for line in lines)
    size = f'viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}"'
    ground = f'width="{width - 1:g}" height="{height - 1}" rx="8" fill="#0d1117" stroke="#3d444d"'
    font = "font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; white-space: pre"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(said)}</desc>',
        f"<style>text {{ {font} }} .bold {{ font-weight: 700 }}</style>",
        f'<rect x="0.5" y="0.5" {ground}/>',
    ]
    dots = (f'<circle cx="{x}" cy="17" r="6" fill="{fill}"/>' for x, fill in _BUTTONS)
    texts = (_text(span, number) for number, line in enumerate(lines) for span in line)
    return "\n".join([*head, *dots, *texts, "</svg>\n"])


def _text(span: Span, line: int) -> str:
    x, y = _MARGIN_PIXELS + span.column * _CHARACTER_PIXELS, _BAR_PIXELS + (line + 1) * _LINE_PIXELS - 5
    # The length is given, as fonts differ in width and the columns have to stand below one another.
    length = f'textLength="{len(span.text) * _CHARACTER_PIXELS:g}" lengthAdjust="spacingAndGlyphs"'
    bold = ' class="bold"' if span.bold else ""
    return f'<text x="{x:g}" y="{y}" {length} fill="{_COLOURS[span.colour]}"{bold}>{escape(span.text)}</text>'


class Terminal:
    """A screen that shows what a program writes to a pseudo-terminal."""

    def __init__(self) -> None:
        import pyte

        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)

    def show(self, text: str) -> None:
        """Write a line."""
        self._stream.feed(f"{text}\r\n".encode())

    def run(self, command: Sequence[str], environment: Any, until: threading.Event) -> int:
        """Run a command to its end, and kill it when ``until`` is set; returns its status."""
        ours, theirs = pty.openpty()
        ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        threading.Thread(target=lambda: until.wait() and process.kill(), daemon=True).start()
        try:
            while True:
                self._stream.feed(os.read(ours, 65536))
        except OSError:  # the program has ended
            return process.wait()
        finally:
            os.close(ours)

    def lines(self) -> List[List[Span]]:
        """The lines of the screen, without empty ones at the end."""
        lines = [list(_spans(self._screen.buffer[row])) for row in range(ROWS)]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def _spans(row: Any) -> Iterable[Span]:
    cells = [row[column] for column in range(COLUMNS)]
    while cells and cells[-1].data == " ":
        cells.pop()
    for (colour, bold), group in groupby(enumerate(cells), key=lambda cell: (cell[1].fg, cell[1].bold)):
        found = list(group)
        text = "".join(cell.data for _, cell in found)
        if text.strip():
            yield Span(found[0][0], text, colour if colour in _COLOURS else "default", bold)


def record(folder: Path) -> List[List[Span]]:
    """Run, kill and run again in ``folder``; returns what the terminal shows then."""
    from chatpool.testing import FakeServer, Faults

    half = threading.Event()

    def reply(body: Any) -> str:
        if len(server.requests) > PROMPTS * 0.75:
            half.set()
        return str(body["messages"][-1]["content"])

    prompts = (json.dumps({"prompt": f"question {number}"}) for number in range(PROMPTS))
    (folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    terminal = Terminal()
    faults = Faults({503: 0.08, 429: 0.06, "reset": 0.06}, seed=1)
    with FakeServer(reply=reply, faults=faults, latency=0.12) as server:
        environment = {**os.environ, "OPENAI_BASE_URL": server.base_url, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        command = [sys.executable, "-m", *COMMAND.replace("chatpool", "chatpool.cli", 1).split(), *ARGUMENTS]
        os.chdir(folder)
        for until, after in ((half, "Killed"), (threading.Event(), "")):
            terminal.show(f"\x1b[1m$ {COMMAND}\x1b[0m")
            terminal.run(command, environment, until)
            if after:
                terminal.show(f"\r\n{after}")
    return terminal.lines()


def main() -> None:
    """Write the picture."""
    sys.path.insert(0, str(ROOT))
    folder = Path(tempfile.mkdtemp(prefix="chatpool-picture-"))
    try:
        PICTURE.write_text(svg(record(folder), TITLE), encoding="utf-8")
    finally:
        shutil.rmtree(folder)
    print(PICTURE)


if __name__ == "__main__":
    main()
