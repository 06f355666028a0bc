"""Ctrl-C, in whatever the workers are."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chatpool.testing import Error, RateLimited, Stall, Stream

pytestmark = pytest.mark.faults

RUN = """
import sys, chatpool
pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=64, timeout=chatpool.Timeout(connect=600))

def rows():
    yield from (str(number) for number in range(300))
    sys.stdout.write("all read\\n")
    sys.stdout.flush()

try:
    pool.map(rows())
except KeyboardInterrupt as stop:
    kinds = {type(outcome.error).__name__ for outcome in stop.results.outcomes if outcome.error}
    print(len(stop.results), sorted(kinds), pool.stats().in_flight)
    raise
"""


def test_it_ends_workers_that_wait_for_an_answer(stalling_server, script, ended):
    process = script(RUN, stalling_server)
    assert process.stdout.readline() == "all read\n"
    stalling_server.wait_for(64)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == -signal.SIGINT
    assert out == "300 ['CallCancelledError'] 0\n"
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_it_ends_calls_that_wait_for_their_next_attempt(server, script, ended):
    together = threading.Barrier(64)  # nobody is answered before all have come: otherwise nothing more is sent

    def refuse(request):
        if request.number < 64:
            together.wait(60)
        return Error(503, headers={"Retry-After": "100"})

    server.set_script(refuse)
    process = script(RUN, server)
    assert process.stdout.readline() == "all read\n"
    server.wait_until(lambda: len(server.requests) >= 64 and server.in_flight == 0)
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    assert code == -signal.SIGINT
    assert out == "300 ['CallCancelledError'] 0\n"


@pytest.mark.slow
def test_it_ends_calls_that_wait_because_the_server_has_refused_for_rate(server, script, ended):
    server.set_script(RateLimited(100))
    process = script(RUN, server)
    assert process.stdout.readline() == "all read\n"
    server.wait_until(lambda: server.requests and server.in_flight == 0)
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    assert code == -signal.SIGINT
    assert out == "300 ['CallCancelledError'] 0\n"


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


@pytest.mark.slow
def test_it_ends_workers_that_connect(script, ended):
    with _Unanswered() as nobody:
        process = script(CONNECTING, nobody)
        assert process.stdout.readline() == "connecting\n"
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


class _Mute:
    """A port that accepts connections and never says a word: TLS hangs in its handshake."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(20)
        self._accepted = []
        self.base_url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        return self

    def wait_for_greetings(self, count):
        """Accept so many connections and wait until each of them has begun its handshake."""
        self._accepted = [self._listener.accept()[0] for _ in range(count)]
        for connection in self._accepted:
            connection.settimeout(20)
            assert connection.recv(1, socket.MSG_PEEK) == b"\x16"  # a handshake record

    def __exit__(self, *_):
        for each in [*self._accepted, self._listener]:
            each.close()


@pytest.mark.slow
def test_it_ends_workers_in_a_tls_handshake(script, ended):
    with _Mute() as mute:
        process = script(RUN, mute)
        assert process.stdout.readline() == "all read\n"
        mute.wait_for_greetings(64)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert code == -signal.SIGINT
    assert out == "300 ['CallCancelledError'] 0\n"
    assert err.rstrip().endswith("KeyboardInterrupt")


RESOLVING = (
    """
import socket, threading

asked, look_up, never = threading.Semaphore(0), socket.getaddrinfo, threading.Event()

def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    if flags & socket.AI_NUMERICHOST:  # every worker asks first whether it is an address
        asked.release()
        return look_up(host, port, family, type, proto, flags)
    asked.release()
    never.wait()

socket.getaddrinfo = getaddrinfo

def announce():
    for _ in range(64 + 1):
        asked.acquire()
    sys.stdout.write("resolving\\n")
    sys.stdout.flush()

threading.Thread(target=announce, daemon=True).start()
"""
    + RUN
)


class _Nameless:
    base_url = "http://nobody-knows.invalid/v1"


@pytest.mark.slow
def test_it_ends_workers_that_wait_for_a_name_to_be_resolved(script, ended):
    process = script(RESOLVING, _Nameless)
    assert {process.stdout.readline() for _ in range(2)} == {"all read\n", "resolving\n"}
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == -signal.SIGINT
    assert out == "300 ['CallCancelledError'] 0\n"
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


@pytest.mark.slow
def test_another_threads_run_on_the_same_pool_is_not_disturbed(server, script, ended):
    server.set_script(lambda request: Stall() if request.prompt == "mine" else None)
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


def test_a_block_of_a_lock_is_as_safe_as_this_python_is_taken_to_have_it(server, script, ended):
    """Whether Ctrl-C can leave a lock taken: what stands on it is in ``chatpool._locks``."""
    process = script(
        """
        import signal, threading
        from chatpool._locks import HAS_SAFE_WITH
        lock, go, done = threading.Lock(), threading.Event(), False
        main = threading.main_thread().ident
        def storm():
            while not done:
                go.wait()
                go.clear()
                signal.pthread_kill(main, signal.SIGINT)
        threading.Thread(target=storm, daemon=True).start()
        left_taken = 0
        for _ in range(300):
            try:
                go.set()
                while True:
                    with lock:
                        pass
            except KeyboardInterrupt:
                left_taken += lock.locked()
                if lock.locked():
                    lock.release()
        print(left_taken if HAS_SAFE_WITH else 0)
        """,
        server,
    )
    assert ended(process) == (0, "0\n", "")


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


CALLS = ["chat", "submit", "map", "as_completed", "stream", "another pool"]


@pytest.mark.parametrize(
    ("call", "step"),
    [("chat", 1), ("map", 5), *[pytest.param(call, 1, marks=pytest.mark.slow) for call in CALLS[1:]]],
)
def test_no_moment_is_a_bad_one(call, step, server):
    """A lock that stays taken, which a storm finds once in a thousand times, is found by going through them all."""
    program = Path(__file__).with_name("any_moment.py")
    done = subprocess.run(  # it ends itself when it hangs
        [sys.executable, program, server.base_url, call, str(step)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    moments, wrong = map(int, done.stdout.split())
    assert wrong == 0, done.stderr
    assert moments > 10  # some are nearly always there; how many there are is up to the interpreter


class _HeldTLSStream:
    """A TLS port that sends the first event of a stream, and no other."""

    def __init__(self, authority, context):
        self.authority, self._context = authority, context

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(60)
        self.base_url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self):
        with self._context.wrap_socket(self._listener.accept()[0], server_side=True) as connection:
            connection.recv(1 << 16)
            event = b'data: {"choices": [{"index": 0, "delta": {"content": "Once"}}]}\n\n'
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event)
            self._over.wait(120)

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def held_tls_stream(tmp_path):
    trustme = pytest.importorskip("trustme")
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with _HeldTLSStream(tmp_path / "ca.pem", context) as server:
        yield server


# CPython loses a signal that comes after its last look for one and before a system call blocks.  interrupt_main() is
# like such a signal: it ends no system call.
INTERRUPTED = """
import _thread, sys, threading, time, chatpool

def interrupt():
    looks = []
    while len(looks) < 10 or looks[-10:] != looks[-1:] * 10:  # until the main thread blocks
        time.sleep(0.01)
        frame = sys._current_frames()[threading.main_thread().ident]
        looks.append((frame.f_code.co_name, frame.f_lasti))
    _thread.interrupt_main()

interrupts = threading.Thread(target=interrupt, daemon=True)
pool = chatpool.ChatPool("m", base_url=sys.argv[1], verify=sys.argv[2] if sys.argv[2:] else True)
"""


@pytest.mark.parametrize(
    "statement",
    [
        "pool.chat('hold')",
        pytest.param("pool.map(['hold'])", marks=pytest.mark.slow),
        pytest.param("pool.submit('hold').result()", marks=pytest.mark.slow),
        pytest.param("pool.submit('hold').exception()", marks=pytest.mark.slow),
        pytest.param("pool.submit('hold').result(600)", marks=pytest.mark.slow),
        pytest.param("next(pool.stream('hold'))", marks=pytest.mark.slow),
        pytest.param("next(pool.stream_many(['hold']))", marks=pytest.mark.slow),
        "pool.submit('hold'); pool.close()",
    ],
)
def test_it_is_not_lost_when_it_comes_just_before_a_wait(stalling_server, script, ended, statement):
    code, _, err = ended(script(f"{INTERRUPTED}\ninterrupts.start()\n{statement}", stalling_server))
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert code == -signal.SIGINT


FROM_STDIN = """
import os
from chatpool.cli import main
reads, writes = os.pipe()
os.write(writes, b'{"prompt": "ping"}\\n')  # no other line comes, and no end
os.dup2(reads, 0)

def interrupt_once_answered():
    journal = sys.argv[2].replace(".jsonl", ".journal")
    while not (os.path.exists(journal) and b'"ping"' in open(journal, "rb").read()):
        time.sleep(0.01)
    interrupt()

threading.Thread(target=interrupt_once_answered, daemon=True).start()
sys.exit(main(["run", "-", "-o", sys.argv[2], "--model", "m", "--base-url", sys.argv[1], "--max-workers", "1"]))
"""


def test_it_is_not_lost_before_a_run_waits_for_standard_input(server, script, tmp_path):
    program = INTERRUPTED.replace("sys.argv[2] if sys.argv[2:] else ", "")
    process = script(program + FROM_STDIN, server, str(tmp_path / "out.jsonl"))
    assert process.wait(timeout=60) == 130, process.stderr.read()
    assert "1 of 1 rows answered" in process.stderr.read()


READING = """
for chunk in pool.stream("tell"):
    if str(chunk) == "Once":
        interrupts.start()
"""


def test_it_is_not_lost_before_the_next_chunk_of_a_stream(server, script, ended):
    server.set_script(Stream(["Once"], end="stall"))
    code, _, err = ended(script(INTERRUPTED + READING, server))
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert code == -signal.SIGINT


def test_it_is_not_lost_before_the_next_chunk_of_an_encrypted_stream(held_tls_stream, script, ended):
    code, _, err = ended(script(INTERRUPTED + READING, held_tls_stream, str(held_tls_stream.authority)))
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert code == -signal.SIGINT
