"""Results on disk: one JSON file per benchmark, and RESULTS.md, which is rendered from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

from .measure import Sample
from .tables import Table, markdown

__all__ = ["HERE", "load", "render", "save", "write"]

HERE = Path(__file__).resolve().parent

_HEAD = """# Results

Written by `make bench` (`python -m benchmarks`) from the measurements in `results/`; not to be edited by hand.
Ratios are taken within a round, in which the contenders run one after the other; a cell shows the median over the
rounds and, in brackets, the least and the greatest. CPU is user and system time of the client's process.
"""


def save(name: str, machine: Mapping[str, str], samples: Sequence[Sample], folder: Path = HERE) -> Path:
    """Store a benchmark's measurements; those of the others stay."""
    path = folder / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(sample)}" for sample in samples)
    facts = json.dumps(dict(machine), indent=1)
    write(path, f'{{"machine": {facts},\n"samples": [\n{lines}\n]}}\n')
    return path


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all: a run may be killed at any moment."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(name: str, folder: Path = HERE) -> Dict[str, Any]:
    """Return what :func:`save` has stored: ``machine`` and ``samples``; empty without a file."""
    path = folder / "results" / f"{name}.json"
    loaded: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return loaded


def render(sections: Sequence[Any], tables: Callable[[Any, Sequence[Sample]], List[Table]], folder: Path = HERE) -> str:
    """RESULTS.md out of all that is stored.

    Args:
        sections: the benchmarks in their order; each has ``name`` and ``summary``.
        tables: makes a benchmark's tables of its samples.
        folder: where ``results/`` is.
    """
    parts = [_HEAD]
    for section in sections:
        stored = load(section.name, folder)
        if stored:
            parts.append(f"## {section.name}: {section.summary}\n")
            parts.append("\n".join(f"- {name}: {fact}" for name, fact in stored["machine"].items()) + "\n")
            parts += [markdown(table) for table in tables(section, stored["samples"])]
    return "\n".join(parts)
