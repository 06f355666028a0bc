"""Random servers: limits of every kind, near and far, steady and shaky, that say when to come back or do not."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Callable, NamedTuple, Tuple

from .servers import Bucket, Cap, FixedWindow, Server, SlidingWindow, Unlimited
from .simulation import World

__all__ = ["KINDS", "Scene", "random_scene"]

KINDS = ("rate", "rate without burst", "in flight", "no limit", "window", "changing", "tenants")


class Scene(NamedTuple):
    """A world, the work to be done in it, and its facts in words."""

    kind: str
    world: World
    calls: int
    workers: int
    facts: str


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _times(rng: random.Random, mean: float, spread: str) -> Callable[[random.Random], float]:
    """How long something takes that takes ``mean`` seconds on average."""
    if spread == "steady":
        return lambda draw: mean * draw.uniform(0.95, 1.05)
    if spread == "lognormal":
        return lambda draw: mean * draw.lognormvariate(-0.125, 0.5)
    return lambda draw: mean * (0.2 + 0.8 * draw.expovariate(1.0))


def _way(mean: float) -> Callable[[random.Random], float]:
    """A way that takes ``mean`` seconds, give or take a tenth, and now and then some milliseconds more."""
    return lambda draw: mean * draw.uniform(0.9, 1.1) + 0.0005 * draw.expovariate(1.0)


def random_scene(kind: str, seed: int) -> Scene:
    """The server number ``seed`` of this kind, and the calls to it."""
    rng = random.Random(f"{kind} {seed}")
    workers = rng.choice((16, 32, 64, 100, 128))
    latency = _log_uniform(rng, 0.02, 5.0)
    spread = rng.choice(("steady", "lognormal", "exponential"))
    if kind in ("no limit", "in flight", "changing"):
        latency = max(latency, workers / 400)  # nobody makes more calls a second than that
    travel = min(_log_uniform(rng, 0.0003, 0.03), latency / 10)
    slow_refusal = rng.random() < 0.1
    refusing = _log_uniform(rng, 0.2, 1.5) if slow_refusal else _log_uniform(rng, 0.0005, 0.02)
    hint = rng.choice(("exact", "exact", "whole", None))
    # The most that can be asked for; a limit above it would be none.
    reach = workers / latency
    rate = min(_log_uniform(rng, 0.03, 0.7) * reach, _log_uniform(rng, 30, 200))
    build, ideal_rate, words = _BUILD[kind](rng, rate, workers, latency)
    seconds = rng.uniform(15, 45)
    calls = max(40, min(4000, int(ideal_rate * seconds)))
    world = World(
        server=build,
        service=_times(rng, latency, spread),
        travel=_way(travel),
        refusing=_times(rng, refusing, "lognormal"),
        hint=hint,
        hint_fallback=rng.choice((0.1, 0.25, 1.0)),
        tenant=rate * rng.uniform(0.2, 0.6) if kind == "tenants" else 0.0,
    )
    facts = (
        f"{kind} #{seed}: {words}, C={workers}, {latency:.3g} s {spread}, travel {travel:.2g}, hint {hint}, "
        f"refusing {refusing:.2g}, {calls} calls"
    )
    return Scene(kind, world, calls, workers, facts)


_Built = Tuple[Callable[[], Server], float, str]


def _rate(rng: random.Random, rate: float, workers: int, latency: float) -> _Built:
    burst = max(2.0, rate * _log_uniform(rng, 0.2, 10))
    return partial(Bucket, rate, burst), rate, f"{rate:.3g}/s burst {burst:.3g}"


def _no_burst(rng: random.Random, rate: float, workers: int, latency: float) -> _Built:
    return partial(Bucket, rate, 1), rate, f"{rate:.3g}/s burst 1"


def _in_flight(rng: random.Random, rate: float, workers: int, latency: float) -> _Built:
    limit = round(_log_uniform(rng, 2, 0.8 * workers))
    return partial(Cap, limit), limit / latency, f"{limit} at once"


def _no_limit(rng: random.Random, rate: float, workers: int, latency: float) -> _Built:
    return Unlimited, workers / latency, "no limit"


def _window(rng: random.Random, rate: float, workers: int, latency: float) -> _Built:
    seconds = rng.choice((1.0, 5.0, 10.0))
    limit = max(1, round(rate * seconds))
    if rng.random() < 0.5:
        return partial(FixedWindow, limit, seconds, rng.random() * seconds), rate, f"{limit} per fixed {seconds:g} s"
    return partial(SlidingWindow, limit, seconds), rate, f"{limit} per sliding {seconds:g} s"


def _changing(rng: random.Random, rate: float, workers: int, latency: float) -> _Built:
    when, factor = rng.uniform(4, 15), rng.choice((0.25, 0.5, 2.0))
    if rng.random() < 0.3:
        limit = round(_log_uniform(rng, 4, 0.5 * workers))
        after = max(1, round(limit * factor))
        return partial(Cap, limit, [(when, after)]), limit / latency, f"{limit} at once, {after} from {when:.1f} s"
    burst = rate * _log_uniform(rng, 0.2, 3)
    words = f"{rate:.3g}/s burst {max(1, burst):.3g}, {rate * factor:.3g}/s from {when:.1f} s"
    return partial(Bucket, rate, burst, [(when, rate * factor)]), rate, words


_BUILD = {
    "rate": _rate,
    "rate without burst": _no_burst,
    "in flight": _in_flight,
    "no limit": _no_limit,
    "window": _window,
    "changing": _changing,
    "tenants": _rate,
}
