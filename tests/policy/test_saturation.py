"""A server that refuses nothing and only gets slower."""

from __future__ import annotations

import math

import pytest

from benchmarks.pacing.servers import Unlimited
from benchmarks.pacing.simulation import Client, World, simulate
from chatpool.policy.pacing import Pacer


def run(slots, *, seconds=0.2, workers=100, calls=3000, spread=0.05):
    """Calls to a server that works on so many at once; returns (time over the ideal, the limit found)."""
    world = World(Unlimited, lambda draw: seconds * draw.uniform(1 - spread, 1 + spread), slots=slots)
    client = Client(Pacer(), calls, workers)
    simulate(world, [client], 1)
    assert client.done == calls
    ideal = calls * seconds / min(slots or workers, workers)
    return client.ended / ideal, client.pacing.pace(client.ended).concurrency_limit


@pytest.mark.parametrize("spread", [0.05, 0.9])
@pytest.mark.parametrize("slots", [2, 8, 20])
def test_calls_that_would_only_wait_at_the_server_are_kept_here_and_nothing_is_lost(slots, spread):
    over, limit = run(slots, spread=spread)
    assert over < 1.06
    assert slots <= limit < 85


def test_a_server_that_is_as_fast_with_many_is_left_alone():
    over, limit = run(None)
    assert limit is None
    assert over < 1.05


def test_few_calls_in_flight_are_left_alone():
    assert run(4, workers=12)[1] is None


def test_stats_say_why():
    world = World(Unlimited, lambda draw: 0.2, slots=4)
    client = Client(Pacer(), 3000, 64)
    simulate(world, [client], 1, until=100)
    assert client.pacing.pace(100.0).why == "more calls in flight would only wait at the server"
    assert math.isfinite(client.pacing.wait(100.0, 0.0)) or client.in_flight > 4
