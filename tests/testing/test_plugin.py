"""The fixtures that users opt in to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import chatpool
from chatpool.clock import current_clock
from chatpool.testing import Error, FakeServer, InstantClock, RateLimited, Stall

pytest_plugins = ["chatpool.testing.plugin"]

ROOT = Path(chatpool.__file__).resolve().parent.parent


def test_the_pool_talks_to_the_server(chatpool_pool, chatpool_server):
    assert chatpool_pool.chat("ping").text == "ping"
    (request,) = chatpool_server.requests
    assert request.headers["authorization"] == "Bearer fake-key"
    assert request.body["model"] == "fake-model"


def test_waits_are_instant_in_whatever_order_fixtures_are_named(chatpool_pool, chatpool_server, instant_waits):
    chatpool_server.enqueue(RateLimited(60), RateLimited(100, hint="retry-after"), Error(503))
    before = time.monotonic()
    assert chatpool_pool.chat("ping").text == "ping"
    assert time.monotonic() - before < 10
    assert instant_waits.skipped > 150
    assert len(chatpool_server.requests) == 4


def test_without_it_the_clock_is_the_real_one():
    assert not isinstance(current_clock(), InstantClock)


def test_the_factory_makes_servers_of_all_kinds(chatpool_server_factory):
    first, second = chatpool_server_factory(Error(401)), chatpool_server_factory(reply=lambda body: "x")
    assert isinstance(first, FakeServer)
    assert first.base_url != second.base_url


def test_calls_left_at_a_stalled_server_do_not_hold_up_the_end(chatpool_pool, chatpool_server):
    chatpool_server.set_script(Stall())
    futures = [chatpool_pool.submit("ping") for _ in range(3)]
    chatpool_server.wait_for(3)
    assert not any(future.done() for future in futures)


OWN_TEST = """
def test_own(chatpool_server, chatpool_pool, instant_waits):
    assert chatpool_pool.chat("hello").text == "hello"
"""


def test_users_opt_in_on_the_command_line(tmp_path):
    (tmp_path / "test_own.py").write_text(OWN_TEST)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    where = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "timeout": 60}
    with_it, without = [
        subprocess.run(command + options, capture_output=True, text=True, check=False, **where)
        for options in (["-p", "chatpool.testing.plugin"], [])
    ]
    assert with_it.returncode == 0, with_it.stdout
    assert without.returncode == 1
    assert "fixture 'chatpool_server' not found" in without.stdout
