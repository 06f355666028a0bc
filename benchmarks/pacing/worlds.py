"""Random servers: limits of every kind, near and far, steady and shaky, that say when to come back or do not.

Some reject calls at random besides, or nothing else; some say 503; some let calls wait until they are given up.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional

from .servers import Bucket, Cap, FixedWindow, Server, Shaper, SlidingWindow, Unlimited
from .simulation import Client, Draw, Pacing, World

__all__ = ["KINDS", "Scene", "random_scene"]


class Scene(NamedTuple):
    """A world, the work to be done in it, and a description of it."""

    kind: str
    world: World
    calls: int
    workers: int
    weight: Draw
    description: str

    def client(self, pacing: Pacing) -> Client:
        """A pool that has this work to do."""
        return Client(pacing, self.calls, self.workers, self.weight)


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


class _Load(NamedTuple):
    """The calls that a limit is made for: ``rate`` a second are a part of what so many workers can ask for."""

    rate: float
    workers: int
    latency: float
    spread: str


class _Limit(NamedTuple):
    """A server's limit.

    Attributes:
        server: makes it.
        rate: calls a second that it accepts.
        description: a short text about it.
        traits: other attributes of the world.
        weight: how much of it each call takes.
    """

    server: Callable[[], Server]
    rate: float
    description: str
    traits: Mapping[str, Any] = MappingProxyType({})
    weight: Optional[Draw] = None


def random_scene(kind: str, seed: int) -> Scene:
    """The server number ``seed`` of this kind, and the calls to it."""
    rng = random.Random(f"{kind} {seed}")
    workers = rng.choice((16, 32, 64, 100, 128))
    latency = _log_uniform(rng, 0.02, 5.0)
    spread = rng.choice(("steady", "lognormal", "exponential"))
    if kind not in _ANY_PACE:
        latency = max(latency, workers / 400)  # nobody makes more calls a second than that
    travel = min(_log_uniform(rng, 0.0003, 0.03), latency / 10)
    slow_rejection = rng.random() < 0.1
    rejecting = _log_uniform(rng, 0.2, 1.5) if slow_rejection else _log_uniform(rng, 0.0005, 0.02)
    hint = rng.choice(("exact", "exact", "whole", None))
    # The most that can be asked for; a limit above it would be none.
    reach = workers / latency
    rate = min(_log_uniform(rng, 0.03, 0.7) * reach, _log_uniform(rng, 30, 200))
    limit = _BUILD[kind](rng, _Load(rate, workers, latency, spread))
    if "chance" in limit.traits:
        rejecting = min(rejecting, latency)  # the ideal knows nothing of the time that these take
    seconds = rng.uniform(15, 45)
    calls = max(40, min(4000, int(limit.rate * seconds)))
    world = World(
        server=limit.server,
        service=_times(rng, latency, spread),
        travel=_way(travel),
        rejecting=_times(rng, rejecting, "lognormal"),
        hint=hint,
        hint_fallback=rng.choice((0.1, 0.25, 1.0)),
        tenant=rate * rng.uniform(0.2, 0.6) if kind == "tenants" else 0.0,
    )
    world = replace(world, **limit.traits)
    description = (
        f"{kind} #{seed}: {limit.description}, C={workers}, {latency:.3g} s {spread}, travel {travel:.2g}, "
        f"hint {world.hint}, refusing {rejecting:.2g}, {calls} calls"
    )
    return Scene(kind, world, calls, workers, limit.weight or (lambda draw: 1.0), description)


# -- one limit ------------------------------------------------------------------------------------------


def _rate(rng: random.Random, load: _Load) -> _Limit:
    rate = load.rate
    burst = max(2.0, rate * _log_uniform(rng, 0.2, 10))
    return _Limit(partial(Bucket, rate, burst), rate, f"{rate:.3g}/s burst {burst:.3g}")


def _no_burst(rng: random.Random, load: _Load) -> _Limit:
    return _Limit(partial(Bucket, load.rate, 1), load.rate, f"{load.rate:.3g}/s burst 1")


def _in_flight(rng: random.Random, load: _Load) -> _Limit:
    limit = round(_log_uniform(rng, 2, 0.8 * load.workers))
    return _Limit(partial(Cap, limit), limit / load.latency, f"{limit} at once")


def _no_limit(rng: random.Random, load: _Load) -> _Limit:
    return _Limit(Unlimited, load.workers / load.latency, "no limit")


def _window(rng: random.Random, load: _Load) -> _Limit:
    seconds = rng.choice((1.0, 5.0, 10.0))
    limit = max(1, round(load.rate * seconds))
    if rng.random() < 0.5:
        server = partial(FixedWindow, limit, seconds, rng.random() * seconds)
        return _Limit(server, load.rate, f"{limit} per fixed {seconds:g} s")
    return _Limit(partial(SlidingWindow, limit, seconds), load.rate, f"{limit} per sliding {seconds:g} s")


def _changing(rng: random.Random, load: _Load) -> _Limit:
    when, factor = rng.uniform(4, 15), rng.choice((0.25, 0.5, 2.0))
    if rng.random() < 0.3:
        limit = round(_log_uniform(rng, 4, 0.5 * load.workers))
        after = max(1, round(limit * factor))
        description = f"{limit} at once, {after} from {when:.1f} s"
        return _Limit(partial(Cap, limit, [(when, after)]), limit / load.latency, description)
    rate = load.rate
    burst = rate * _log_uniform(rng, 0.2, 3)
    description = f"{rate:.3g}/s burst {max(1, burst):.3g}, {rate * factor:.3g}/s from {when:.1f} s"
    return _Limit(partial(Bucket, rate, burst, [(when, rate * factor)]), rate, description)


def _tokens(rng: random.Random, load: _Load) -> _Limit:
    """So many tokens a second, and calls of very different size; the largest fits into the burst."""
    usual, differ = rng.choice((100, 500, 2000)), rng.uniform(0.3, 1.2)
    most = 20 * usual
    per_second = load.rate * usual * math.exp(differ * differ / 2)
    burst = max(1.5 * most, per_second * _log_uniform(rng, 0.5, 10))
    description = f"{per_second:.3g} tokens/s burst {burst:.3g}, about {usual} a call (sigma {differ:.2f})"
    weight = partial(_tokens_of_call, usual, differ, most)
    return _Limit(partial(Bucket, per_second, burst), load.rate, description, weight=weight)


def _tokens_of_call(usual: float, differ: float, most: float, draw: random.Random) -> float:
    return min(most, usual * draw.lognormvariate(0, differ))


# -- limits that say 503, and queues --------------------------------------------------------------------


def _unavailable(rng: random.Random, load: _Load) -> _Limit:
    limit = rng.choice((_rate, _shaper, _in_flight, _queue))(rng, load)
    # nginx and haproxy do not say when to come back.
    hint = rng.choice((None, None, None, "whole"))
    return limit._replace(
        description=f"503: {limit.description}", traits={**limit.traits, "says": "unavailable", "hint": hint}
    )


def _shaper(rng: random.Random, load: _Load) -> _Limit:
    burst = round(_log_uniform(rng, 1, 20))
    return _Limit(partial(Shaper, load.rate, burst), load.rate, f"limit_req {load.rate:.3g}/s burst {burst}")


def _queue(rng: random.Random, load: _Load) -> _Limit:
    slots = round(_log_uniform(rng, 2, 0.5 * load.workers))
    patience = load.latency * _log_uniform(rng, 0.2, 3)
    description = f"{slots} slots, queue for {patience:.3g} s"
    return _Limit(Unlimited, slots / load.latency, description, {"slots": slots, "patience": patience})


def _given_up(rng: random.Random, load: _Load) -> _Limit:
    """A queue without an end: with all workers, calls would wait for longer than the client does."""
    latency = load.latency
    slots = max(1, round(load.workers / _log_uniform(rng, 6, 30)))
    gives_up = max(3 * latency, load.workers / slots * latency / _log_uniform(rng, 1.2, 3))
    times = _times(rng, latency, load.spread)
    traits = {"slots": slots, "gives_up": gives_up, "service": lambda draw: min(gives_up / 2, times(draw))}
    return _Limit(Unlimited, slots / latency, f"{slots} slots, given up after {gives_up:.3g} s", traits)


# -- rejections at random ---------------------------------------------------------------------------------


def _at_random(
    limit: Callable[[random.Random, _Load], _Limit], largest: float, rng: random.Random, load: _Load
) -> _Limit:
    """The limit, and rejections that come whatever the load."""
    inner = limit(rng, load)
    chance, says = _log_uniform(rng, 0.01, largest), rng.choice(("throttled", "unavailable"))
    description = f"{inner.description}, {chance:.1%} {says} at random"
    return inner._replace(description=description, traits={**inner.traits, "chance": chance, "chance_says": says})


_BUILD: Dict[str, Callable[[random.Random, _Load], _Limit]] = {
    "rate": _rate,
    "rate without burst": _no_burst,
    "in flight": _in_flight,
    "no limit": _no_limit,
    "window": _window,
    "changing": _changing,
    "tenants": _rate,
    "tokens": _tokens,
    "limits that say 503": _unavailable,
    "queue until given up": _given_up,
    "random refusals": partial(_at_random, _no_limit, 0.4),
    "random refusals on a rate": partial(_at_random, _rate, 0.2),
    "random refusals on calls in flight": partial(_at_random, _in_flight, 0.2),
}
_ANY_PACE = ("rate", "rate without burst", "window", "tenants", "tokens", "random refusals on a rate")

KINDS = tuple(_BUILD)
