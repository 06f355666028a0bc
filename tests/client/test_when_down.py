"""Single calls that do not wait for a server that is known to be down."""

from __future__ import annotations

import pickle
import queue
import threading

import pytest

from chatpool import APIConnectionError, ChatPool, ConfigurationError, Endpoint, InternalServerError
from chatpool.testing import Error, FakeServer, Reset

DOWN = Error(503)


class Server:
    """A server that is up or down, as ``fault`` says: a step, None, or a function that returns one."""

    def __init__(self, fault):
        self.fault = fault
        self.real = FakeServer(script=lambda request: self.fault() if callable(self.fault) else self.fault)
        self.base_url = self.real.base_url

    @property
    def requests(self):
        return self.real.requests


class Gate:
    """A function that returns when it is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.opened.wait(20)


@pytest.fixture(autouse=True)
def coarse_steps(stepped_time):
    """Waits of seconds in few steps."""
    stepped_time.STEP = 0.05


@pytest.fixture
def start():
    """A function from a fault to a server that has it."""
    servers = []

    def make(fault=DOWN):
        servers.append(Server(fault))
        return servers[-1]

    yield make
    for server in servers:
        server.real.close()


@pytest.fixture
def pool_of():
    """A function from the options of a pool to it."""
    pools = []

    def make(**options):
        pools.append(ChatPool("m", **{"max_workers": 4, **options}))
        return pools[-1]

    yield make
    for pool in pools:
        pool.abort()


def error_of(call, *args, **kwargs):
    with pytest.raises(APIConnectionError, match="has been down for") as caught:
        call(*args, **kwargs)
    return caught.value


def recognise(pool, stepped_time, model="m"):
    """Call a server that is down until the pool knows that."""

    def call():
        while True:
            try:
                pool.chat("ping", when_down="raise", model=model)
            except APIConnectionError as error:
                if error.attempts == 0:  # it was not even sent
                    return
            except InternalServerError:
                pass

    stepped_time.run(pool, call)


@pytest.mark.parametrize("fault", [Error(503), Error(502), Reset()], ids=["503", "502", "reset"])
def test_a_call_ends_at_once_and_is_not_sent(start, pool_of, stepped_time, fault):
    server = start(fault)
    pool = pool_of(base_url=server.base_url, when_down="raise")
    recognise(pool, stepped_time)
    sent = len(server.requests)
    error = error_of(pool.chat, "hello")
    assert "was not sent" in str(error)
    assert server.base_url in str(error)
    assert error.attempts == 0
    assert 0 < error.retry_after <= 1
    assert len(server.requests) == sent


def test_every_kind_of_single_call_does(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url, when_down="raise")
    recognise(pool, stepped_time)
    sent = len(server.requests)
    error_of(pool.responses, "hello", model="m")
    error_of(pool.request, "/chat/completions", {"model": "m", "messages": []})
    error_of(pool.embed, "hello", model="m")
    error_of(pool.submit("hello").result, 20)
    error_of(list, pool.stream("hello"))
    assert len(server.requests) == sent


def test_the_first_call_after_a_while_is_a_probe_and_finds_the_server_up_again(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url, when_down="raise")
    recognise(pool, stepped_time)
    server.fault = None
    stepped_time.advance(error_of(pool.chat, "hello").retry_after)
    assert pool.chat("hello").text == "hello"
    assert pool.chat("again").text == "again"


def test_a_probe_that_fails_is_not_tried_again(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url, when_down="raise")
    recognise(pool, stepped_time)
    sent = len(server.requests)
    stepped_time.advance(error_of(pool.chat, "hello").retry_after)
    error = error_of(pool.chat, "hello")
    assert isinstance(error.__cause__, InternalServerError)
    assert "503" in str(error)
    assert (error.attempts, len(server.requests)) == (1, sent + 1)
    assert error_of(pool.chat, "hello").attempts == 0


def test_one_call_at_a_time_is_a_probe(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url, when_down="raise")
    recognise(pool, stepped_time)
    stepped_time.advance(error_of(pool.chat, "hello").retry_after)
    gate = Gate()
    server.fault = gate
    probe = pool.submit("hello")
    assert gate.reached.wait(20)
    error = error_of(pool.chat, "another")
    assert (error.attempts, error.retry_after > 0) == (0, True)
    gate.opened.set()
    assert probe.result(20).text == "hello"


def test_calls_that_wait_when_it_is_recognised_end_too(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url, when_down="raise", max_workers=2)
    futures = [pool.submit(str(number)) for number in range(40)]
    errors = stepped_time.run(pool, lambda: [future.exception(60) for future in futures])
    assert {type(error) for error in errors} == {APIConnectionError}
    assert any(error.attempts == 0 for error in errors)
    assert pool.stats().queued == pool.stats().parked == 0


def test_runs_wait(start, pool_of, stepped_time):
    server = start(None)
    pool = pool_of(base_url=server.base_url, when_down="raise")
    pool.chat("hello")  # a server that was never up ends a run after 30 s
    server.fault = DOWN
    recognise(pool, stepped_time)
    faults = iter([Error(503)] * 3)
    server.fault = lambda: next(faults, None)
    assert stepped_time.run(pool, lambda: pool.map(["a", "b"], progress=False)).texts == ["a", "b"]


def test_it_is_a_choice_of_the_pool_the_view_or_the_call(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url)
    recognise(pool, stepped_time)
    error_of(pool.chat, "hello", when_down="raise")
    view = pool.with_options(when_down="raise")
    error_of(view.chat, "hello")
    server.fault = None
    assert stepped_time.run(pool, lambda: view.chat("hello", when_down="wait")).text == "hello"


def test_another_model_of_the_pool_is_not_affected(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url, when_down="raise")
    recognise(pool, stepped_time)
    server.fault = None
    assert pool.chat("hello", model="other").text == "hello"
    error_of(pool.chat, "hello")


def test_another_endpoint_takes_the_calls_and_only_all_of_them_are_an_outage(start, pool_of, stepped_time):
    down, other = start(), start(None)
    pool = pool_of(endpoints=[Endpoint(down.base_url, weight=1e6), Endpoint(other.base_url)], when_down="raise")
    assert stepped_time.run(pool, lambda: [pool.chat(str(n)).text for n in range(40)]) == [str(n) for n in range(40)]
    other.fault = Error(503)
    recognise(pool, stepped_time)
    sent = len(down.requests) + len(other.requests)
    error_of(pool.chat, "hello")
    assert len(down.requests) + len(other.requests) == sent


def test_a_call_from_a_worker_of_the_pool_raises_as_well(start, pool_of, stepped_time):
    server = start()
    pool = pool_of(base_url=server.base_url, when_down="raise")
    recognise(pool, stepped_time)
    server.fault = None
    errors = queue.SimpleQueue()
    future = pool.submit("hello", model="other")
    future.add_done_callback(lambda done: errors.put(error_of(pool.chat, "hello")))
    assert future.result(20).text == "hello"
    assert errors.get(timeout=20).attempts == 0


def test_a_pickled_pool_keeps_it(start, pool_of, stepped_time):
    server = start()
    pool = pickle.loads(pickle.dumps(pool_of(base_url=server.base_url, when_down="raise")))
    recognise(pool, stepped_time)
    error_of(pool.chat, "hello")
    pool.abort()


@pytest.mark.parametrize("value", ["fail", True, 3])
def test_another_value_is_an_error(pool_of, value):
    with pytest.raises(ConfigurationError, match="when_down must be"):
        pool_of(base_url="http://127.0.0.1:9", when_down=value)
