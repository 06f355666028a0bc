"""Calls accepted and rejected over time, as drawings for the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import List, Mapping, Sequence

from ..measure import Sample
from ..store import HERE
from .scenarios import SCENARIOS

__all__ = ["draw", "write_plots"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 240, 48, 20, 28, 34
_ACCEPTED, _REJECTED, _INK = "#4477aa", "#ee6677", "#555"
_STEP = 0.5  # seconds per bar


def write_plots(samples: Sequence[Sample], folder: Path = HERE.parent / "docs" / "explanation") -> List[Path]:
    """One drawing per server whose timeline was kept, of its first round."""
    written = {}
    for sample in samples:
        if sample.get("timeline") and sample["hint"] == "exact" and not sample["headers"]:
            path = folder / f"pacing-{sample['scenario']}.svg"
            if path not in written:
                written[path] = draw(SCENARIOS[sample["scenario"]].title, sample["timeline"])
    for path, drawing in written.items():
        path.write_text(drawing, encoding="utf-8")
    return list(written)


def draw(title: str, timeline: Mapping[str, Sequence[int]], step: float = _STEP) -> str:
    """Bars of calls per second, rejected ones on top of accepted ones.

    Args:
        title: what was called.
        timeline: how many calls were ``"accepted"`` and ``"refused"`` in each step.
        step: seconds per bar.
    """
    accepted, rejected = timeline["accepted"], timeline["refused"]
    most = max(a + r for a, r in zip(accepted, rejected)) / step
    across = (_WIDTH - _LEFT - _RIGHT) / len(accepted)
    up = (_HEIGHT - _TOP - _BOTTOM) / most
    bottom = _HEIGHT - _BOTTOM
    frame = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-family="sans-serif" font-size="12" fill="{_INK}"'
    legend = f'<tspan fill="{_ACCEPTED}">accepted</tspan>, <tspan fill="{_REJECTED}">rejected</tspan>'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>',
        f"<title>{title}: calls per second, accepted and rejected</title>",
        f'<text x="{_LEFT}" y="16">{title}: calls per second ({legend})</text>',
    ]
    for number, counts in enumerate(zip(accepted, rejected)):
        y = float(bottom)
        for count, color in zip(counts, (_ACCEPTED, _REJECTED)):
            height = count / step * up
            y -= height
            if count:
                x = _LEFT + number * across
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{across - 1:.1f}" height="{height:.1f}" fill="{color}"/>'
                )
    parts += _axes(len(accepted) * step, most, bottom, across / step, up)
    return "\n".join([*parts, "</svg>\n"])


def _axes(seconds: float, most: float, bottom: int, across: float, up: float) -> List[str]:
    shapes = [f'<line x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH - _RIGHT}" y2="{bottom}" stroke="{_INK}"/>']
    for second in range(0, int(seconds) + 1, 5 if seconds > 10 else 1):
        x = _LEFT + second * across
        shapes.append(f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{second} s</text>')
    for rate in _marks(most):
        y = bottom - rate * up
        shapes.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="{_INK}" opacity="0.2"/>'
        )
        shapes.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{rate}</text>')
    return shapes


def _marks(most: float) -> List[int]:
    return list(range(0, int(most) + 1, 20 if most <= 120 else 50 if most <= 400 else 100))


def main() -> None:
    """Draw again from what is stored."""
    from ..store import load

    for path in write_plots(load("pacing").get("samples", [])):
        print(path)


if __name__ == "__main__":
    main()
