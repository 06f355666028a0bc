"""Rows of a table in PostgreSQL: connections that workers open, and runs that are killed."""

from __future__ import annotations

import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from chatpool.testing import FakeServer, Stall

pytestmark = pytest.mark.deploy

APP = Path(__file__).with_name("apps") / "postgres_rows.py"
ROOT = Path(__file__).parents[2]
HUNG = 120  # seconds
WORKERS, BATCH = 8, 20  # of the application


def program(name: str) -> str:
    """The path of a program of PostgreSQL; Debian does not put all of them on PATH."""
    found = shutil.which(name) or max(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), default=None)
    assert found, f"there is no {name}: scripts/deploy-tests.sh installs PostgreSQL"
    return found


@pytest.fixture(scope="module")
def sockets():
    """The folder of the socket of a PostgreSQL of the tests' own; it refuses to run as root."""
    folder = tempfile.mkdtemp(prefix="chatpool-postgres-")
    user = {}
    if os.getuid() == 0:
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": HUNG, **user}
    data = f"{folder}/data"
    subprocess.run([program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-N"], check=True, **quiet)
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=50"
    control = [program("pg_ctl"), "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "start"], check=True, **quiet)
    yield folder
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)
    shutil.rmtree(folder)


@pytest.fixture
def start(sockets, tmp_path):
    """A function that starts the application on an empty database."""
    pytest.importorskip("psycopg", reason="it comes with the extra deploy")
    psql = [program("psql"), "-h", sockets, "-U", "postgres", "-q", "-c"]
    subprocess.run([*psql, "DROP SCHEMA public CASCADE"], check=True, timeout=HUNG, stderr=subprocess.DEVNULL)
    subprocess.run([*psql, "CREATE SCHEMA public"], check=True, timeout=HUNG)

    def start(*words, server, age=0):
        environment = {**os.environ, "CHAT_URL": server.base_url, "SOCKETS": sockets, "CONN_MAX_AGE": json.dumps(age)}
        environment["PYTHONPATH"] = str(ROOT)
        return subprocess.Popen([sys.executable, str(APP), *words], env=environment, stdout=subprocess.PIPE, text=True)

    return start


def output_of(child, code=0):
    output, _ = child.communicate(timeout=HUNG)
    assert child.returncode == code
    return output


@pytest.mark.parametrize("age", [0, 600, None])
def test_workers_give_their_connections_back(start, server, age, record_property):
    output_of(start("make", "300", server=server))
    facts = json.loads(output_of(start("run", "", server=server, age=age)))
    assert (facts["done"], facts["pending"], facts["open"]) == (300, 0, 0)
    assert 1 <= facts["peak"] <= WORKERS
    record_property("counted", f"CONN_MAX_AGE={age}: {facts['peak']} connections, none {facts['seconds']:.2f} s later")


@pytest.mark.smoke
@pytest.mark.parametrize("with_journal", [True, False])
def test_a_killed_run_is_gone_on_with(start, tmp_path, with_journal):
    journal, answered = str(tmp_path / "journal") if with_journal else "", 0
    with FakeServer(script=lambda request: Stall() if request.number >= answered else None) as server:
        output_of(start("make", "300", server=server))
        for answered in (60, 150):
            child = start("run", journal, server=server)
            server.wait_for(answered + WORKERS, timeout=HUNG)  # all workers wait
            child.send_signal(signal.SIGKILL)
            output_of(child, -signal.SIGKILL)
        answered = 1000
        facts = json.loads(output_of(start("run", journal, server=server)))
        assert (facts["done"], facts["pending"]) == (300, 0)
        repeated = len(server.requests) - 300
    assert 2 * WORKERS <= repeated <= 2 * (WORKERS if with_journal else WORKERS + BATCH)
