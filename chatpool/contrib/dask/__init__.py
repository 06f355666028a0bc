"""Dask: the shards of a large file as tasks of a cluster, which lose nothing when workers come and go.

Each task is a batch run with a journal of its own (:mod:`chatpool.batch.shards`)::

    from chatpool.batch import shards
    from chatpool.contrib.dask import run

    plan = shards.split("big.jsonl", "/shared/work")
    result = run(plan, client, output="big.answers.jsonl", model="gpt-4o-mini")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .shard_queue import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    # distributed takes a second to import: a program that only names this package need not wait for it.
    if name == "run":
        from .shard_queue import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
