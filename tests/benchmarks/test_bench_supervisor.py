"""However a run of the benchmarks ends, its processes and its temporary files are gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.debian import binary
from benchmarks.store import HERE
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells who is orphaned"),
    pytest.mark.slow,
]

# A run with a thread that does not end, a temporary file, a child that ignores SIGTERM, and a grandchild in a session
# of its own whose parent has died.  Its main thread waits for something that no signal interrupts, as any wait is that
# begins in the moment in which the signal comes.
RUN = """
import os, signal, subprocess, sys, tempfile, threading, time
from benchmarks.supervisor import supervised

CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
GRANDCHILD = '''
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
'''

def work():
    threading.Thread(target=time.sleep, args=(600,)).start()
    tempfile.mkdtemp()
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    child.stdout.readline()
    subprocess.run([sys.executable, "-c", GRANDCHILD], check=True)
    signal.siginterrupt(signal.SIGINT, False)
    signal.siginterrupt(signal.SIGTERM, False)
    print("ready", flush=True)
    os.read(os.pipe()[0], 1)

sys.exit(supervised(work))
"""


@pytest.fixture
def folder():
    """A folder for temporary files that every user may look into: nginx runs as another."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: S103 - as /tmp is
        yield Path(name)


@pytest.fixture
def start(folder):
    """Start Python in a session of its own; what it leaves behind is ended with the test."""
    started = []

    def start(*arguments):
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(HERE.parent)}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=HERE.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for pid in of_run(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def of_run(folder):
    """The living processes that have ``folder`` for their temporary files, or are nginx's of it."""
    return [pid for pid in pids() if str(folder) in (text(pid, "environ") + text(pid, "cmdline"))]


def of_session(leader):
    return [pid for pid in pids() if stat(pid)[3:4] == [str(leader)] and stat(pid)[0] not in "ZX"]


def child_of(parent):
    (child,) = (pid for pid in pids() if stat(pid)[1:2] == [str(parent)])
    return child


def pids():
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def text(pid, file):
    try:
        return Path("/proc", str(pid), file).read_text(errors="replace")
    except OSError:
        return ""


def stat(pid):
    return text(pid, "stat").rpartition(")")[2].split() or ["X"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_and_all_that_it_has_started(start, folder, number):
    run = start("-c", RUN)
    assert run.stdout.readline() == b"ready\n"
    assert len(of_run(folder)) == 4
    run.send_signal(number)
    assert run.wait(60) == 128 + number
    assert of_run(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("victim", ["the supervisor", "the process that measures"])
def test_the_one_that_is_left_cleans_up(start, folder, victim):
    run = start("-c", RUN)
    assert run.stdout.readline() == b"ready\n"
    os.kill(run.pid if victim == "the supervisor" else child_of(run.pid), signal.SIGKILL)
    assert run.wait(60) == (-signal.SIGKILL if victim == "the supervisor" else 128 + signal.SIGKILL)
    until(lambda: of_run(folder) == [])
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("end", "code"), [("return 3", 3), ("raise OSError", 1), ("sys.exit(4)", 4)])
def test_a_run_that_ends_has_its_own_exit_code(start, folder, end, code):
    run = start("-c", RUN.replace('print("ready", flush=True)', end).replace("(600,)", "(0,)"))
    assert run.wait(60) == code
    assert of_run(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path(binary("nginx")).exists(), reason="needs nginx")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_benchmark_that_is_killed_leaves_nothing_behind(start, folder, number):
    run = start("-m", "benchmarks", "backoff", "--quick")
    until(lambda: list(folder.glob("*/*/nginx.pid")))
    until(lambda: any("contender_child" in text(pid, "cmdline") for pid in of_session(run.pid)))
    assert len(of_session(run.pid)) >= 5  # the supervisor, the process that measures, two of nginx, a contender
    run.send_signal(number)
    run.wait(60)
    until(lambda: of_session(run.pid) == [])
    assert of_run(folder) == []
    until(lambda: not list(folder.iterdir()))
