"""Pools that share their limits."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from chatpool import ChatPool, ConfigurationError, DeadlineExceededError, Limits, Timeout
from chatpool._quota import Sharing, file
from chatpool._quota.file import FileBackend
from chatpool.testing import FakeServer, RateLimited


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def make():
    """A function that makes a pool that shares its limits with the others."""
    made = []

    def make(server, max_workers=4, model="m", **limits):
        limits = Limits(scope="test", **limits)
        made.append(ChatPool(model, base_url=server.base_url, max_workers=max_workers, limits=limits))
        return made[-1]

    yield make
    for pool in made:
        pool.abort()


@pytest.fixture
def stepped(stepped_time, monkeypatch):
    """The clock of the pools and of the limit that they share."""
    monkeypatch.setattr("chatpool._quota.sharing.FileBackend", partial(FileBackend, now=stepped_time.now))
    return stepped_time


def together(*actions):
    with ThreadPoolExecutor(len(actions)) as executor:
        return [future.result() for future in [executor.submit(action) for action in actions]]


def most_within(times, seconds):
    return max(sum(start <= at < start + seconds for at in times) for start in times)


@pytest.mark.slow
def test_two_pools_keep_to_one_limit_and_use_it(stepped, make, chatpool_server_factory):
    server = chatpool_server_factory()
    pools = [make(server, requests_per_minute=1200) for _ in range(2)]  # a burst of 20, then 19.7 a second
    runs = [lambda pool=pool: pool.map(["a"] * 30, progress=False) for pool in pools]
    results = stepped.run(pools, lambda: together(*runs))
    assert [len(result.failures) for result in results] == [0, 0]
    times = sorted(request.time for request in server.requests)
    ideal = (60 - 20) / 19.7
    assert ideal * 0.97 <= times[-1] - times[0] <= ideal * 1.1
    assert most_within(times, 0.5) <= 20 + 10


def test_both_are_served(stepped, make, chatpool_server_factory):
    server = chatpool_server_factory()
    pools = [make(server, requests_per_minute=1200, burst=0.05, max_workers=8) for _ in range(2)]

    def run(pool):
        pool.map(["a"] * 12, progress=False)
        return stepped.now()

    ends = stepped.run(pools, lambda: together(*(lambda pool=pool: run(pool) for pool in pools)))
    assert abs(ends[0] - ends[1]) < 0.5  # of 1.2 s: they take turns


def test_other_models_have_limits_of_their_own(stepped, make, chatpool_server_factory):
    pool = make(chatpool_server_factory(), requests_per_minute=60)
    rows = [{"prompt": "a", "model": name} for name in "abcdef"]
    began = stepped.now()
    stepped.run(pool, lambda: pool.map(rows, progress=False))
    assert stepped.now() - began < 0.9


def test_a_refusal_for_rate_pauses_every_pool(make):
    with FakeServer(script=[RateLimited(0.6)]) as server:
        one, other = (make(server, requests_per_minute=6000) for _ in range(2))
        refused = one.submit("a")
        server.wait_for(1)
        limit = Sharing("test", requests_per_minute=6000).limit(server.base_url, "m")
        while not limit.status().paused_for:  # told in the moment after the answer
            assert not refused.done()
        assert other.chat("b").text == "b"
        assert refused.result().text == "a"
        first, second = server.requests[0].time, server.requests[1].time
    assert second - first >= 0.55


def test_tokens_are_given_back_when_the_answer_was_short(server, make):
    pool = make(server, tokens_per_minute=60_000)
    for _ in range(3):
        pool.chat("a", max_tokens=19_000)
    assert Sharing("test", tokens_per_minute=60_000).limit(server.base_url, "m").reserve(tokens=900).wait < 1.0


def test_a_request_that_can_never_fit_fails_at_once_and_reserves_nothing(server, make):
    pool = make(server, tokens_per_minute=1000)
    with pytest.raises(ConfigurationError, match="1,000"):
        pool.chat("a", max_tokens=5000)
    assert pool.chat("b", max_tokens=500).text == "b"
    assert len(server.requests) == 1


def test_a_single_call_does_not_wait_longer_than_it_may(stepped, make, chatpool_server_factory):
    pool = make(chatpool_server_factory(), requests_per_minute=1)
    stepped.run(pool, lambda: pool.chat("a"))
    began = stepped.now()
    with pytest.raises(DeadlineExceededError):
        stepped.run(pool, lambda: pool.chat("b", timeout=Timeout(total=0.3)))
    assert stepped.now() - began <= 0.31


def test_aborting_wakes_who_waits_for_a_slot(server, make):
    pool = make(server, requests_per_minute=1)
    pool.chat("a")
    waiting = pool.submit("b")
    pool.abort()
    assert waiting.exception(30) is not None  # a slot is free after a minute
    assert len(server.requests) == 1


def test_a_call_from_inside_a_worker_keeps_to_it_too(server):
    inner, ended = [], threading.Event()

    def follow():
        if not inner:
            inner.extend(pool.chat("again").text for _ in range(7))
            ended.set()

    limits = Limits(requests_per_minute=300, scope="test")  # a burst of 5, then 4.9 a second
    with ChatPool("m", base_url=server.base_url, limits=limits, after_call=follow) as pool:
        began = time.monotonic()
        pool.chat("a")
        assert ended.wait(60)
    assert inner == ["again"] * 7
    assert server.requests[-1].time - began >= 3 / 4.95


def test_without_rates_a_pause_is_shared_and_nothing_else(server, make):
    pool = make(server)
    assert len(pool.map(["a"] * 50, progress=False)) == 50
    Sharing("test").limit(server.base_url, "m").pause(0.4)
    started = time.monotonic()
    pool.chat("b")
    assert time.monotonic() - started >= 0.3


def test_a_place_that_cannot_be_used_costs_a_share_and_a_warning(server, make, caplog, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    pool = make(server, requests_per_minute=6000)
    assert [str(one) for one in pool.map(["a"] * 5, progress=False)] == ["a"] * 5
    found = [record.getMessage() for record in caplog.records if "shared limit" in record.getMessage()]
    assert len(found) == 1
    assert "1/4 of the limit" in found[0]


@pytest.mark.parametrize("scope", ["", "redis://:hush@host:port/team", "http://host/team"])
def test_a_scope_that_cannot_be_read_is_said_when_the_pool_is_made(server, scope):
    with pytest.raises(ConfigurationError, match=r"Limits\(scope=\)") as caught:
        ChatPool("m", base_url=server.base_url, limits=Limits(scope=scope))
    assert "hush" not in str(caught.value)


def test_a_scope_of_another_type_is_refused():
    with pytest.raises(TypeError, match="scope must be"):
        Limits(scope=5)


def test_a_password_is_neither_shown_nor_pickled(server, monkeypatch):
    limits = Limits(requests_per_minute=60, scope="redis://:hush@127.0.0.1:1/team")
    assert "hush" not in repr(limits)
    monkeypatch.setattr("chatpool._quota.redis._client", lambda address: (_NoRedis(), (OSError,), ()))
    pool = ChatPool("m", base_url=server.base_url, limits=limits)
    with pool, pytest.raises(ConfigurationError, match="passwords are not pickled"):
        pickle.dumps(pool)


class _NoRedis:
    def register_script(self, script):
        return None


def test_a_pickled_pool_shares_the_limit_where_it_arrives(server, make):
    pool = make(server, requests_per_minute=60)
    began = time.monotonic()
    pool.chat("a")
    with pickle.loads(pickle.dumps(pool)) as other:
        other.chat("b")
        assert time.monotonic() - began >= 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_pool_in_a_forked_child_shares_the_limit(server, make):
    pool = make(server, requests_per_minute=60)
    began = time.monotonic()
    pool.chat("a")
    child = os.fork()
    if child == 0:
        try:
            pool.chat("b")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert server.requests[1].time - began >= 1.0


def test_the_file_is_closed_with_the_pool(server, make):
    pool = make(server, requests_per_minute=6000)
    pool.chat("a")
    path = file.file_for(f"test\n{server.base_url}\nm")
    assert path.exists()
    pool.close()
    upstream = next(iter(pool._core.engine._scheduler._upstreams))
    assert upstream._leases.limit._backend._minute._descriptor is None


PROGRAM = """
import json, sys
from chatpool import ChatPool, Limits
url, calls = sys.argv[1], int(sys.argv[2])
with ChatPool("m", base_url=url, max_workers=8, limits=Limits(requests_per_minute=2400, scope="test")) as pool:
    print("ready", flush=True)
    sys.stdin.readline()
    print(len(pool.map(["a"] * calls, progress=False).failures))
"""


@pytest.mark.slow
def test_processes_keep_to_the_limit(server):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.base_url, "60"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        began = time.monotonic()
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        assert [child.communicate(timeout=60)[0] for child in children] == ["0\n", "0\n"]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    emitted = (2400 - 40 + 1) / 60
    ideal = (120 - 40) / emitted  # seconds: a burst of 40 at once
    assert max(request.time for request in server.requests) - began >= ideal * 0.99
