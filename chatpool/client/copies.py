"""Copies of a pool for other processes of the same run."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any, Iterator, List, Optional

from ..config import Limits
from ..errors import ConfigurationError
from ..quota import PrivateScope
from .pickling import restore
from .pool import ChatPool

__all__ = ["PackedPools", "unpacked_pool"]


class PackedPools:
    """A pool several times over, to be made again in child processes.

    Its workers are shared out among them, and its limits hold for all of them together: through a file that is gone
    when this is closed.  Its budget stays behind, for the parent to ask.  The bytes hold the key: they are for the
    pipe to a child, and for nothing else.

    Args:
        pool: the pool.
        count: how many processes there are.

    Raises:
        ConfigurationError: it holds something that cannot be sent to another process.
    """

    def __init__(self, pool: ChatPool, count: int) -> None:
        self._scope: Optional[PrivateScope] = None
        arguments = {**pool._origin.arguments, "budget": None}
        arguments["limits"] = self._shared(arguments.get("limits"), count)
        if arguments.get("endpoints") is not None:
            arguments["endpoints"] = [
                endpoint._for_child(self._shared(endpoint.limits, count)) for endpoint in arguments["endpoints"]
            ]
        workers = pool._core.engine.max_workers
        shares = [max(1, workers // count + (place < workers % count)) for place in range(count)]
        origins = [replace(pool._origin, arguments={**arguments, "max_workers": share}) for share in shares]
        try:
            self._packed: List[bytes] = [pickle.dumps((origin, pool._defaults)) for origin in origins]
        except Exception as error:
            self.close()
            raise ConfigurationError(
                f"several processes need a pool that can be sent to them, and this one cannot: {error}; "
                "leave out processes"
            ) from error

    def _shared(self, limits: Optional[Limits], count: int) -> Optional[Limits]:
        """The limits as each of the processes gets them."""
        if limits is None or limits.scope is not None:
            return limits
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            return limits
        self._scope = self._scope or PrivateScope()
        if self._scope.name is not None:
            return _changed(limits, 1, self._scope.name)
        return _changed(limits, count, None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._packed)

    def close(self) -> None:
        """Remove what the processes shared."""
        if self._scope is not None:
            self._scope.close()


def _changed(limits: Limits, parts: int, scope: Optional[str]) -> Limits:
    """One of ``parts`` equal shares of the limits, in this scope."""

    def share(limit: Optional[float]) -> Any:
        return None if limit is None else max(1, limit / parts)

    return Limits(
        requests_per_minute=share(limits.requests_per_minute),
        tokens_per_minute=share(limits.tokens_per_minute),
        burst=limits.burst,
        scope=scope,
    )


def unpacked_pool(data: bytes) -> ChatPool:
    """The pool again."""
    return restore(*pickle.loads(data))  # noqa: S301 - from this run's own parent process, through its pipe
