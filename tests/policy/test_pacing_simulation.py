"""Pools against simulated servers of every kind: how much longer they take than somebody who knows the limit.

The clock is simulated, so a minute takes milliseconds.  ``python -m benchmarks pacing`` runs the same with more
servers, and the six of the targets on real sockets.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from benchmarks.pacing.cases import (
    AT_RANDOM,
    FLAPPING,
    LIMITERS,
    PAIRS,
    QUEUES,
    about,
    accepted_after,
    sends_between,
    steady,
)
from benchmarks.pacing.scenarios import SCENARIOS, tokens_of
from benchmarks.pacing.servers import Bucket, Cap, FixedWindow, Unlimited
from benchmarks.pacing.simulation import Client, World, ideal, simulate
from benchmarks.pacing.sweep import TARGETS
from benchmarks.pacing.worlds import KINDS, random_scene
from chatpool._policy.adaptive import concurrency
from chatpool._policy.pacing import Pacer
from chatpool._values import StatedLimit
from chatpool.config import Limits

# Not those that the rules were tried on while they were made.
SEEDS = range(5000, 5060)
FEW = SEEDS[:12]
QUICK = ("50 a second",)
LEEWAY = {"rate without burst": 1.05}  # the targets are those of 200 servers; of these 60 some are harder


def quantile(values, share):
    return sorted(values)[int(len(values) * share)]


def run(world, client, seed=0):
    """Seconds; nothing may be lost."""
    simulate(world, [client], seed, until=5000.0)
    assert client.done == client.calls
    return client.ended


def over_ideal(world, client, seed=0):
    """Seconds, as a multiple of the ideal; nothing may be lost."""
    return run(world, client, seed) / ideal(world, client, seed)


def scenario_of(name, hint):
    scenario = SCENARIOS[name]
    world = World(scenario.server, steady(scenario.latency), hint=hint, hint_fallback=scenario.hint)
    sizes = iter(tokens_of(scenario.calls) * 3)
    weight = (lambda draw: next(sizes)) if scenario.tokens else (lambda draw: 1.0)
    return scenario, world, lambda pacer: Client(pacer, scenario.calls, scenario.workers, weight)


@pytest.mark.parametrize("hint", ["exact", None])
@pytest.mark.parametrize("calls", [80, 150])
def test_a_short_run_is_over_soon_too(calls, hint):
    world = World(lambda: Bucket(40, 10), steady(0.01), hint=hint)
    assert over_ideal(world, Client(Pacer(), calls, 16)) <= 1.1


class TestTheSixServers:
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_with_nothing_configured_and_exact_hints(self, name):
        scenario, world, client_of = scenario_of(name, "exact")
        client = client_of(Pacer())
        assert over_ideal(world, client) <= scenario.over
        if scenario.rejected is not None:
            assert len(client.rejections) <= scenario.rejected * scenario.calls

    @pytest.mark.parametrize("name", "ABCDE")
    def test_without_hints(self, name):
        scenario, world, client_of = scenario_of(name, None)
        client = client_of(Pacer())
        assert over_ideal(world, client) <= 1.1
        assert len(client.rejections) <= 0.15 * scenario.calls

    @pytest.mark.parametrize("lateness", [0.005, 0.02])
    def test_on_a_busy_machine_where_threads_wake_up_late(self, lateness):
        scenario, world, client_of = scenario_of("C", "exact")
        world.lateness = lateness
        assert over_ideal(world, client_of(Pacer())) <= scenario.over

    @pytest.mark.parametrize("name", "ABE")
    @pytest.mark.parametrize("hint", ["exact", None])
    def test_with_the_limits_in_headers_hardly_anything_is_rejected(self, name, hint):
        scenario, world, client_of = scenario_of(name, hint)
        world.states = bucket_headers
        client = client_of(Pacer())
        assert over_ideal(world, client) <= 1.03
        assert len(client.rejections) <= 0.01 * scenario.calls

    def test_with_the_limit_configured_nothing_is_rejected(self):
        scenario, world, client_of = scenario_of("A", "exact")
        client = client_of(Pacer(Limits(**scenario.limits)))
        assert over_ideal(world, client) <= 1.03
        assert not client.rejections


def bucket_headers(server, now):
    used = server.burst - server.left(now)
    return StatedLimit(server.burst, int(server.left(now)), round(used / server.rate, 3) or None)


def test_a_window_whose_headers_state_it_is_used_up_and_waited_for():
    def states(server, now):
        return StatedLimit(server.limit, server.limit - server._used, server._ends - now)

    world = World(lambda: FixedWindow(300, 10, 3), steady(0.3), states=states)
    client = Client(Pacer(), 1200, 64)
    assert over_ideal(world, client) <= 1.05
    assert len(client.rejections) <= 12


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [FEW, pytest.param(SEEDS, marks=pytest.mark.slow)], ids=len)
@pytest.mark.parametrize("kind", KINDS)
def test_random_servers(kind, seeds):
    """Nor is any call lost."""
    scenes = [(random_scene(kind, seed), seed) for seed in seeds]
    times = [over_ideal(scene.world, scene.client(Pacer()), seed) for scene, seed in scenes]
    target, leeway = TARGETS[kind], LEEWAY.get(kind, 1.0)
    if len(seeds) < len(SEEDS):
        leeway *= 1.1  # one that is hard is a larger part of them
    assert quantile(times, 0.5) <= leeway * target.median
    assert quantile(times, 1 - 1 / len(seeds) if kind == "no limit" else 0.9) <= leeway * target.nearly_all


def slower_over_faster(name, hint):
    """How much longer the slower of two pools takes for as much work: the median of some runs."""
    ratios = []
    for seed in range(2000, 2000 + PAIRS[name].runs):
        pools = PAIRS[name].pools(Pacer(), Pacer(), seed)
        simulate(PAIRS[name].world(hint), pools, seed)
        ratios.append(PAIRS[name].ratio(pools))
    return quantile(ratios, 0.5)


# One that counts calls in a second, one that counts calls at once; the others take longer.
@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        # Rejections take as long as answers, so that many of the latest calls are in flight at each.
        pytest.param("limits that say 503", 143, marks=pytest.mark.slow),
        ("limits that say 503", 160),
        pytest.param("limits that say 503", 10_136, marks=pytest.mark.slow),
        # The server works on what has timed out, so that fewer calls help only after a while.
        ("queue until given up", 125),
        ("queue until given up", 162),
        ("queue until given up", 10_031),
    ],
)
def test_no_call_is_lost_where_the_limit_is_hard_to_see(kind, seed):
    scene = random_scene(kind, seed)
    client = scene.client(Pacer())
    simulate(scene.world, [client], seed, until=3000.0)
    assert client.done == client.calls
    assert client.ended <= 3.5 * ideal(scene.world, client, seed)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PAIRS]
)
class TestTwoPoolsOnOneQuota:
    """Nobody has told them of each other, and the server rejects whoever comes."""

    @pytest.mark.parametrize("hint", ["exact", None])
    def test_begun_together_they_finish_at_nearly_the_same_time(self, name, hint):
        assert slower_over_faster(name, hint) <= PAIRS[name].together

    @pytest.mark.slow
    def test_with_hints_in_whole_seconds_it_takes_longer(self, name):
        assert slower_over_faster(name, "whole") <= PAIRS[name].whole

    @pytest.mark.slow
    def test_whoever_comes_later_has_a_share_within_a_minute(self, name):
        shares = []
        for seed in range(1000, 1005):
            pools = [Client(Pacer(), 25_000, 100), Client(Pacer(), 25_000, 100, starts=40.0)]
            simulate(PAIRS[name].world("exact"), pools, seed, until=110.0)
            first, second = (accepted_after(pool, 90.0) for pool in pools)
            shares.append(second / (first + second))
        assert 0.25 <= quantile(shares, 0.5) <= PAIRS[name].latecomer


class TestYields:
    """What a pool that is alone pays for others that there might be."""

    @pytest.mark.slow
    def test_they_cost_one_percent_at_most(self, monkeypatch):
        scenario, world, _ = scenario_of("C", "exact")
        seconds = run(world, Client(Pacer(), 16_000, scenario.workers))
        monkeypatch.setattr(concurrency, "_YIELD_SHARE", 0.0)
        assert seconds <= 1.01 * run(world, Client(Pacer(), 16_000, scenario.workers))


class TestLimitersThatPeopleUse:
    """As nginx and haproxy have them: with a status that says overload, and without any hint."""

    @pytest.mark.parametrize("workers", [16, 64])
    @pytest.mark.parametrize("says", ["unavailable", "throttled"])
    @pytest.mark.parametrize("name", LIMITERS)
    def test_every_call_is_answered_soon_and_few_are_rejected(self, name, says, workers):
        limiter = LIMITERS[name]
        world = replace(limiter.world, says=says)
        for seed in range(10):
            client = Client(Pacer(), limiter.calls, workers)
            assert run(world, client, seed) <= limiter.over * limiter.seconds
            assert len(client.rejections) <= limiter.rejected

    @pytest.mark.parametrize(
        ("server", "calls", "seconds"), [(partial(Bucket, 50, 50), 1000, 19.0), (partial(Cap, 20), 1000, 10.0)]
    )
    def test_so_is_it_at_a_higher_pace(self, server, calls, seconds):
        world = World(server, about(0.2), hint=None, says="unavailable")
        assert all(run(world, Client(Pacer(), calls, 64), seed) <= 1.15 * seconds for seed in range(5))

    @pytest.mark.parametrize("queue", QUEUES)
    def test_a_queue_in_which_calls_wait_until_they_are_given_up_is_kept_short(self, queue):
        assert over_ideal(queue.world(), Client(Pacer(), 1000, queue.workers)) <= 1.5


def median_seconds(world, calls, workers, seeds):
    return quantile([run(world, Client(Pacer(), calls, workers), seed) for seed in range(seeds)], 0.5)


class TestRejectionsAtRandom:
    """The pace has nothing to do with them."""

    @pytest.mark.parametrize("seeds", [(3, 1), pytest.param((9, 3), marks=pytest.mark.slow)], ids=sum)
    @pytest.mark.parametrize("gateway", AT_RANDOM)
    def test_they_hardly_cost_time(self, gateway, seeds):
        few, many = seeds
        assert median_seconds(gateway.world(), 1200, 64, few) <= gateway.over * 1200 * 0.2 / 64
        assert median_seconds(gateway.world(), 6000, 64, many) <= gateway.over_many * 6000 * 0.2 / 64

    @pytest.mark.slow
    def test_nor_do_they_under_another_name(self):
        world = World(Unlimited, about(0.05), hint=None, chance=0.2, chance_says="unavailable")
        assert median_seconds(world, 2000, 100, seeds=9) <= 2.2

    @pytest.mark.slow
    def test_however_many_there_are_nothing_is_lost_while_others_are_answered(self):
        world = World(Unlimited, about(0.2), hint=None, chance=0.4, chance_says="unavailable")
        assert median_seconds(world, 2000, 64, seeds=5) <= 3 * 2000 * 0.2 / 64

    def test_every_33rd_call_does_not_stop_a_pool(self):
        world = World(Careless, steady(0.05), hint="exact", hint_fallback=0.02)
        assert run(world, Client(Pacer(), 2000, 20)) < 3 * 2000 * 0.05 / 20


class Careless(Bucket):
    """Rejects every 33rd request, whatever the pace."""

    def __init__(self):
        super().__init__(1.0, 1.0)
        self._count = 0

    def free_in(self, now, in_flight, weight):
        self._count += 1
        return float("inf") if self._count % 33 == 0 else 0.0


class TestOutages:
    """The server is down for 20 seconds."""

    @pytest.mark.parametrize("workers", [16, 100])
    def test_it_is_looked_for_once_a_second_and_at_full_speed_soon_after(self, workers):
        world = World(Unlimited, about(0.05), hint=None, down=((5.0, 25.0),))
        client = Client(Pacer(), 20 * workers * 12, workers)
        run(world, client)
        assert sends_between(client, 6.0, 25.0) <= 1.1 * 19
        assert sends_between(client, 28.0, 29.0) >= 0.9 * 20 * workers

    @pytest.mark.parametrize("says", ["unavailable", "throttled"])
    @pytest.mark.parametrize(("server", "rate"), [(partial(Bucket, 50, 50), 50), (partial(Cap, 20), 100)])
    def test_a_limit_that_was_known_is_found_again(self, server, rate, says):
        world = World(server, about(0.2), hint=None, says=says, down=((10.0, 30.0),))
        client = Client(Pacer(), 30 * rate, 64)
        assert run(world, client) <= 20 + 1.25 * 30
        assert sends_between(client, 11.0, 30.0) <= 1.5 * 19
        assert sends_between(client, 36.0, 38.0) >= 0.75 * 2 * rate


@pytest.mark.slow
@pytest.mark.parametrize("case", FLAPPING, ids=str)
def test_a_server_that_flaps_is_used_while_it_is_up(case):
    assert case.share_used(Pacer()) >= case.used
