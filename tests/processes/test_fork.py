"""A pool that was made and used before a fork."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this platform does not fork")

WORK = """
import concurrent.futures, multiprocessing, os, signal, sys, threading, warnings, chatpool
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork of a process with threads
pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
pool.map(["before"] * 20)

def work(name):
    answers = pool.map([f"{name}-{number}" for number in range(100)])
    return [str(answer) for answer in answers] == [f"{name}-{number}" for number in range(100)]
"""


def test_parent_and_children_get_their_own_answers(server, script, ended):
    process = script(
        WORK
        + """
with multiprocessing.get_context("fork").Pool(3) as processes:
    theirs = processes.map_async(work, ["x", "y", "z"])
    mine = work("parent")
    print(mine, theirs.get(30))
""",
        server,
    )
    assert ended(process) == (0, "True [True, True, True]\n", "")


def test_a_fork_in_the_middle_of_calls_cancels_them_in_the_child_only(server, script, ended):
    server.set_script(lambda request: _slow(request))
    process = script(
        WORK
        + """
futures = [pool.submit("slow") for _ in range(8)]
child = os.fork()
if child == 0:
    done, pending = concurrent.futures.wait(futures, 10)
    print([future.cancelled() for future in futures].count(True), len(pending), work("child"), flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
print(status, [future.result().text for future in futures] == ["slow"] * 8, work("parent"))
""",
        server,
    )
    assert ended(process) == (0, "8 0 True\n0 True True\n", "")


def test_an_outcome_that_was_taken_just_before_the_fork_does_not_come_again_in_the_child(server, script, ended):
    process = script(
        WORK
        + """
from chatpool._engine.scheduler import Scheduler
is_forking, is_delivering, delivered = threading.Event(), Scheduler.is_delivering, Scheduler.delivered
Scheduler.is_delivering = lambda self: is_forking.set() or is_delivering(self)
Scheduler.delivered = lambda self, call: is_forking.wait(20) and delivered(self, call)  # the worker is that far

outcomes = pool.as_completed(["taken"])
first = next(outcomes)
child = os.fork()
if child == 0:
    print([outcome.index for outcome in outcomes], flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], first.value.text, list(outcomes))
""",
        server,
    )
    assert ended(process) == (0, "[]\n0 taken []\n", "")


def test_the_callbacks_of_a_call_are_called_in_the_parent_only(server, script, ended):
    server.set_script(lambda request: _slow(request))
    process = script(
        WORK
        + """
held = threading.Lock()

def note(future):
    held.acquire(timeout=10)  # in the child nobody releases it
    os.write(1, f"called, in the parent: {os.getpid() == parent}, cancelled: {future.cancelled()}\\n".encode())

parent = os.getpid()
future = pool.submit("slow")
future.add_done_callback(note)
held.acquire()
child = os.fork()
if child == 0:
    signal.alarm(50)  # it would outlive the test otherwise, should it hang
    future.add_done_callback(lambda future: os.write(1, b"called in the child as it was added\\n"))
    print(future.cancelled(), work("child"), flush=True)
    os._exit(0)
held.release()
os.waitpid(child, 0)
future.result()
pool.close()
""",
        server,
    )
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [
        "True True",
        "called in the child as it was added",
        "called, in the parent: True, cancelled: False",
    ]


def _slow(request):
    from chatpool.testing import Delay

    return Delay(0.5) if request.body["messages"][-1]["content"] == "slow" else None


def test_the_parents_connections_stay_open(server, script, ended):
    process = script(
        WORK
        + """
child = os.fork()
if child == 0:
    print(work("child"), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(work("parent"))
""",
        server,
    )
    assert ended(process) == (0, "True\nTrue\n", "")
    assert server.connections <= 8


@pytest.mark.slow
def test_a_pool_goes_to_a_spawned_process_as_its_configuration(server, tmp_path):
    import subprocess

    program = tmp_path / "program.py"
    program.write_text(
        """
import multiprocessing, sys, chatpool

def work(pool):
    return pool.chat("from the child").text

if __name__ == "__main__":
    pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2)
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        print(processes.apply(work, [pool]))
"""
    )
    out = subprocess.run(
        [sys.executable, str(program), server.base_url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (out.stdout, out.stderr) == ("from the child\n", "")
