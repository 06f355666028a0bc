"""Rounds, ratios and their spread: the arithmetic of the benchmarks, without any measuring."""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, Hashable, Iterable, List, Mapping, NamedTuple, Sequence, TypeVar

__all__ = ["Sample", "Spread", "grouped", "ratios", "rotated", "rounds", "set_rounds", "spread"]

T = TypeVar("T")

Sample = Mapping[str, Any]
"""One measurement as it is stored: a flat dict of JSON values with the number of its ``round``."""


_chosen: List[int] = []  # by the command line


def set_rounds(number: int) -> None:
    """Set the number of rounds of every benchmark."""
    _chosen[:] = [number]


def rounds(usual: int) -> int:
    """Return the number of rounds of the command line, else the usual one."""
    return _chosen[0] if _chosen else usual


class Spread(NamedTuple):
    """The middle and the ends of a series of measurements."""

    median: float
    low: float
    high: float

    def show(self, digits: int = 2, scale: float = 1.0) -> str:
        """For a table: ``median (low - high)``."""
        middle, low, high = (f"{value * scale:,.{digits}f}" for value in self)
        return f"{middle} ({low} - {high})"


def spread(values: Iterable[float]) -> Spread:
    """The spread of at least one value."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found))


def rotated(items: Sequence[T], turn: int) -> List[T]:
    """``items`` begun at another place each turn: none is always the first."""
    start = turn % len(items) if items else 0
    return [*items[start:], *items[:start]]


def grouped(samples: Iterable[Sample], *keys: str) -> Dict[Hashable, List[Sample]]:
    """Samples by the value (or the tuple of values) of ``keys``, in the order of their first appearance."""
    groups: Dict[Hashable, List[Sample]] = {}
    for sample in samples:
        found = tuple(sample.get(key) for key in keys)
        groups.setdefault(found if len(keys) > 1 else found[0], []).append(sample)
    return groups


def ratios(samples: Iterable[Sample], reference: Iterable[Sample], value: Callable[[Sample], float]) -> List[float]:
    """Per round, the ``value`` of the sample over that of the reference; rounds that lack one of them are left out."""
    base = {sample["round"]: value(sample) for sample in reference}
    return [value(sample) / base[sample["round"]] for sample in samples if sample["round"] in base]
