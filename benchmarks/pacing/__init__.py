"""Pacing: the same kinds of server simulated on a clock of their own, and on real sockets."""

from __future__ import annotations

from typing import List, Sequence

from ..measure import Sample
from ..tables import Table

__all__ = ["measure", "tables"]


def measure(quick: bool) -> List[Sample]:
    """Random servers first, then the six of the targets."""
    from .live import measure_live
    from .plot import write_plots
    from .sweep import measure_sweep

    samples = [*measure_sweep(quick), *measure_live(quick)]
    if not quick:
        write_plots(samples)  # for docs/explanation/pacing.md
    return samples


def tables(samples: Sequence[Sample]) -> List[Table]:
    """What they show."""
    from .report import pacing_tables

    return pacing_tables(samples)
