"""Software that people put in front of a model, as Debian has it, with a model of the tests' own behind it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from benchmarks.debian import binary
from benchmarks.overload.fronts import Haproxy, Nginx, running
from chatpool import ChatPool

PROGRAMS = {Nginx: "nginx", Haproxy: "haproxy"}


@pytest.fixture
def start():
    """``start(front)`` starts it; ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(front):
            program = PROGRAMS[type(front)]
            assert Path(binary(program)).exists(), f"there is no {program}: scripts/server-tests.sh installs Debian's"
            return stack.enter_context(running(front))

        yield start


@pytest.fixture
def open_pool():
    """``open_pool(front, workers)`` makes a pool with every default; closed with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda front, workers: stack.enter_context(
            ChatPool("m", base_url=front.base_url, api_key="key", max_workers=workers)
        )
