"""Real processes against a server in this one."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from chatpool.testing import FakeServer, Stall


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def stalling_server():
    with FakeServer(lambda request: Stall()) as server:
        yield server


@pytest.fixture
def script(request):
    """A function that starts a Python script with the server's base_url as its argument; ended with the test."""
    started = []

    def start(code, server, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), server.base_url, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


HUNG = 60  # seconds: generous; what is measured stands in benchmarks/


@pytest.fixture
def ended():
    """A function that waits for a process to end and returns its exit code, output and errors."""

    def wait(process):
        out, err = process.communicate(timeout=HUNG)
        return process.returncode, out, err

    return wait
