"""What a request costs besides waiting, in figures that do not depend on the machine: calls of functions, and switches.

Both are of one worker thread; each worker of many does the same.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections import Counter
from typing import Any, Iterator

import pytest

from chatpool import ChatPool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such figures")

REQUESTS = 200

# Python 3.9 counts what taking a lock and leaving it cost as well.
MOST_CALLS = 840 if sys.version_info >= (3, 10) else 960
MOST_SWITCHES = 3

SERVER = """
from chatpool.testing import FakeServer
with FakeServer() as server:
    print(server.base_url, flush=True)
    input()
"""


@pytest.fixture
def base_url() -> Iterator[str]:
    """The address of a server in another process."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.communicate("\n")


@pytest.fixture
def warm_pool(base_url: str) -> Iterator[ChatPool]:
    """A pool whose worker and connection are there."""
    with ChatPool("m", base_url=base_url, api_key="k", max_workers=1) as pool:
        pool.map([f"warm {number}" for number in range(20)], progress=False)
        yield pool


@pytest.fixture
def counted() -> Iterator[Counter[str]]:
    """The calls of functions, in threads that are started from now on and in this one, while ``counted["on"]`` is 1."""
    counts: Counter[str] = Counter()

    def count(frame: Any, event: str, argument: Any) -> None:
        counts[event] += counts["on"]

    threading.setprofile(count)
    before = sys.getprofile()
    sys.setprofile(count)
    yield counts
    sys.setprofile(before)
    threading.setprofile(None)


def run(pool: ChatPool) -> None:
    assert not pool.map([f"row {number}" for number in range(REQUESTS)], progress=False).failures


def test_functions_are_called_less_than_a_thousand_times(
    counted: Counter[str], warm_pool: ChatPool, record_property: Any
) -> None:
    counted["on"] = 1
    run(warm_pool)
    counted["on"] = 0
    each = (counted["call"] + counted["c_call"]) / REQUESTS
    record_property("counted", f"calls of functions: {each:.0f} for a request")
    assert 400 < each <= MOST_CALLS


def test_a_request_waits_for_its_answer_and_for_little_else(warm_pool: ChatPool) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    run(warm_pool)
    switches = (resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before) / REQUESTS
    assert switches <= MOST_SWITCHES
