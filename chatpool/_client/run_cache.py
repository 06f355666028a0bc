"""The cache of a pool for the calls of one run, whose identical requests are numbered."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from .._engine import Call, CallOptions
from .._journal import DigestTable
from .._wire.operations import may_be_cached
from ..types import ChatRequest, Outcome
from .answer_cache import AnswerCache
from .cache_keys import CacheKey

__all__ = ["RunCache"]


class RunCache:
    """The cache of a pool, for one run: the second of two identical requests has an answer of its own.

    Args:
        cache: of the pool.
        occurrence_of: returns the number of an item among those with the same request, from 0, where that is known
            already; or None, and the item has no answer in the cache. Default: it is counted.

    Attributes:
        forgets: whether the run is never retried, and may be endless.
        occurrences: by the places of items: the numbers that were counted and are not 0; empty for a run that forgets.
    """

    def __init__(self, cache: AnswerCache, occurrence_of: Optional[Callable[[Any], Optional[int]]] = None) -> None:
        self.cache = cache
        self._occurrence_of = occurrence_of
        self._counts = DigestTable()
        self.forgets = False
        self.occurrences: Dict[int, int] = {}

    def note(self, call: Call) -> None:
        """Note in a call what it is known by."""
        call.cache_key = self._key_of(call.item, call.index, lambda number: self.cache.keys.of_call(call, number))

    def outcome_of(self, call: Call) -> Optional[Outcome[Any]]:
        """As :meth:`AnswerCache.outcome_of`."""
        return self.cache.outcome_of(call)

    def keep(self, call: Call, outcome: Outcome[Any]) -> None:
        """As :meth:`AnswerCache.keep`."""
        self.cache.keep(call, outcome)

    def key_of_row(self, request: ChatRequest, options: CallOptions, item: Any, index: int) -> Optional[CacheKey]:
        """Return what the request of one row is known by, which may go out together with others."""
        if not may_be_cached(request):
            return None
        return self._key_of(item, index, lambda number: self.cache.keys.of_request(request, options, number))

    def _key_of(self, item: Any, index: int, make_key: Callable[[int], Optional[CacheKey]]) -> Optional[CacheKey]:
        if self._occurrence_of is not None:
            occurrence = self._occurrence_of(item)
            key = None if occurrence is None else make_key(occurrence)
        else:
            key = make_key(0)
            occurrence = 0 if key is None else self._count(key)
            key = make_key(occurrence) if occurrence else key
            if occurrence and not self.forgets:
                self.occurrences[index] = occurrence
        return key

    def _count(self, key: CacheKey) -> int:
        """Return how many identical requests there were before."""
        short = int.from_bytes(next(iter(key.digests.values()))[:8], "big") or 1
        before = self._counts.get(short)
        self._counts[short] = before + 1
        return before
