"""The six servers of the targets, and how they are tried."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from .servers import Bucket, Cap, Server
from .simulation import Client, World, ideal

__all__ = ["SCENARIOS", "Scenario", "tokens_of"]


class Scenario(NamedTuple):
    """One kind of server and the calls to it.

    Attributes:
        title: what the report calls it.
        server: makes the server's limit.
        latency: seconds that an answer takes.
        calls: how many there are.
        workers: calls in flight at most.
        over: the target: seconds, as a multiple of the ideal.
        rejected: the target: rejections, as a share of the calls; None for no target.
        hint: the hint of a limit that cannot know when there will be room, in seconds.
        limits: the settings of :class:`chatpool.Limits` that name the server's own limit, None where there is none.
        tokens: whether the limit is one of tokens.
    """

    title: str
    server: Callable[[], Server]
    latency: float
    calls: int
    workers: int
    over: float
    rejected: Optional[float]
    hint: float = 0.25
    limits: Optional[Mapping[str, Any]] = None
    tokens: bool = False

    def ideal(self) -> float:
        """Seconds that somebody needs who knows the limit."""
        return self._ideal(self.server)

    def ideal_within_windows(self) -> float:
        """The same for somebody who takes it for a limit of any minute, and bursts with a second's worth."""
        assert self.limits is not None
        (per_minute,) = self.limits.values()
        burst = per_minute / 60
        unit = 0.0 if self.tokens else 1.0
        return self._ideal(lambda: Bucket((per_minute - burst + unit) / 60, burst))

    def _ideal(self, server: Callable[[], Server]) -> float:
        sizes = tokens_of(self.calls) if self.tokens else [1] * self.calls
        numbers = iter(sizes)
        world = World(server, lambda draw: self.latency)
        return ideal(world, Client(None, self.calls, self.workers, lambda draw: next(numbers)))  # type: ignore[arg-type]


def tokens_of(calls: int) -> List[int]:
    """The tokens of each call: of very different size, and always the same."""
    rng = random.Random(5)
    return [int(min(8000, 400 * rng.lognormvariate(0, 1.2))) + 20 for _ in range(calls)]


def _rate(requests_per_second: float) -> Dict[str, Any]:
    return {"requests_per_minute": requests_per_second * 60}


def _tokens(title: str, per_second: int, burst: int, over: float) -> Scenario:
    limits = {"tokens_per_minute": per_second * 60}
    server = partial(Bucket, per_second, burst)
    return Scenario(title, server, 0.05, 600, 100, over, None, limits=limits, tokens=True)


SCENARIOS: Mapping[str, Scenario] = {
    "A": Scenario("50/s, burst 50", partial(Bucket, 50, 50), 0.05, 1000, 100, 1.03, 0.06, limits=_rate(50)),
    "B": Scenario("8/s, burst 50", partial(Bucket, 8, 50), 0.05, 250, 100, 1.03, 0.15, limits=_rate(8)),
    "C": Scenario("20 at once, 0.25 s each", partial(Cap, 20), 0.25, 1600, 100, 1.12, 0.03),
    "D": Scenario(
        "50/s, 15/s after 8 s", partial(Bucket, 50, 50, ((8.0, 15.0),)), 0.05, 630, 100, 1.04, 0.09, limits=_rate(15)
    ),
    "E": Scenario(
        "1,200 a minute, bucket full", partial(Bucket, 20, 1200), 0.05, 1600, 64, 1.03, 0.06, limits=_rate(20)
    ),
    "F": _tokens("900,000 tokens a minute, burst ten seconds' worth", 15_000, 150_000, over=1.05),
    # Not one of the targets: hardly more than two of the larger calls fit into the burst.
    "G": _tokens("1.2 million tokens a minute, burst a second's worth", 20_000, 20_000, over=1.2),
}
