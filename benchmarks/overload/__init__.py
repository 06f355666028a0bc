"""Servers that are too busy, as real ones say it, and gateways that refuse at random."""

from __future__ import annotations

from typing import List, Sequence

from ..measure import Sample
from ..tables import Table

__all__ = ["measure", "tables"]


def measure(quick: bool) -> List[Sample]:
    """Every row, round by round."""
    from .trials import measure_trials

    return measure_trials(quick)


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Return their tables."""
    from .report import overload_tables

    return overload_tables(samples)
