"""The program of examples/ on the real Ray: nothing is lost or done twice, whatever is killed."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from chatpool.batch import shards
from chatpool.testing import Error
from tests.deploy.shard_files import Gate, check, process_of, write_rows

pytest.importorskip("ray", reason="Ray has no wheel for this Python")

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
KEY = "sk-of-the-cluster"
SLOW = 300  # seconds: Ray takes long to start, and a busy machine makes that minutes
ROWS, SHARD_ROWS, MAX_WORKERS = 120, 30, 16


@pytest.fixture
def environment(server):
    """What Ray and the example read, with a folder of the test's own: pytest's are too long for names of sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield {
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": KEY,
            "PYTHONPATH": str(ROOT),
        }


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def begin(python, environment, tmp_path, work):
    """A function that starts the example, with shards that are smaller and nothing else changed."""
    text = (ROOT / "examples" / "ray_shards.py").read_text(encoding="utf-8")
    assert "rows=2000" in text
    (tmp_path / "ray_shards.py").write_text(text.replace("rows=2000", f"rows={SHARD_ROWS}"), encoding="utf-8")
    source = write_rows(tmp_path / "big.jsonl", ROWS)
    command = [str(path) for path in (tmp_path / "ray_shards.py", source, work, tmp_path / "out.jsonl")]
    return lambda **more: python(*command, **environment, **more)


@pytest.fixture
def address(start, environment):
    """A cluster of three nodes on this host, of which the first has no processor for tasks."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1"]
    first = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
    nodes = []
    for options in (first, *[[f"--address={address}", "--num-cpus=1"]] * 2):
        nodes.append(start(*command, *options, **environment))
        nodes[-1].wait_for("Ray runtime started", SLOW)
    yield address
    for node in reversed(nodes):
        node.end()


def running(work):
    """The numbers of the shards that are running."""
    return [state.index for state in shards.status(work) if state.is_running]


def parent_of(process):
    return int(re.search(r"PPid:\s*(\d+)", Path(f"/proc/{process}/status").read_text())[1])


def test_a_worker_that_is_killed_loses_nothing(begin, server, work):
    gate = Gate(20)
    server.set_script(gate)
    driver = begin()
    gate.wait_until_waiting(MAX_WORKERS)
    os.kill(process_of(work, running(work)[0]), signal.SIGKILL)
    gate.opened.set()
    assert driver.ended(SLOW) == 0, driver.output
    check(server, work, ROWS, repeated=MAX_WORKERS)
    assert f"{ROWS} of {ROWS} rows" in driver.output
    assert KEY not in driver.output


def test_a_node_that_is_killed_loses_nothing(begin, server, work, address):
    gate = Gate(20)
    server.set_script(gate)
    driver = begin(RAY_ADDRESS=address)
    gate.wait_until_waiting(MAX_WORKERS)
    os.kill(parent_of(process_of(work, running(work)[0])), signal.SIGKILL)
    gate.opened.set()
    assert driver.ended(SLOW) == 0, driver.output
    check(server, work, ROWS, repeated=MAX_WORKERS)


def test_a_refused_key_ends_the_program(begin, server, work):
    server.set_script(lambda request: Error(401))
    driver = begin()
    assert driver.ended(SLOW) == 1
    assert "AuthenticationError" in driver.output.splitlines()[-1]
    assert KEY not in driver.output
    assert max(state.done for state in shards.status(work)) == 0
