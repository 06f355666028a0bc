"""Copies of a pool for other processes of the same run."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import List

from ..errors import ConfigurationError
from .pickling import restore
from .pool import ChatPool

__all__ = ["packed_pools", "unpacked_pool"]


def packed_pools(pool: ChatPool, count: int) -> List[bytes]:
    """The pool ``count`` times, to be made again in child processes; its workers are shared out among them.

    The bytes hold the key: they are for the pipe to a child, and for nothing else.

    Raises:
        ConfigurationError: it holds something that cannot be sent to another process.
    """
    workers = pool._core.engine.max_workers
    shares = [max(1, workers // count + (place < workers % count)) for place in range(count)]
    given = pool._origin.arguments
    origins = [replace(pool._origin, arguments={**given, "max_workers": share}) for share in shares]
    try:
        return [pickle.dumps((origin, pool._defaults)) for origin in origins]
    except Exception as error:
        raise ConfigurationError(
            f"several processes need a pool that can be sent to them, and this one cannot: {error}; leave out processes"
        ) from error


def unpacked_pool(data: bytes) -> ChatPool:
    """The pool again."""
    return restore(*pickle.loads(data))  # noqa: S301 - from this run's own parent process, through its pipe
