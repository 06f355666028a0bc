"""Every bound that pacing keeps on the simulated clock, with few seeds: minutes become seconds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

from chatpool._policy.pacing import Pacer
from chatpool._values import StatedLimit

from .cases import AT_RANDOM, FLAPPING, LIMITERS, PAIRS, QUEUES, about, accepted_after, sends_between, steady
from .scenarios import SCENARIOS, tokens_of
from .servers import Bucket, Cap, Server, Successive, Unlimited
from .simulation import Client, World, ideal, simulate
from .sweep import TARGETS, quantile
from .worlds import random_scene

__all__ = ["Figure", "figures"]

UNSEEN = 20_000  # the first seed
_GIVEN_UP_AFTER = 10.0  # times the ideal


class Figure(NamedTuple):
    """What was promised, and what was found.

    Attributes:
        what: the quantity.
        found: its value.
        limit: the promise.
    """

    what: str
    found: float
    limit: float

    @property
    def kept(self) -> bool:
        """Whether the value keeps the promise."""
        return self.found <= self.limit


class _Runs:
    """The same work several times: seconds, rejections and lost calls."""

    def __init__(self) -> None:
        self.over: List[float] = []
        self.rejected: List[float] = []
        self.lost = 0

    def run(self, world: World, client: Client, seed: int, seconds: float) -> None:
        """Do the work, which takes somebody who knows the limit so many seconds."""
        simulate(world, [client], seed, until=_GIVEN_UP_AFTER * seconds + 30)
        ended = client.ended if client.done + client.lost == client.calls else _GIVEN_UP_AFTER * seconds + 30
        self.over.append(ended / seconds)
        self.rejected.append(len(client.rejections))
        self.lost += client.lost

    def median(self) -> float:
        return quantile(self.over, 0.5)


def figures(quick: bool) -> Iterator[Figure]:
    """All of them."""
    seeds = 3 if quick else 8
    few = 1 if quick else 3
    parts = (_six(), _short(), _random_servers(seeds), _limiters(few), _queues(), _at_random(few), _unavailable(few))
    later = (_limited_later(), _another_limit(few), _outages(), _flapping(), _pairs(few))
    return itertools.chain(*parts, *later, _latecomers(1 if quick else 3))


def _six() -> Iterator[Figure]:
    for name, hint in itertools.product(SCENARIOS, ("exact", None)):
        if hint or name in "ABCDE":
            scenario = SCENARIOS[name]
            exact = hint == "exact"
            runs, calls = _scenario(name, hint=hint), scenario.calls
            hints = "exact hints" if exact else "no hints"
            yield Figure(f"{name}, {hints}: over the ideal", runs.median(), scenario.over if exact else 1.1)
            rejected = scenario.rejected if exact else 0.15
            if rejected is not None:
                yield Figure(f"{name}, {hints}: refused, %", 100 * runs.rejected[0] / calls, 100 * rejected)
    for name in "ABE":
        runs = _scenario(name, states=_bucket_headers)
        yield Figure(f"{name}, limits in headers: over the ideal", runs.median(), 1.03)
        yield Figure(f"{name}, limits in headers: refused, %", 100 * runs.rejected[0] / SCENARIOS[name].calls, 1.0)
    yield Figure("C on a busy machine: over the ideal", _scenario("C", lateness=0.02).median(), SCENARIOS["C"].over)


def _scenario(name: str, **world: Any) -> _Runs:
    scenario, runs = SCENARIOS[name], _Runs()
    sizes = iter(tokens_of(scenario.calls))
    client = Client(Pacer(), scenario.calls, scenario.workers)
    if scenario.tokens:
        client.weight = lambda draw: next(sizes)
    there = World(scenario.server, steady(scenario.latency), hint_fallback=scenario.hint)
    runs.run(replace(there, **world), client, 0, scenario.ideal())
    return runs


def _bucket_headers(server: Bucket, now: float) -> StatedLimit:
    used = server.burst - server.left(now)
    return StatedLimit(server.burst, int(server.left(now)), round(used / server.rate, 3) or None)


def _short() -> Iterator[Figure]:
    for hint, calls in itertools.product(("exact", None), (80, 150)):
        world, runs = World(partial(Bucket, 40, 10), steady(0.01), hint=hint), _Runs()
        client = Client(Pacer(), calls, 16)
        runs.run(world, client, 0, ideal(world, client))
        yield Figure(f"{calls} calls only, hint {hint}: over the ideal", runs.median(), 1.1)


def _random_servers(seeds: int) -> Iterator[Figure]:
    for kind, target in TARGETS.items():
        runs = _Runs()
        for seed in range(UNSEEN, UNSEEN + seeds):
            scene = random_scene(kind, seed)
            client = scene.client(Pacer())
            runs.run(scene.world, client, seed, ideal(scene.world, client, seed))
        yield Figure(f"random servers, {kind}: median", runs.median(), target.median)
        yield Figure(f"random servers, {kind}: 90 %", quantile(runs.over, 0.9), target.nearly_all)
        yield Figure(f"random servers, {kind}: lost", runs.lost, 0)


def _limiters(seeds: int) -> Iterator[Figure]:
    for (name, limiter), says in itertools.product(LIMITERS.items(), ("unavailable", "throttled")):
        runs = _Runs()
        for seed, workers in itertools.product(range(seeds), (16, 64)):
            client = Client(Pacer(), limiter.calls, workers)
            runs.run(replace(limiter.world, says=says), client, seed, limiter.seconds)
        what = f"{name}, {'503' if says == 'unavailable' else '429'}"
        yield Figure(f"{what}: over the ideal", max(runs.over), limiter.over)
        yield Figure(f"{what}: refused", max(runs.rejected), limiter.rejected)
        yield Figure(f"{what}: lost", runs.lost, 0)


def _queues() -> Iterator[Figure]:
    runs = _Runs()
    for queue in QUEUES:
        client = Client(Pacer(), 1000, queue.workers)
        runs.run(queue.world(), client, 0, ideal(queue.world(), client))
    yield Figure("a queue until calls are given up: over the ideal", max(runs.over), 1.5)
    yield Figure("a queue until calls are given up: lost", runs.lost, 0)
    # As those of a model that thinks for as long as it takes; what takes too long will the next time.
    world = World(Unlimited, lambda rng: rng.uniform(2.0, 5.3), gives_up=5.0)
    client = Client(Pacer(), 1000, 64)
    simulate(world, [client], 0, until=1000.0)
    yield Figure("answers of 2 to 5.3 s that are given up after 5: seconds", client.ended, 100)


def _at_random(seeds: int) -> Iterator[Figure]:
    for gateway in AT_RANDOM:
        for calls, over in ((1200, gateway.over), (6000, gateway.over_many)):
            runs = _Runs()
            for seed in range(seeds if calls == 1200 else 1):
                runs.run(gateway.world(), Client(Pacer(), calls, 64), seed, calls * 0.2 / 64)
            what = f"{gateway.share:.0%} at random, hint {gateway.hint}, {calls} calls"
            yield Figure(f"{what}: over the ideal", runs.median(), over)


def _unavailable(seeds: int) -> Iterator[Figure]:
    few, many = _Runs(), _Runs()
    for seed in range(seeds):
        world = World(Unlimited, about(0.05), hint=None, chance=0.2, chance_says="unavailable")
        few.run(world, Client(Pacer(), 2000, 100), seed, 1.0)
    for seed in range(seeds + 1):  # one call in thousands fails nine times in a row
        world = World(Unlimited, about(0.2), hint=None, chance=0.4, chance_says="unavailable")
        many.run(world, Client(Pacer(), 6000, 64), seed, 6000 * 0.2 / 64)
    yield Figure("20 % 503 at random: seconds", few.median(), 2.2)
    yield Figure("40 % 503 at random: lost", many.lost, 0)


def _limited_later() -> Iterator[Figure]:
    """Rejections at random, and after some seconds a limit as well."""
    world = World(partial(Bucket, 1000, 1000, ((4.0, 50.0),)), about(0.2), chance=0.05)
    client, runs = Client(Pacer(), 3000, 64), _Runs()
    runs.run(world, client, 0, ideal(world, client))
    yield Figure("5 % at random, 50/s from 4 s on: over the ideal", runs.median(), 1.7)
    yield Figure("5 % at random, 50/s from 4 s on: refused, %", 100 * runs.rejected[0] / client.calls, 50)


def _at_8(first: Callable[[], Server], then: Callable[[], Server]) -> Server:
    return Successive(first(), then(), 8.0)


def _another_limit(seeds: int) -> Iterator[Figure]:
    """A limit of another kind in the middle of a run; and one that stays, when failures come in the same words."""
    changes = (
        ("50/s, and from 8 s on 5 at once", partial(_at_8, partial(Bucket, 50, 5), partial(Cap, 5)), 900, 1.25),
        ("50/s, and from 8 s on 20 at once", partial(_at_8, partial(Bucket, 50, 5), partial(Cap, 20)), 1300, 1.25),
        ("10 at once, and from 8 s on 20/s", partial(_at_8, partial(Cap, 10), partial(Bucket, 20, 2)), 700, 1.1),
    )
    for what, server, calls, limit in changes:
        world = World(server, about(0.2))
        runs = _Runs()
        for seed in range(seeds):
            client = Client(Pacer(), calls, 64)
            runs.run(world, client, seed, ideal(world, client, seed))
        yield Figure(f"{what}: over the ideal", runs.median(), limit)
    world = World(
        partial(Bucket, 50, 50), about(0.2), hint=None, chance=0.05, chance_says="unavailable", down=((5.0, 15.0),)
    )
    client = Client(Pacer(), 3000, 64)
    simulate(world, [client], 0, until=200.0)
    yield Figure("50/s with 5 % 503 at random, down for 10 s: seconds", client.ended, 75)


def _outages() -> Iterator[Figure]:
    for workers in (16, 100):
        world = World(Unlimited, about(0.05), hint=None, down=((5.0, 25.0),))
        yield from _outage(world, Client(Pacer(), 20 * workers * 12, workers), f"C={workers}", 5.0, 20.0 * workers)
    limits: Dict[str, Callable[[], Server]] = {"50/s": partial(Bucket, 50, 50), "20 at once": partial(Cap, 20)}
    for (what, server), says in itertools.product(limits.items(), ("unavailable", "throttled")):
        rate = 50.0 if what == "50/s" else 100.0
        world = World(server, about(0.2), hint=None, says=says, down=((5.0, 25.0),))
        yield from _outage(world, Client(Pacer(), int(30 * rate), 64), f"{what}, {says}", 5.0, rate)


def _outage(world: World, client: Client, what: str, begin: float, rate: float) -> Iterator[Figure]:
    simulate(world, [client], 0, until=200.0)
    end = begin + 20
    yield Figure(f"outage, {what}: attempts a second while down", sends_between(client, begin + 1, end) / 19, 1.5)
    back: Dict[int, int] = {}
    for sent in client.sends:
        back[int(sent - end)] = back.get(int(sent - end), 0) + (sent >= end)
    seconds = next((second for second in range(60) if back.get(second, 0) >= 0.8 * rate), 60)
    yield Figure(f"outage, {what}: seconds until it is at full speed", seconds, 6)
    yield Figure(f"outage, {what}: not answered", client.calls - client.done, 0)


def _flapping() -> Iterator[Figure]:
    for case in FLAPPING:
        missed, allowed = 1 - case.share_used(Pacer()), 1 - case.used
        yield Figure(f"flapping, {case}: answers missed, %", 100 * missed, 100 * allowed)


def _pairs(seeds: int) -> Iterator[Figure]:
    for (name, pair), hint in itertools.product(PAIRS.items(), ("exact", None, "whole")):
        ratios = []
        for seed in range(min(pair.runs, 3 * seeds)):
            pools = pair.pools(Pacer(), Pacer(), seed)
            simulate(pair.world(hint), pools, seed, until=1000.0)
            ratios.append(pair.ratio(pools) if all(pool.done == pool.calls for pool in pools) else 99.0)
        limit = pair.whole if hint == "whole" else pair.together
        yield Figure(f"two pools, {name}, hint {hint}: the slower over the faster", quantile(ratios, 0.5), limit)


def _latecomers(seeds: int) -> Iterator[Figure]:
    for name, pair in PAIRS.items():
        shares = []
        for seed in range(seeds):
            pools = [Client(Pacer(), 25_000, 100), Client(Pacer(), 25_000, 100, starts=40.0)]
            simulate(pair.world("exact"), pools, seed, until=110.0)
            first, second = (accepted_after(pool, 90.0) for pool in pools)
            shares.append(second / (first + second))
        share = quantile(shares, 0.5)
        yield Figure(f"a pool that comes later, {name}: share of the other", 1 - share, 0.75)
        yield Figure(f"a pool that comes later, {name}: its share", share, pair.latecomer)
