"""What holds for every test: a clean environment, and no way out of loopback."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import none

from chatpool._engine.call import DONE
from chatpool.clock import install_clock
from chatpool.testing import FakeClock

# A shared machine may be slow at any moment: that is no failure of a property.  `make test-slow` tries all examples.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
settings.register_profile("some", settings.get_profile("full"), max_examples=20)
settings.load_profile("some")

pytest_plugins = ["chatpool.testing.plugin"]

_SETTINGS = ("OPENAI_", "AZURE_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_")

_strays: List[str] = []


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event for which a scripted server waits before it answers; set at the end of the test."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """A clock that the test moves, installed for the pools of the test."""
    clock = FakeClock()
    previous = install_clock(clock)
    yield clock
    install_clock(previous)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """For what is nested to the limit of recursion: finalizers of other tests' garbage would fail that deep."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keys, servers, proxies and certificates of whoever runs the tests are not the tests', nor is the terminal."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.upper().startswith(_SETTINGS) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path_factory.getbasetemp() / "no-netrc"))


@pytest.fixture(autouse=True)
def nothing_leaves_loopback(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that reached for another host, even where the program took the refusal for a broken connection."""
    _strays.clear()
    yield
    assert not _strays, f"reached for {_strays}"


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until the tests are collected: a quarter of that time were collections of garbage, of which is none
    sys.addaudithook(_refuse_strangers)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell starts what it runs in the background so, and every child of the tests would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@settings(max_examples=1, database=None)
@given(none())
def _hypothesis_starts(_: None) -> None:
    """Have hypothesis begin in this thread: whether anything refers to what is frozen it cannot find out."""


def pytest_collection_finish() -> None:
    _hypothesis_starts()
    # Ten thousand tests are a million objects: without this a collection takes a second, and many tests need one.
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests have counted: those that try much at random say how much it was."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    for report in reports:
        if getattr(report, "when", None) == "call":
            for name, value in report.user_properties:
                if name == "counted":
                    terminalreporter.write_line(value)


def _refuse_strangers(event: str, arguments: Tuple[Any, ...]) -> None:
    if event == "socket.connect":
        _check_address(arguments[1])
    elif event == "socket.getaddrinfo":
        _check_name(arguments[0])


def _check_address(address: Any) -> None:
    if isinstance(address, tuple) and not _is_loopback(address[0]):
        _strays.append(f"{address[0]}:{address[1]}")
        raise OSError(f"tests stay on loopback, this one reached for {address}")


def _check_name(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or _is_loopback(name):
        return
    if name.endswith(".invalid"):  # what a resolver says of it, without asking one (RFC 6761)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    _strays.append(name)
    raise OSError(f"tests stay on loopback, this one looked up {name!r}")


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "", "0.0.0.0"):  # bound, not reached
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class SteppedTime(FakeClock):
    """Time that passes only while every call in flight waits for an answer that takes its time.

    However long a busy machine takes to carry a request or to wake a thread: on this clock it takes next to nothing,
    and a request is sent and received in the same moment.  So rates, refusals and seconds can be counted.
    """

    STEP = 0.002  # seconds

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._answers: Dict[Any, float] = {}  # when those are due that are waited for

    def answer_after(self, seconds: float, step: Any = None) -> Callable[[Any], Any]:
        """A server's script: every answer is ``step`` and takes so long."""

        def answer(request: Any) -> Any:
            condition = threading.Condition()
            with self._lock:
                self._answers[condition] = due = self.now() + seconds
            with condition:
                while self.now() < due:
                    self.wait(condition, due - self.now())
            return step

        return answer

    def run(self, pools: Any, function: Callable[[], Any]) -> Any:
        """What the function returns, which makes calls with these pools (a pool or several) and no others."""
        pools = pools if isinstance(pools, (list, tuple)) else [pools]
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(function)
            quiet = 0
            while not wait([future], 0.0002).done:
                quiet = quiet + 1 if self._all_wait(pools) else 0
                if quiet == 2:  # between two calls of a worker it looks so for a moment
                    self.advance(self.STEP)
                    quiet = 0
        return future.result()

    def _all_wait(self, pools: Any) -> bool:
        with self._changed:
            if self._waiters.due_at(self._now):
                return False  # a thread whose wait is over has not woken yet
        with self._lock:
            now = self.now()
            self._answers = {condition: due for condition, due in self._answers.items() if due > now}
            waited_for = len(self._answers)
        if any(_has_expired(pool, now) for pool in pools):
            return False  # the call whose time is over has not been ended yet
        stats = [pool.stats() for pool in pools]
        if not any(each.queued or each.parked or each.in_flight for each in stats):
            return False  # the function is about to make a call, or to return
        return bool(sum(each.in_flight for each in stats) == waited_for)


def _has_expired(pool: Any, now: float) -> bool:
    return any(end <= now and call.state != DONE for end, _, call in list(pool._core.engine._expiry._watched))


@pytest.fixture
def stepped_time() -> Iterator[SteppedTime]:
    """The clock of the pools and servers that are made in this test."""
    if "gevent" in sys.modules:
        pytest.skip("on greenlets everything waits for everything: steps of this clock tell nothing")
    clock = SteppedTime()
    previous = install_clock(clock)
    yield clock
    install_clock(previous)
