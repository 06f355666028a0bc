"""Hosts of a simulated job in the order of time: they take shards, die, and others take what they have left."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from typing import Any, Callable, Deque, Generic, Iterable, List, Tuple, TypeVar

from .job import Job, Ran

__all__ = ["Host", "Hosts"]


class Host:
    """A host that runs one shard at a time."""

    def __init__(self) -> None:
        self.life = 0  # counts deaths: what was to happen before one does not any more


H = TypeVar("H", bound=Host)


class Hosts(Generic[H]):
    """Base of both simulations.

    Args:
        job: the job.
        shards: its shards.

    Attributes:
        ran: the figures.
    """

    def __init__(self, job: Job, shards: Iterable[Any]) -> None:
        self._job = job
        self._chance = random.Random(job.seed)
        self._now = 0.0
        self._order = itertools.count()
        self._timers: List[Tuple[float, int, int, H, Callable[[H], None]]] = []
        self._shards: Deque[Any] = deque(shards)
        self._idle: List[H] = []
        self.ran = Ran()

    def _new_host(self, number: int) -> H:
        raise NotImplementedError

    def _hold(self, host: H, shard: Any) -> None:
        """Let a host have a shard, or nothing; what it had before is gone."""
        raise NotImplementedError

    def _begin(self, host: H) -> None:
        """Let a host send the rows of its shard."""
        raise NotImplementedError

    def _lose(self, host: H) -> Any:
        """Count what a host that dies has sent, and return the rest of its shard; None without one."""
        raise NotImplementedError

    def _after(self, seconds: float, host: H, action: Callable[[H], None]) -> None:
        if seconds < math.inf:
            heapq.heappush(self._timers, (self._now + seconds, next(self._order), host.life, host, action))

    def _start_all(self) -> None:
        for number in range(self._job.hosts):
            self._start(self._new_host(number))

    def _start(self, host: H) -> None:
        self._after(self._job.life(self._chance), host, self._die)
        self._take_shard(host)

    def _take_shard(self, host: H) -> None:
        if not self._shards:
            self._idle.append(host)
            return
        self._hold(host, self._shards.popleft())
        self._after(self._job.shard_start_seconds, host, self._begin)

    def _die(self, host: H) -> None:
        self.ran.deaths += 1
        rest = self._lose(host)
        if host in self._idle:
            self._idle.remove(host)
        host.life += 1
        self._hold(host, None)
        self._after(self._job.host_return_seconds, host, self._start)
        if rest is not None:
            self._after(self._job.takeover_seconds, self._new_host(-1), lambda _: self._release(rest))

    def _release(self, shard: Any) -> None:
        """Let another host take the shard of one that died."""
        self.ran.takeovers += 1
        self._shards.appendleft(shard)
        if self._idle:
            self._take_shard(self._idle.pop())
