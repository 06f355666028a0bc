"""Several processes under one limit per day, on real sockets: killed and started again, over days."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatpool._policy.day_window import SLOT_LIFE_SECONDS
from chatpool.testing import Delay, FakeServer

WORKER = Path(__file__).with_name("day_worker.py")
ROOT = WORKER.parents[2]
HUNG = 120  # seconds
LIMIT = 60


class HostClock:
    """The time of the processes' host, in a file."""

    def __init__(self, path):
        self.path, self._seconds = path, 0.0
        self.advance(0)

    def advance(self, seconds):
        self._seconds += seconds
        self.path.write_text(f"{1_700_000_000.0 + self._seconds!r} {5000.0 + self._seconds!r}", encoding="utf-8")


@pytest.fixture
def host_time(tmp_path):
    return HostClock(tmp_path / "time")


@pytest.fixture
def start(host_time):
    """A function that starts processes and returns them, ready and told to go."""
    started = []

    def start(server, count, scope, **options):
        options = {"url": server.base_url, "scope": scope, "time": str(host_time.path), "limit": LIMIT, **options}
        command = [sys.executable, str(WORKER), json.dumps({"workers": 4, "calls": 50, **options})]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        these = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(count)
        ]
        started.extend(these)
        for one in these:
            assert one.stdout.readline() == "ready\n"
        for one in these:
            one.stdin.write("go\n")
            one.stdin.flush()
        return these

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


def ends_of(processes):
    return [json.loads(one.communicate(timeout=HUNG)[0]) for one in processes]


@pytest.mark.slow
def test_they_use_the_day_to_the_last_request_and_the_next_ones_know(start, host_time):
    with FakeServer() as server:
        ends = ends_of(start(server, 4, "team"))
        assert len(server.requests) == sum(end["answered"] for end in ends) == LIMIT
        assert {end["fatal"] for end in ends} == {"DayLimitError"}
        host_time.advance(SLOT_LIFE_SECONDS - 1000)
        assert [end["answered"] for end in ends_of(start(server, 2, "team"))] == [0, 0]
        host_time.advance(1000)
        ends_of(start(server, 4, "team"))
        assert len(server.requests) == 2 * LIMIT


@pytest.mark.slow
def test_those_that_are_killed_take_at_most_a_slot_with_them(start):
    """What they had sent counts, answered or not."""
    with FakeServer(script=lambda request: Delay(0.05)) as server:
        killed = start(server, 3, "team")
        server.wait_for(20, timeout=HUNG)
        for one in killed:
            one.kill()
            one.communicate()
        sent = len(server.requests)
        ends = ends_of(start(server, 2, "team"))
        assert sent < LIMIT
        # Those in flight at the kill may never have come to the server, and each process held one slot more.
        assert LIMIT - 3 * (4 + 1) <= len(server.requests) <= LIMIT
        assert sum(end["answered"] for end in ends) == len(server.requests) - sent
        assert all(end["left"] == 0 for end in ends)


@pytest.mark.deploy
@pytest.mark.smoke
def test_processes_share_a_day_through_redis(start, redis_server):
    with FakeServer() as server:
        ends = ends_of(start(server, 4, redis_server.scope()))
        assert len(server.requests) == sum(end["answered"] for end in ends) == LIMIT
        assert [end["answered"] for end in ends_of(start(server, 2, redis_server.scope()))] == [0, 0]


@pytest.mark.deploy
def test_those_of_redis_that_are_killed_take_at_most_a_slot_with_them(start, redis_server):
    with FakeServer(script=lambda request: Delay(0.05)) as server:
        killed = start(server, 3, redis_server.scope())
        server.wait_for(20, timeout=HUNG)
        for one in killed:
            one.kill()
            one.communicate()
        ends_of(start(server, 2, redis_server.scope()))
        assert LIMIT - 3 * (4 + 1) <= len(server.requests) <= LIMIT


@pytest.mark.slow
def test_no_day_holds_more_however_the_runs_are_spread(start, host_time):
    """A run every seven hours for two days: what the server has heard in any 24 hours is within the limit."""
    heard, hours = [], 0.0
    with FakeServer() as server:
        while hours < 49:
            before = len(server.requests)
            ends_of(start(server, 1, "team", calls=25, workers=2))
            heard.append((hours, len(server.requests) - before))
            hours += 7
            host_time.advance(7 * 3600)
    assert sum(count for _, count in heard) >= LIMIT
    for begin, _ in heard:
        assert sum(count for at, count in heard if begin <= at < begin + 24) <= LIMIT
