"""Shared limits on clocks of the tests' own, in folders of the tests' own."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest

# With --import-mode=importlib, the modules beside the tests are not found otherwise.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

SHARER = pathlib.Path(__file__).with_name("sharer.py")
ROOT = SHARER.parents[2]
HUNG = 60  # seconds


class HandClock:
    """A clock that is set by hand."""

    def __init__(self, time=1000.0):
        self.time = time

    def __call__(self):
        return self.time


@pytest.fixture
def hand_clock():
    return HandClock()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Limits of the user's are not the tests' to use."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))


@pytest.fixture
def sharers():
    """A function that starts processes of ``sharer.py`` and returns what each has found, as a list of dicts."""
    started = []

    def run(count, **options):
        these = [
            subprocess.Popen(
                [sys.executable, str(SHARER), json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for _ in range(count)
        ]
        started.extend(these)
        for one in these:
            assert one.stdout.readline() == "ready\n"
        for one in these:
            one.stdin.write("go\n")
            one.stdin.flush()
        return [json.loads(one.communicate(timeout=HUNG)[0]) for one in these]

    yield run
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


class RedisServer:
    """A Redis of the test's own, which can be stopped and started again on the same port."""

    def __init__(self, folder, *options):
        self._folder = folder
        self._options = options
        self._process = None
        self.port = 0

    def start(self):
        program = shutil.which("redis-server")
        assert program, "there is no redis-server: scripts/deploy-tests.sh installs Debian's"
        self.port = self.port or _free_port()
        self._process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder, "--save", "",
             "--appendonly", "no", *self._options],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        for line in self._process.stdout:
            if "ready to accept connections" in line.lower():
                return
        raise AssertionError("redis-server ended")

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def scope(self, name="limit"):
        return f"redis://127.0.0.1:{self.port}/{name}"


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def redis_server():
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def redis_with_password():
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(folder, "--requirepass", "hush")
        server.start()
        yield server
        server.stop()


@pytest.fixture
def best_share():
    """``best_share(used, at_most=1.005)``: the largest share of a limit that is used in up to three runs.

    A machine whose processors are taken sends later than it might, so one good run tells; more than the limit is never
    given, in any.
    """

    def measure(used, *, at_most, enough=0.97):
        shares = []
        while not shares or (max(shares) < enough and len(shares) < 3):
            shares.append(used())
            assert shares[-1] <= at_most
        return max(shares)

    return measure
