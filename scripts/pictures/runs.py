"""Pictures of runs and servers: going on after a kill, circuit breaker, waits, the packages."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from drawing import WIDTH, Picture, drawn

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "architecture.md"
_ROW = re.compile(r"^\| (\d) \| `(\w+(?:\.py|/))` \|", re.MULTILINE)


@drawn(300)
def resumed(picture: Picture) -> None:
    """A run that is killed and goes on.

    The first run has answers to seven of twelve rows in the journal, and two in flight, when it is killed. The
    same command again takes the seven from the journal, sends the two once more and the other three for the
    first time, and writes all twelve answers to the output.
    """

    def rows(top: float, kinds: List[str]) -> None:
        for number, kind in enumerate(kinds):
            x = 20 + number * 43.5
            picture.rect(x, top, 38, 30, kind, 4)
            picture.text(x + 19, top + 20, str(number + 1), "small", "middle")

    picture.text(20, 32, "chatpool run", "bold")
    picture.text(540, 32, "kill -9", "bold red", "end")
    rows(44, ["green"] * 7 + ["amber"] * 2 + ["grey"] * 3)
    picture.text(20, 93, "answered", "small green")
    picture.text(324, 93, "in flight", "small amber")
    picture.text(411, 93, "not sent", "small soft")
    picture.arrow((170, 100), (170, 122))
    picture.rect(20, 124, 299, 34, "blue")
    picture.text(170, 146, "journal: 7 answers, on disk", "small", "middle")
    picture.arrow((170, 158), (170, 180))
    picture.text(20, 200, "the same command again", "bold")
    rows(212, ["green"] * 7 + ["amber"] * 2 + ["blue"] * 3)
    picture.text(20, 261, "from the journal, not sent", "small green")
    picture.text(324, 261, "sent again", "small amber")
    picture.text(411, 261, "sent", "small blue")
    picture.text(20, 285, "12 answers in the output, none missing, none twice", "small")


@drawn(235)
def circuit_breaker(picture: Picture) -> None:
    """The circuit breaker of a server and model.

    Closed: calls are sent. When everything fails, five calls alone in a row among them, it opens: no call is
    sent, and waiting costs no retry. About once a second it is half open: one probe is sent. A probe that fails
    opens it again, one that succeeds closes it, and the pool begins with slow start. After max_outage the run
    ends.
    """
    picture.box(20, 30, 130, 54, "closed", "green")
    picture.box(410, 30, 130, 54, "open", "red")
    picture.box(215, 140, 130, 54, "half open", "amber")
    picture.arrow((150, 50), (410, 50))
    picture.text(280, 42, "everything fails, single calls too", "small soft", "middle")
    picture.arrow((500, 84), (500, 167), (345, 167))
    picture.lines(492, 108, ["once a second:", "one probe"], anchor="end")
    picture.arrow((345, 183), (525, 183), (525, 84))
    picture.text(405, 200, "the probe fails", "small soft")
    picture.arrow((215, 167), (85, 167), (85, 84))
    picture.lines(95, 108, ["the probe succeeds:", "slow start"])
    picture.text(20, 22, "calls are sent", "small green")
    picture.text(540, 22, "no call is sent, no retry is used up", "small red", "end")
    picture.text(20, 222, "open for longer than max_outage (600 s): the run ends", "small soft")


@drawn(310)
def backoff(picture: Picture) -> None:
    """Waits before each retry of one call.

    Seconds on a logarithmic scale, for the first to the eighth retry. While other calls succeed chatpool waits
    between 0.06 and 0.13 seconds at first, and up to 2 seconds at the eighth. When everything fails the waits
    double from the beginning, to 16 seconds at most. wait_random_exponential(min=1, max=60), the usual recipe,
    waits from 1 up to 60.
    """

    def height(seconds: float) -> float:
        return 245 - (math.log10(seconds) + 1.5) * 66

    for seconds in (0.1, 1.0, 10.0, 60.0):
        picture.line((60, height(seconds)), (540, height(seconds)))
        picture.text(52, height(seconds) + 4, f"{seconds:g} s", "small soft", "end")
    kinds = {"others succeed": "green", "everything fails": "amber", "the usual recipe": "grey"}
    for retry in range(8):
        x = 72 + retry * 58
        for number, (case, kind) in enumerate(kinds.items()):
            low, high = _waits(retry)[case]
            top = height(high)
            picture.rect(x + number * 16, top, 13, max(3.0, height(low) - top), kind, 2)
        picture.text(x + 22, 266, str(retry + 1), "small", "middle")
    picture.text(20, 266, "retry", "small soft")
    for x, (case, kind) in zip((60, 205, 365), kinds.items()):
        picture.rect(x, 282, 14, 14, kind, 3)
        picture.text(x + 20, 294, case, "small")


def _waits(retry: int) -> Dict[str, Tuple[float, float]]:
    """The shortest and the longest wait before a retry, counted from 0; docs/explanation/retries.md has the formula."""
    expected, initial = 3, 0.25
    calm, troubled = (initial / 2 * 2**e for e in (max(0, retry - expected), retry))
    return {
        "others succeed": (calm / 2, calm),
        "everything fails": (troubled / 2, troubled),
        "the usual recipe": (1.0, min(60.0, 2.0**retry)),
    }


def packages() -> Picture:
    """The packages by layer, as the table of the architecture page has them."""
    layers: Dict[int, List[str]] = {}
    for layer, name in _ROW.findall(ARCHITECTURE.read_text(encoding="utf-8")):
        layers.setdefault(int(layer), []).append(name)
    downwards = sorted(layers.items(), reverse=True)
    words = "; ".join(f"{layer}: {', '.join(names)}" for layer, names in downwards)
    height = sum(map(_height, layers.values())) + 50
    picture = Picture(WIDTH, height, "The packages, by layer", f"A package imports from lower layers only. {words}.")
    top = 16
    for layer, names in downwards:
        is_private = all(re.match("_[a-z]", name) for name in names)
        picture.rect(16, top, WIDTH - 32, _height(names) - 6, "blue" if is_private else "green" if layer else "grey")
        picture.text(28, top + 22, str(layer), "small soft")
        for number, name in enumerate(names):
            picture.text(56 + number % 4 * 122, top + 22 + 24 * (number // 4), name, "small")
        top += _height(names)
    legend = "Imports go down. Green: public. Blue: private. Grey: any may import these."
    picture.text(16, top + 18, legend, "small soft")
    return picture


def _height(names: Sequence[str]) -> int:
    return 40 + 24 * (math.ceil(len(names) / 4) - 1)
