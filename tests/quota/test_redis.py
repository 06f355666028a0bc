"""The state in Redis: a real one."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from quota_agreement import ONE_BY_ONE, RATES_OF_DAY, SECOND, HandClock, operations, play

from chatpool import ChatPool, Limits
from chatpool._policy.day_window import DAY_SECONDS, SLOT_LIFE_SECONDS, DayLimits
from chatpool._quota import Sharing, parse_scope
from chatpool._quota.redis import RULES, RedisBackend
from chatpool._quota.shared_limit import LocalBackend
from chatpool.testing import FakeServer

pytestmark = pytest.mark.deploy


@pytest.fixture
def limit_of(redis_server):
    """A function that makes the limit of one process more."""
    made = []

    def limit_of(**limits):
        made.append(Sharing(redis_server.scope(), **limits).limit("http://server", "m"))
        return made[-1]

    yield limit_of
    for one in made:
        one.close()


@pytest.fixture
def client(redis_server):
    import redis  # only the environment of the tests marked deploy has it

    with redis.Redis(port=redis_server.port) as client:
        yield client


@pytest.mark.smoke
def test_two_share_the_limit_and_a_pause(limit_of):
    one, other = limit_of(requests_per_minute=60), limit_of(requests_per_minute=60)
    waits = [limit.reserve().wait for limit in (one, other, one, other)]
    assert waits == pytest.approx([0, 1, 2, 3], abs=0.2)
    one.pause(30)
    assert other.reserve().wait == pytest.approx(31, abs=0.5)
    assert other.status().paused_for == pytest.approx(30, abs=0.5)
    assert other.status().sharers == 2


def test_tokens_are_corrected(limit_of):
    one, other = limit_of(tokens_per_minute=600), limit_of(tokens_per_minute=600)
    slot = one.reserve(tokens=500)
    assert other.reserve(tokens=100, max_wait=1).granted is False
    one.correct(slot, used=0)
    assert other.reserve(tokens=5, max_wait=1).granted


def test_what_nobody_uses_any_more_is_forgotten(limit_of, client):
    limit_of(requests_per_minute=60).reserve()
    (key,) = client.keys("*")
    assert key.startswith(b"chatpool:quota:limit:")
    assert 60_000 < client.pttl(key) <= 182_000


def test_a_redis_that_has_forgotten_the_script_is_told_it_again(limit_of, client):
    one = limit_of(requests_per_minute=60)
    one.reserve()
    client.script_flush()
    assert one.reserve().wait > 0
    assert one.is_shared


@pytest.mark.smoke
def test_a_redis_that_goes_and_comes_back(limit_of, redis_server, hand_clock, caplog):
    one = Sharing(redis_server.scope(), requests_per_minute=600, now=hand_clock).limit("http://server", "m")
    one.reserve()
    limit_of(requests_per_minute=600).reserve()
    one.reserve()
    redis_server.stop()
    waits = [one.reserve().wait for _ in range(3)]
    assert waits[2] - waits[1] == pytest.approx(2 * 60 * SECOND / 591)
    redis_server.start()
    hand_clock.time += 2
    assert one.reserve().wait == 0
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 2
    assert f"Redis at redis://127.0.0.1:{redis_server.port} does not answer" in messages[0]
    assert messages[1].endswith("is back")
    one.close()


def test_one_restart_between_two_calls_is_not_even_noticed(limit_of, redis_server, caplog):
    one = limit_of(requests_per_minute=600)
    one.reserve()
    redis_server.stop()
    redis_server.start()
    assert one.reserve().wait == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_password_is_needed_and_never_shown(redis_with_password, caplog):
    port = redis_with_password.port
    right = Sharing(f"redis://:hush@127.0.0.1:{port}/team", requests_per_minute=60).limit("http://server", "m")
    wrong = Sharing(f"redis://:whisper@127.0.0.1:{port}/team", requests_per_minute=60).limit("http://server", "m")
    right.reserve()
    wrong.reserve()
    assert (right.is_shared, wrong.is_shared) == (True, False)
    assert "Redis at redis://127.0.0.1" in caplog.text
    assert "whisper" not in caplog.text + repr(wrong) + repr(vars(wrong._backend))
    right.close()
    wrong.close()


def test_processes_use_the_whole_limit_and_every_thread_is_served(sharers, redis_server, best_share):
    limits = {"requests_per_minute": 3000}

    def used():
        found = sharers(4, scope=redis_server.scope(), limits=limits, seconds=8.0, threads=32)
        slots = sorted(at for one in found for thread in one["slots"] for at, _ in thread)
        assert min(len(thread) for one in found for thread in one["slots"]) >= 1
        assert all(one["shared"] for one in found)
        return sum(at < slots[0] + 7.5 for at in slots) / (50 + 7.5 * (3000 - 50 + 1) / 60)

    assert best_share(used, at_most=1.005) >= 0.97


def test_processes_use_the_whole_limit_of_tokens(sharers, redis_server, best_share):
    options = {"limits": {"tokens_per_minute": 600_000}, "seconds": 8.0, "threads": 32, "tokens": 150.0, "used": 100.0}

    def used():
        found = sharers(4, scope=redis_server.scope(), **options)
        slots = sorted(at for one in found for thread in one["slots"] for at, _ in thread)
        return 100 * sum(slots[0] + 2 <= at < slots[0] + 7 for at in slots) / 50_000

    assert best_share(used, at_most=1.02) >= 0.97


def test_the_host_of_another_redis_is_not_waited_for(hand_clock):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        port = silent.getsockname()[1]
        one = Sharing(f"redis://127.0.0.1:{port}/team?sharers=2", requests_per_minute=60).limit("http://server", "m")
        started = time.monotonic()
        one.reserve()
        assert time.monotonic() - started < 30  # nobody would ever answer
        assert not one.is_shared
        one.close()


class Scripted:
    """The rules of the script, on a clock that is set by hand instead of Redis' own."""

    def __init__(self, client, clock):
        self._clock = clock
        self.backend = RedisBackend(parse_scope("redis://127.0.0.1:1/agreement").redis, "agreement")
        rules = client.register_script("local now = tonumber(table.remove(ARGV))\n" + RULES)
        self.backend._script = lambda keys, args: rules(keys=keys, args=[*args, repr(clock.time)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(played=operations)
def test_redis_answers_as_memory_does(client, played):
    client.flushall()
    clock = HandClock()
    scripted = Scripted(client, clock).backend
    assert play(scripted, clock, played) == play(LocalBackend(clock), clock, played)


@pytest.mark.parametrize("hurry", [20.0, 3600.0], ids=["slots pass", "days pass"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(played=operations)
@example(played=ONE_BY_ONE)
def test_redis_counts_the_day_as_memory_does(client, played, hurry):
    client.flushall()
    clock = HandClock()
    scripted = Scripted(client, clock).backend
    answers = play(scripted, clock, played, RATES_OF_DAY, hurry=hurry)
    assert answers == play(LocalBackend(clock), clock, played, RATES_OF_DAY, hurry=hurry)


def test_what_was_sent_today_is_kept_for_a_day_and_no_longer(redis_server, client):
    for _ in range(2):  # two processes, one after the other
        limit = Sharing(redis_server.scope(), day=DayLimits(requests=3)).limit("http://server", "m")
        assert limit.reserve().granted
        limit.close()
    limit = Sharing(redis_server.scope(), day=DayLimits(requests=3)).limit("http://server", "m")
    slot = limit.reserve()
    refused = limit.reserve()
    assert (slot.granted, refused.granted) == (True, False)
    assert refused.wait == pytest.approx(SLOT_LIFE_SECONDS, abs=60)
    limit.correct(slot, 0.0, sent=False)
    assert limit.reserve().granted
    (key,) = client.keys("*:day")
    assert DAY_SECONDS * 1000 < client.pttl(key) <= SLOT_LIFE_SECONDS * 1000
    limit.close()


def test_without_limits_per_day_redis_is_asked_as_before(limit_of, client):
    limit_of(requests_per_minute=60).reserve()
    assert len(client.keys("*")) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_pools_share_it_a_forked_child_included(redis_server):
    limits = Limits(requests_per_minute=60, scope=redis_server.scope())
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, limits=limits) as pool:
        began = time.monotonic()
        pool.chat("a")
        child = os.fork()
        if child == 0:
            try:
                pool.chat("b")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        with ChatPool("m", base_url=server.base_url, limits=limits) as another:
            another.chat("c")
        times = [request.time for request in server.requests]
    assert [request.prompt for request in server.requests] == ["a", "b", "c"]
    assert times[2] - began >= 2.0


def test_a_redis_that_is_slow_for_a_moment_is_asked_once_more(limit_of, client, caplog):
    one = limit_of(requests_per_minute=600, tokens_per_minute=60_000)
    slot = one.reserve(tokens=500)
    client.client_pause(700)  # longer than the time limit, and shorter than twice that
    assert one.reserve(tokens=500).granted
    assert one.is_shared
    client.client_pause(700)
    one.correct(slot, 900)  # more was needed: said until it is heard
    assert one.is_shared
    assert not caplog.records


def test_what_is_given_back_is_never_given_back_twice(limit_of, client):
    one = limit_of(tokens_per_minute=600)
    first, second = one.reserve(tokens=500), one.reserve(tokens=100)
    assert second.wait < 60
    client.client_pause(700)
    one.correct(second, 0)  # heard, but not answered in time
    assert one.is_shared
    client.ping()  # answered as soon as Redis goes on
    assert one.reserve(tokens=200, max_wait=1).granted is False
    assert first.granted


def test_a_redis_that_hangs_is_none(limit_of, client):
    one = limit_of(requests_per_minute=600)
    one.reserve()
    client.client_pause(3_000)
    one.reserve()
    assert not one.is_shared


PROGRAM = """
import json, sys
from chatpool import ChatPool, Limits
url, scope, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
sent = []
note = lambda event: sent.append(event.time) if event.kind == "sent" else None
limits = Limits(requests_per_minute=600, scope=scope)
with ChatPool("m", base_url=url, max_workers=8, limits=limits, listeners=[note]) as pool:
    failed = len(pool.map(["a"] * calls, progress=False).failures)
print(json.dumps({"sent": sent, "failed": failed}))
"""


def test_no_minute_of_the_senders_exceeds_the_limit_on_a_machine_that_is_busy(redis_server, record_property):
    """Event times are of one clock, as the processes are on one machine."""
    calls, busy = 400, []
    with FakeServer() as server:
        try:
            for _ in range(2 * (os.cpu_count() or 1)):
                busy.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            command = [sys.executable, "-c", PROGRAM, server.base_url, redis_server.scope(), str(calls)]
            senders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
            busy += senders
            found = [json.loads(sender.communicate(timeout=300)[0]) for sender in senders]
        finally:
            for process in busy:
                process.kill()
                process.wait()
    sent = sorted(at for one in found for at in one["sent"])
    most = max(sum(start <= at < start + 60 for at in sent) for start in sent)
    counted = f"Redis, 600 a minute, two senders, a busy machine: {len(sent)} sent, at most {most} in a minute"
    record_property("counted", counted)
    assert [one["failed"] for one in found] == [0, 0]
    assert len(sent) == 2 * calls
    assert most <= 600
