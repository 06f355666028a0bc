"""Forks, garbage collections, interruptions and ends of a process at moments that nobody would choose."""

from __future__ import annotations

import shutil
import signal

import certifi
import pytest

from chatpool.testing import Stall

forks = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this platform does not fork")

FORKING = """
import concurrent.futures, os, signal, sys, threading, warnings, chatpool
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork of a process with threads

def in_child(function):
    child = os.fork()
    if child == 0:
        signal.alarm(50)  # it would outlive the test otherwise, should it hang
        print(function(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)

def cancelled_and_pending(*futures):
    done, pending = concurrent.futures.wait(futures, 10)
    return [future.cancelled() for future in done], len(pending)
"""


@forks
def test_a_fork_between_the_end_of_a_call_and_its_delivery_cancels_it_in_the_child(server, script, ended):
    process = script(
        FORKING
        + """
reporting, forked = threading.Event(), threading.Event()

def linger(event):
    if event.kind == "succeeded":
        reporting.set()
        forked.wait()

pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=1, listeners=[linger])
future = pool.submit("a")
reporting.wait()
in_child(lambda: cancelled_and_pending(future))
forked.set()
print(future.result().text)
""",
        server,
    )
    assert ended(process) == (0, "([True], 0)\na\n", "")


@forks
def test_a_pool_that_only_its_future_refers_to_is_looked_after_at_a_fork(server, script, ended):
    server.set_script(lambda request: Stall() if request.prompt == "a" else None)
    process = script(
        FORKING
        + """
future = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=1).submit("a")
in_child(lambda: cancelled_and_pending(future))
print(future.running() or not future.done())
future.cancel()
""",
        server,
    )
    assert ended(process) == (0, "([True], 0)\nTrue\n", "")


@forks
def test_an_iterator_of_a_pool_that_nobody_else_refers_to_ends_in_the_child(server, script, ended):
    server.set_script(lambda request: None if request.prompt == "0" else Stall())
    process = script(
        FORKING
        + """
outcomes = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2).imap(["0", "1", "2"])
next(outcomes)
in_child(lambda: [type(outcome.error).__name__ for outcome in outcomes])
outcomes.close()
""",
        server,
    )
    assert ended(process) == (0, "['CallCancelledError', 'CallCancelledError']\n", "")


@forks
def test_a_pool_that_cannot_start_over_in_the_child_says_why_and_keeps_no_other_from_it(
    server, script, ended, tmp_path
):
    authorities = tmp_path / "ca.pem"
    shutil.copy(certifi.where(), authorities)
    process = script(
        FORKING
        + """
import logging
logging.getLogger("chatpool").addHandler(logging.NullHandler())
broken = chatpool.ChatPool("m", base_url="https://127.0.0.1:9/v1", verify=sys.argv[2], max_workers=1, retry=0)
other = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=1)

def answer(pool):
    try:
        return pool.submit("b").result(60).text
    except chatpool.ChatPoolError as error:
        return type(error).__name__, sys.argv[2] in str(error)

print(answer(broken)[0], answer(other), flush=True)
os.unlink(sys.argv[2])
in_child(lambda: [answer(broken), answer(other)])
""",
        server,
        str(authorities),
    )
    assert ended(process) == (0, "APIConnectionError b\n[('ConfigurationError', True), 'b']\n", "")


@pytest.mark.slow
@forks
def test_an_adapter_of_the_users_own_shares_no_connection_with_the_parent(server, script, ended):
    process = script(
        FORKING
        + """
import requests, requests.adapters

class Own(requests.adapters.HTTPAdapter):
    pass

session = requests.Session()
session.mount("http://", Own(pool_maxsize=4))
pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4, session=session)

def crossed(name):
    prompts = [f"{name}-{number}" for number in range(100)]
    return sum(str(answer) != prompt for prompt, answer in zip(prompts, pool.map(prompts)))

crossed("before")
children = []
for name in "xyz":
    children.append(os.fork())
    if children[-1] == 0:
        signal.alarm(50)
        os.write(1, f"{crossed(name)} ".encode())
        os._exit(0)
here = crossed("parent")
for child in children:
    os.waitpid(child, 0)
print(here)
""",
        server,
    )
    code, out, _ = ended(process)
    assert (code, out) == (0, "0 0 0 0\n")


@pytest.mark.slow
def test_a_script_that_ends_by_an_exception_does_not_wait_for_a_pool_it_does_not_hold(stalling_server, script, ended):
    process = script(
        """
        import sys, chatpool
        future = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=1).submit("a")
        raise LookupError("of the script's own")
        """,
        stalling_server,
    )
    code, _, err = ended(process)
    assert code == 1
    assert err.count("Traceback") == 1


def test_a_script_that_waits_for_its_calls_at_its_end_can_be_interrupted(stalling_server, script, ended):
    process = script(
        """
        import sys, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2)
        futures = [pool.submit("a") for _ in range(4)]
        print("at the end", flush=True)
        """,
        stalling_server,
    )
    assert process.stdout.readline() == "at the end\n"
    stalling_server.wait_for(2)
    process.send_signal(signal.SIGINT)
    ended(process)


def test_an_iterator_that_is_collected_while_the_engine_holds_its_lock_ends_quietly(server, script, ended):
    """Any allocation may start a collection: this does it at a place that is reached with the lock held."""
    process = script(
        """
        import gc, sys, chatpool
        from chatpool._engine.upstream import Upstream

        gc.disable()
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2)
        outcomes = pool.imap(["x"] * 5)
        next(outcomes)
        cycle = [outcomes]
        cycle.append(cycle)
        del outcomes, cycle
        wait, collected = Upstream.wait, []

        def collect_first(*arguments):
            collected.append(gc.collect())
            return wait(*arguments)

        Upstream.wait = collect_first
        print([answer.text for answer in pool.map(["a", "b", "c"])], any(collected))
        pool.close()
        """,
        server,
    )
    assert ended(process) == (0, "['a', 'b', 'c'] True\n", "")


@pytest.mark.parametrize("where", ["_engine.upstream.Upstream.wait", "_observe.listeners.Statistics.__call__"])
def test_a_finalizer_may_cancel_a_future_while_a_lock_of_the_pool_is_held(where, server, script, ended):
    server.set_script(lambda request: Stall() if request.prompt == "unwanted" else None)
    process = script(
        """
        import concurrent.futures, gc, importlib, sys, threading, chatpool

        class Holder:
            def __init__(self, future):
                self.future = future
                self.itself = self  # only the collector finds it

            def __del__(self):
                self.future.cancel()

        gc.disable()
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2)
        unwanted = pool.submit("unwanted")
        Holder(unwanted)
        module, name, method = sys.argv[2].rsplit(".", 2)
        cls = getattr(importlib.import_module(f"chatpool.{module}"), name)
        real, collected = getattr(cls, method), []

        def collect(*arguments):
            if not collected:
                collected.append(gc.collect())

        class Usage:
            def __getattr__(self, name):
                collect()
                return 0

        if method == "wait":
            setattr(cls, method, lambda *arguments: (collect(), real(*arguments))[1])
        else:
            setattr(cls, method, lambda self, event: real(self, event._replace(usage=Usage())))
        answers = pool.map(["a", "b", "c"])
        pool.stats()  # which counts what was heard so far
        print([answer.text for answer in answers], bool(collected))
        concurrent.futures.wait([unwanted], 10)
        print(unwanted.cancelled(), pool.stats().failed)
        pool.close()
        """,
        server,
        where,
    )
    assert ended(process) == (0, "['a', 'b', 'c'] True\nTrue 1\n", "")


@pytest.mark.slow
def test_many_iterators_that_are_collected_anywhere_end_quietly(server, script, ended):
    process = script(
        """
        import gc, sys, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        gc.set_threshold(5, 1, 1)
        for number in range(30):
            outcomes = pool.imap([str(number)] * 5)
            next(outcomes)
            cycle = [outcomes]
            cycle.append(cycle)
            del outcomes, cycle
            pool.map(["a"] * 20)
        pool.close()
        print("closed")
        """,
        server,
    )
    assert ended(process) == (0, "closed\n", "")


def test_an_interruption_while_the_end_of_a_runs_time_is_reported_loses_no_outcome(stalling_server, script, ended):
    process = script(
        """
        import signal, sys, threading, chatpool
        failed = 0

        def interrupt(event):
            global failed
            failed += event.kind == "failed"
            if failed == 5:  # whichever thread reports it: the interruption is the main thread's
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2, listeners=[interrupt])
        try:
            pool.map([str(number) for number in range(50)], run_timeout=0.3)
        except KeyboardInterrupt as stop:
            print([outcome.index for outcome in stop.results.outcomes] == list(range(50)))
        pool.close()
        """,
        stalling_server,
    )
    assert ended(process) == (0, "True\n", "")
