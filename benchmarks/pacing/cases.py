"""Servers that are not random, simulated, and what is promised for each."""

from __future__ import annotations

import random
from functools import partial
from typing import Callable, List, Mapping, NamedTuple, Optional, Sequence

from .servers import Bucket, Cap, Server, Shaper, Unlimited
from .simulation import Client, Draw, Pacing, World, simulate

__all__ = [
    "AT_RANDOM",
    "FLAPPING",
    "LIMITERS",
    "PAIRS",
    "QUEUES",
    "AtRandom",
    "Flapping",
    "Limiter",
    "Pair",
    "Queue",
    "about",
    "accepted_after",
    "sends_between",
    "steady",
]


def about(seconds: float) -> Draw:
    """So many seconds, give or take a twentieth."""

    def draw(rng: random.Random) -> float:
        return seconds * rng.uniform(0.95, 1.05)

    return draw


def steady(seconds: float) -> Draw:
    """So many seconds, or a little more."""

    def draw(rng: random.Random) -> float:
        return seconds * rng.uniform(1.0, 1.05)

    return draw


def sends_between(client: Client, begin: float, end: float) -> int:
    """Attempts that were made from ``begin`` until ``end``."""
    return sum(begin <= sent < end for sent in client.sends)


def accepted_after(client: Client, start: float) -> int:
    """Attempts made since ``start`` that were not rejected."""
    return sum(sent >= start for sent in client.sends) - sum(rejected >= start for rejected in client.rejections)


class Limiter(NamedTuple):
    """A limiter that people put in front of a model, and its promise.

    Attributes:
        world: the server; it says 503.
        calls: how many there are.
        seconds: of the ideal.
        over: the multiple of it that is promised.
        rejected: rejections at most.
    """

    world: World
    calls: int
    seconds: float
    over: float
    rejected: int


LIMITERS: Mapping[str, Limiter] = {
    "nginx limit_req": Limiter(
        World(partial(Shaper, 5, 2), about(0.2), hint=None, says="unavailable"), 100, 19.4, 1.15, 100
    ),
    "nginx limit_conn": Limiter(World(partial(Cap, 3), about(0.2), hint=None, says="unavailable"), 100, 6.7, 1.3, 60),
    "haproxy": Limiter(
        World(Unlimited, about(0.2), hint=None, says="unavailable", slots=4, patience=0.5), 200, 10.0, 1.3, 100
    ),
}


class Queue(NamedTuple):
    """A queue in which calls of all workers wait for longer than they are waited for."""

    slots: int
    latency: float
    gives_up: float
    workers: int

    def world(self) -> World:
        """The server."""
        return World(Unlimited, about(self.latency), slots=self.slots, gives_up=self.gives_up)


QUEUES: Sequence[Queue] = (Queue(4, 1.0, 10.0, 64), Queue(8, 0.5, 3.0, 64), Queue(16, 1.0, 2.5, 100))


class AtRandom(NamedTuple):
    """A gateway that rejects a share of all calls whatever their pace, and its promise.

    Attributes:
        share: the share.
        hint: what rejections say.
        over: the multiple of the time without rejections for 1,200 calls ...
        over_many: ... and for 6,000.
    """

    share: float
    hint: Optional[str]
    over: float
    over_many: float

    def world(self) -> World:
        """The server."""
        return World(Unlimited, about(0.2), hint=self.hint, hint_fallback=0.25, chance=self.share)


AT_RANDOM: Sequence[AtRandom] = (
    AtRandom(0.05, "exact", 1.5, 1.3),
    AtRandom(0.15, None, 2.0, 1.3),
    AtRandom(0.05, "whole", 2.0, 1.3),
    AtRandom(0.3, None, 3.0, 1.6),
)


class Flapping(NamedTuple):
    """A server that fails every call for a moment, again and again, and answers all of them in between.

    Attributes:
        workers: calls in flight.
        failing: seconds that it takes to fail; an answer takes 0.05.
        used: the share of what it could answer in between that is promised.
        hint: seconds for which its failures ask to wait, longer than they last; None where they do not.
    """

    workers: int
    failing: float
    used: float
    hint: Optional[float] = None

    def __str__(self) -> str:
        asks = "" if self.hint is None else f", asks for {self.hint:g} s"
        return f"C={self.workers}, fails within {self.failing:g} s{asks}"

    def share_used(self, pacing: Pacing) -> float:
        """The share that a pool with this pacing makes of it, in eight times 0.7 seconds down and 1.3 up."""
        begin, down, period, latency = 5.0, 0.7, 2.0, 0.05
        times = [begin + number * period for number in range(8)]
        away = tuple((time, time + down) for time in times)
        end = times[-1] + period
        hint, asked = (None, 0.0) if self.hint is None else ("whole", self.hint)
        world = World(
            Unlimited, steady(latency), rejecting=lambda rng: self.failing, hint=hint, hint_fallback=asked, down=away
        )
        client = Client(pacing, int(2 * end * self.workers / latency), self.workers)
        simulate(world, [client], 0, until=end)
        return accepted_after(client, begin) / (len(times) * (period - down) * self.workers / latency)


FLAPPING: Sequence[Flapping] = (
    Flapping(16, 0.001, 0.9),
    Flapping(100, 0.001, 0.85),
    Flapping(16, 0.05, 0.6),
    Flapping(100, 0.05, 0.55),
    Flapping(16, 0.05, 0.55, 2.0),
    Flapping(100, 0.05, 0.45, 2.0),
)


class Pair(NamedTuple):
    """A server that two pools use, and its promise.

    Attributes:
        server: makes its limit.
        latency: seconds that an answer takes.
        calls: of each pool.
        together: how many times as long the slower of two takes that begin together, at most ...
        whole: ... and where hints are in whole seconds.
        latecomer: the largest share of one that comes later; that of the other is no smaller than a quarter.
        runs: of which the median is taken: where few calls are rejected they differ much.
    """

    server: Callable[[], Server]
    latency: float
    calls: int
    together: float = 1.3
    whole: float = 1.5
    latecomer: float = 0.75
    runs: int = 15

    def world(self, hint: Optional[str]) -> World:
        """The server, as somebody on a busy machine sees it."""
        return World(self.server, steady(self.latency), hint=hint, lateness=0.002)

    def pools(self, first: Pacing, second: Pacing, seed: int) -> List[Client]:
        """Two pools that begin at nearly the same time."""
        return [Client(first, self.calls, 100), Client(second, self.calls, 100, starts=seed % 10 * 0.005)]

    def ratio(self, pools: Sequence[Client]) -> float:
        """How many times as long the slower took."""
        first, second = (pool.ended - pool.starts for pool in pools)
        return max(first, second) / min(first, second)


PAIRS: Mapping[str, Pair] = {
    "50 a second": Pair(partial(Bucket, 50, 50), 0.05, 500),
    "10 a second": Pair(partial(Bucket, 10, 10), 0.05, 150, together=1.4, whole=1.7, runs=60),
    "200 a second": Pair(partial(Bucket, 200, 200), 0.05, 2000, runs=60),
    "30 a second, slow answers": Pair(partial(Bucket, 30, 30), 1.0, 450),
    "20 at once": Pair(partial(Cap, 20), 0.25, 800, together=1.6, whole=1.7, runs=60),
    "64 at once, slow answers": Pair(partial(Cap, 64), 1.0, 1000, together=1.5),
}
