"""Millions of rows over many hosts: what the parts cost, measured, and the whole of it, simulated."""

from __future__ import annotations

from typing import List, Sequence

from ..measure import Sample
from ..tables import Table

__all__ = ["measure", "tables"]


def measure(quick: bool) -> List[Sample]:
    """Files and Redis, then the simulations; about half a minute each.

    Raises:
        RuntimeError: there is no redis-server, or the package redis is missing.
    """
    from .files import measure_files
    from .redis_costs import measure_redis
    from .simulations import simulate_all

    return [*measure_redis(quick), *measure_files(quick), *simulate_all(quick)]


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Return their tables."""
    from .report import scale_tables

    return scale_tables(samples)
