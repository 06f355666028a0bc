"""Draws the pictures of the documentation: ``python scripts/pictures`` writes docs/images/*.svg."""

from __future__ import annotations

from pathlib import Path

import calls
import runs

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
PICTURES = {
    "call-life": calls.call_life,
    "parked": calls.parked,
    "time-limits": calls.time_limits,
    "what-ends": calls.what_ends,
    "resumed": runs.resumed,
    "circuit-breaker": runs.circuit_breaker,
    "backoff": runs.backoff,
    "packages": runs.packages,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
        print(FOLDER / f"{name}.svg")
