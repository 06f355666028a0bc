"""Pools against simulated servers of every kind: how much longer they take than somebody who knows the limit.

The clock is simulated, so a minute takes milliseconds.  ``python -m benchmarks pacing`` runs the same with more
servers, and the six of the targets on real sockets.
"""

from __future__ import annotations

import pytest

from benchmarks.pacing.scenarios import SCENARIOS, tokens_of
from benchmarks.pacing.servers import Bucket, Cap, FixedWindow
from benchmarks.pacing.simulation import Client, World, ideal, simulate
from benchmarks.pacing.worlds import random_scene
from chatpool.config import Limits
from chatpool.measures import StatedLimit
from chatpool.policy.pacing import Pacer

# Not those that the rules were tried on while they were made.
SEEDS = range(5000, 5060)


def quantile(values, share):
    return sorted(values)[int(len(values) * share)]


def over_ideal(world, client, seed=0):
    """Seconds, as a multiple of the ideal; nothing may be lost."""
    simulate(world, [client], seed)
    assert client.done == client.calls
    return client.ended / ideal(world, client, seed)


def steady(seconds):
    return lambda draw: seconds * draw.uniform(1.0, 1.05)


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
        if scenario.refused is not None:
            assert len(client.refusals) <= scenario.refused * scenario.calls

    @pytest.mark.parametrize("name", "ABCDE")
    def test_without_hints(self, name):
        scenario, world, client_of = scenario_of(name, None)
        client = client_of(Pacer())
        assert over_ideal(world, client) <= 1.1
        assert len(client.refusals) <= 0.15 * scenario.calls

    @pytest.mark.parametrize("lateness", [0.005, 0.02])
    def test_on_a_busy_machine_where_threads_wake_up_late(self, lateness):
        scenario, world, client_of = scenario_of("C", "exact")
        world.lateness = lateness
        assert over_ideal(world, client_of(Pacer())) <= scenario.over

    @pytest.mark.parametrize("name", "ABE")
    @pytest.mark.parametrize("hint", ["exact", None])
    def test_with_the_limits_in_headers_hardly_anything_is_refused(self, name, hint):
        scenario, world, client_of = scenario_of(name, hint)
        world.states = bucket_headers
        client = client_of(Pacer())
        assert over_ideal(world, client) <= 1.03
        assert len(client.refusals) <= 0.01 * scenario.calls

    def test_with_the_limit_configured_nothing_is_refused(self):
        scenario, world, client_of = scenario_of("A", "exact")
        client = client_of(Pacer(Limits(**scenario.limits)))
        assert over_ideal(world, client) <= 1.03
        assert not client.refusals


def bucket_headers(server, now):
    used = server.burst - server.left(now)
    return StatedLimit(server.burst, int(server.left(now)), round(used / server.rate, 3) or None)


def test_a_window_whose_headers_state_it_is_used_up_and_waited_for():
    def states(server, now):
        return StatedLimit(server.limit, server.limit - server._used, server._ends - now)

    world = World(lambda: FixedWindow(300, 10, 3), steady(0.3), states=states)
    client = Client(Pacer(), 1200, 64)
    assert over_ideal(world, client) <= 1.05
    assert len(client.refusals) <= 12


@pytest.mark.parametrize(
    ("kind", "share", "limit"),
    [
        ("rate", 0.9, 1.25),
        ("in flight", 0.9, 1.3),
        ("rate without burst", 0.9, 2.0),
        ("no limit", 1.0, 1.03),
        # No target; what they do today, and a little.
        ("window", 0.9, 1.6),
        ("changing", 0.9, 1.7),
        ("tenants", 0.9, 1.3),
    ],
)
def test_random_servers(kind, share, limit):
    times = []
    for seed in SEEDS:
        scene = random_scene(kind, seed)
        times.append(over_ideal(scene.world, Client(Pacer(), scene.calls, scene.workers), seed))
    assert quantile(times, min(share, 1 - 1 / len(times))) <= limit


PAIRS = {
    "50 a second": (lambda: Bucket(50, 50), 0.05, 500),
    "10 a second": (lambda: Bucket(10, 10), 0.05, 150),
    "200 a second": (lambda: Bucket(200, 200), 0.05, 2000),
    "30 a second, slow answers": (lambda: Bucket(30, 30), 1.0, 450),
    "20 at once": (lambda: Cap(20), 0.25, 800),
    "64 at once, slow answers": (lambda: Cap(64), 1.0, 1000),
}


def slower_over_faster(name, hint):
    """How much longer the slower of two pools takes for as much work: the median of some runs."""
    server, latency, calls = PAIRS[name]
    ratios = []
    for seed in range(1000, 1015):
        world = World(server, steady(latency), hint=hint, lateness=0.002)
        pools = [Client(Pacer(), calls, 100), Client(Pacer(), calls, 100, starts=seed % 10 * 0.005)]
        simulate(world, pools, seed)
        first, second = (pool.ended - pool.starts for pool in pools)
        ratios.append(max(first, second) / min(first, second))
    return quantile(ratios, 0.5)


class TestTwoPoolsOnOneQuota:
    """Nobody has told them of each other, and the server refuses whoever comes."""

    @pytest.mark.parametrize("hint", ["exact", None])
    @pytest.mark.parametrize("name", PAIRS)
    def test_begun_together_they_finish_at_nearly_the_same_time(self, name, hint):
        limit = 1.5 if "at once" in name else 1.3
        assert slower_over_faster(name, hint) <= limit

    @pytest.mark.parametrize("name", PAIRS)
    def test_with_hints_in_whole_seconds_it_takes_longer(self, name):
        assert slower_over_faster(name, "whole") <= 1.5

    @pytest.mark.parametrize("name", PAIRS)
    def test_whoever_comes_later_has_a_share_within_a_minute(self, name):
        server, latency, _ = PAIRS[name]
        shares = []
        for seed in range(1000, 1007):
            world = World(server, steady(latency), hint="exact", lateness=0.002)
            pools = [Client(Pacer(), 25_000, 100), Client(Pacer(), 25_000, 100, starts=40.0)]
            simulate(world, pools, seed, until=110.0)
            first, second = (accepted_after(pool, 90.0) for pool in pools)
            shares.append(second / (first + second))
        assert 0.25 <= quantile(shares, 0.5) <= 0.75


def accepted_after(client, start):
    return sum(sent >= start for sent in client.sends) - sum(refused >= start for refused in client.refusals)


def test_refusals_that_have_nothing_to_do_with_the_pace_do_not_stop_a_pool():
    world = World(Careless, steady(0.05), hint="exact", hint_fallback=0.02)
    client = Client(Pacer(), 2000, 20)
    simulate(world, [client], 0)
    assert client.done == 2000
    assert client.ended < 3 * 2000 * 0.05 / 20


class Careless(Bucket):
    """Refuses every 33rd request, whatever the pace."""

    def __init__(self):
        super().__init__(1.0, 1.0)
        self._count = 0

    def free_in(self, now, in_flight, weight):
        self._count += 1
        return float("inf") if self._count % 33 == 0 else 0.0
