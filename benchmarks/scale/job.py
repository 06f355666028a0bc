"""The job of the simulations: rows, hosts, and the limits that they share."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Optional

from chatpool._quota.gcra import Rates

__all__ = ["Job", "Ran"]

_HOUR_SECONDS = 3600.0
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Job:
    """A file of rows, the hosts that run its shards, and one quota for all of them.

    Attributes:
        rows: rows of the file.
        shard_rows: rows of a shard.
        hosts: processes that run one shard at a time.
        workers: calls in flight of each, at most.
        requests_per_minute, tokens_per_minute: the quota.
        tokens_per_row: of a row, prompt and answer.
        latency_seconds: mean time of an answer.
        latency_sigma: sigma of its lognormal distribution; 0 for answers that all take as long.
        shard_start_seconds: from taking a shard to its first call.
        host_life_hours: mean life of a host, exponentially distributed; None for hosts that never die.
        host_return_seconds: from the death of a host to its replacement.
        takeover_seconds: from the death of a host to when another may take its shard: no beat, and a time of watching.
        seed: of the chances.
    """

    rows: int = 50_000_000
    shard_rows: int = 5_000
    hosts: int = 100
    workers: int = 64
    requests_per_minute: float = 30_000
    tokens_per_minute: float = 150_000_000
    tokens_per_row: float = 1_500
    latency_seconds: float = 4.0
    latency_sigma: float = 0.6
    shard_start_seconds: float = 1.0
    host_life_hours: Optional[float] = None
    host_return_seconds: float = 300.0
    takeover_seconds: float = 80.0
    seed: int = 1

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(self.rows / self.shard_rows)

    @property
    def rates(self) -> Rates:
        """The quota in the terms of the limiter."""
        return Rates.of(self.requests_per_minute, self.tokens_per_minute, 1.0)

    @property
    def quota_per_second(self) -> float:
        """Calls a second that the limiter lets through in the long run: of both limits the narrower."""
        return 1 / max(self.rates.requests.emission, self.tokens_per_row * self.rates.tokens.emission)

    @property
    def host_per_second(self) -> float:
        """Calls a second that one host makes without a limit (Little's law)."""
        return self.workers / self.latency_seconds

    @property
    def ideal_seconds(self) -> float:
        """Time of the job if the quota were used from the first second to the last."""
        return self.rows / min(self.quota_per_second, self.hosts * self.host_per_second)

    def latency(self, chance: random.Random) -> float:
        """Draw the time of one answer."""
        return self.slowest_latency(1, chance)

    def slowest_latency(self, calls: float, chance: random.Random) -> float:
        """Draw the time of the slowest of so many answers."""
        if not self.latency_sigma:
            return self.latency_seconds
        quantile = max(1e-12, min(1 - 1e-12, (1 - chance.random()) ** (1 / max(1.0, calls))))
        mean_of_log = math.log(self.latency_seconds) - self.latency_sigma**2 / 2
        return math.exp(mean_of_log + self.latency_sigma * _NORMAL.inv_cdf(quantile))

    def life(self, chance: random.Random) -> float:
        """Draw the seconds that a host lives."""
        return (
            math.inf if self.host_life_hours is None else chance.expovariate(1 / self.host_life_hours / _HOUR_SECONDS)
        )


@dataclass
class Ran:
    """Figures of a simulated job.

    Attributes:
        seconds: from its begin to the last answer.
        full_seconds: to the last moment at which the hosts used the whole quota.
        sent: calls that were sent.
        answered: rows that have an answer in the end.
        repeated: calls that were in flight when their host died, and are sent again.
        deaths: hosts that died.
        takeovers: shards that another host took from a dead one.
        max_per_second: the highest rate of calls, in the long run.
    """

    seconds: float = 0.0
    full_seconds: float = 0.0
    sent: float = 0.0
    answered: float = 0.0
    repeated: float = 0.0
    deaths: int = 0
    takeovers: int = 0
    max_per_second: float = 0.0
