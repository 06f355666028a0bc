"""Ctrl-C, in whatever the workers are."""

from __future__ import annotations

import signal
import socket

import pytest

pytestmark = pytest.mark.faults

RUN = """
import sys, chatpool
pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=64, timeout=chatpool.Timeout(connect=600))
try:
    pool.map([str(number) for number in range(300)])
except KeyboardInterrupt as stop:
    kinds = {type(outcome.error).__name__ for outcome in stop.results.outcomes if outcome.error}
    print(len(stop.results), sorted(kinds), pool.stats().in_flight)
    raise
"""


def test_it_ends_workers_that_wait_for_an_answer(stalling_server, script, ended):
    process = script(RUN, stalling_server)
    stalling_server.wait_for(64)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == -signal.SIGINT
    assert out == "300 ['CallCancelledError'] 0\n"
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_it_ends_workers_that_wait_for_the_next_attempt(server, script, ended):
    server.set_script(lambda request: _refusal())
    process = script(RUN, server)
    server.wait_for(64)
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    assert code == -signal.SIGINT
    assert "['CallCancelledError'] 0" in out


def _refusal():
    from chatpool.testing import RateLimited

    return RateLimited(100)


class _Unanswered:
    """A port whose backlog is full: a connection to it hangs in the TCP handshake."""

    def __enter__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)
        host, port = self._listener.getsockname()
        self.base_url = f"http://{host}:{port}/v1"
        return self

    def __exit__(self, *_):
        for each in [*self._fillers, self._listener]:
            each.close()


CONNECTING = """
import sys, threading, chatpool

started = threading.Semaphore(0)
def sent(event):
    if event.kind == "sent":
        started.release()

pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=64, listeners=[sent],
                         timeout=chatpool.Timeout(connect=600))
def announce():
    for _ in range(64):
        started.acquire()
    print("connecting", flush=True)
threading.Thread(target=announce, daemon=True).start()
pool.map([str(number) for number in range(300)])
"""


def test_it_ends_workers_that_connect(script, ended):
    with _Unanswered() as nobody:
        process = script(CONNECTING, nobody)
        assert process.stdout.readline() == "connecting\n"
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_a_second_one_leaves_at_once(stalling_server, script, ended):
    process = script(
        """
        import sys, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        while True:
            try:
                pool.map(["a"] * 4)
            except KeyboardInterrupt:
                print("first", flush=True)
                pool.map(["b"] * 4)
        """,
        stalling_server,
    )
    stalling_server.wait_for(4)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "first\n"
    stalling_server.wait_for(8)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == -signal.SIGINT
    assert "KeyboardInterrupt" in err


def test_another_threads_run_on_the_same_pool_is_not_disturbed(server, script, ended):
    server.set_script(lambda request: _stall_for("mine", request))
    process = script(
        """
        import sys, threading, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=8)
        theirs = []
        def other():
            theirs.extend(pool.map(["theirs"] * 2000))
        thread = threading.Thread(target=other)
        thread.start()
        try:
            pool.map(["mine"] * 4)
        except KeyboardInterrupt:
            thread.join()
            print(sum(answer is not None for answer in theirs))
        """,
        server,
    )
    server.wait_until(lambda: sum("mine" in str(request.body) for request in server.requests) == 4, 20)
    process.send_signal(signal.SIGINT)
    assert ended(process)[1] == "2000\n"


def _stall_for(prompt, request):
    from chatpool.testing import Stall

    return Stall() if request.body["messages"][-1]["content"] == prompt else None


def test_it_is_survived_at_any_moment(server, script, ended):
    """A storm of them while runs are fed: every run ends with all its outcomes, and the pool works afterwards."""
    process = script(
        """
        import os, signal, sys, threading, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        main = threading.main_thread().ident
        interrupted = 0
        for round in range(40):
            running = threading.Event()
            def rows():
                running.set()
                for number in range(400):
                    yield str(number)
            def interrupt():
                running.wait()
                for _ in range(round * 20):
                    pass
                signal.pthread_kill(main, signal.SIGINT)
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                results = pool.map(rows())
                thread.join()
            except KeyboardInterrupt as stop:
                interrupted += 1
                results = getattr(stop, "results", None)
                if results is not None:
                    assert [outcome.index for outcome in results.outcomes] == list(range(len(results)))
            thread.join()
        print(interrupted, [answer.text for answer in pool.map(["a", "b"])])
        pool.close()
        """,
        server,
    )
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert out.endswith("['a', 'b']\n")
