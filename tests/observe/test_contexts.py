"""What a listener sets in context variables on "queued" belongs to that call alone."""

from __future__ import annotations

import threading
from contextvars import Context, ContextVar

import pytest

from chatpool import ChatPool, DeadlineExceededError, PoolClosedError, Timeout
from chatpool.testing import Error, FakeServer, Stall

mark = ContextVar("mark", default="none")


class Marker:
    """A listener that marks the context of each call with its id, and notes the mark at every event."""

    def __init__(self):
        self.seen = []

    def __call__(self, event):
        if event.kind == "queued":
            mark.set(event.call_id)
        self.seen.append((event.call_id, event.kind, mark.get()))

    def strangers(self):
        return [each for each in self.seen if each[0] != each[2]]

    def kinds_of(self, call_id):
        return [kind for each, kind, _ in self.seen if each == call_id]


@pytest.fixture
def marker():
    return Marker()


@pytest.fixture
def pool_of(marker):
    """A function from a server's script to a pool with the marker, and to its server."""
    opened = []

    def make(script=None, **options):
        server = FakeServer(script)
        pool = ChatPool("m", base_url=server.base_url, listeners=[marker], **options)
        opened.extend([(pool.abort, ()), (server.close, ())])
        return pool, server

    yield make
    for close, arguments in opened:
        close(*arguments)


def test_every_event_of_a_run_sees_the_mark_of_its_own_call(pool_of, marker, instant_waits):
    failed = set()

    def fail_once(request):
        if request.prompt in failed:
            return None
        failed.add(request.prompt)
        return Error(503)

    pool, _ = pool_of(fail_once, max_workers=4)
    assert pool.map([str(number) for number in range(40)]).failures == []
    assert len(marker.seen) == 40 * 5
    assert marker.strangers() == []
    assert mark.get() == "none"


def test_code_that_runs_in_an_attempt_or_a_callback_sees_it_too(pool_of, marker):
    seen = []

    def key():
        seen.append(("key", mark.get()))
        return "k"

    def parse(text):
        seen.append(("parse", mark.get()))
        return text

    release = threading.Event()
    pool, _ = pool_of(lambda request: release.wait(30) and None, api_key=key)
    done = threading.Event()
    future = pool.submit("a", parse=parse)
    future.add_done_callback(lambda _: (seen.append(("done", mark.get())), done.set()))
    release.set()
    assert done.wait(30)
    assert seen == [("key", 1), ("parse", 1), ("done", 1)]


def test_an_attempt_leaves_nothing_in_its_worker(pool_of):
    seen = []

    def set_late(event):
        if event.kind == "sent":
            seen.append(mark.get())
            mark.set("late")

    pool, _ = pool_of(max_workers=1)
    pool.add_listener(set_late)
    for _ in range(2):
        Context().run(pool.chat, "a")  # nothing is set there: an empty context is one, too
    assert seen == [1, 2]


@pytest.mark.parametrize("end", ["cancel", "abort", "close"])
@pytest.mark.parametrize("where", ["in line", "in flight"])
def test_a_call_that_another_thread_ends_has_its_last_event_in_its_own_context(pool_of, marker, end, where):
    pool, server = pool_of(lambda request: Stall(), max_workers=1)
    flying = pool.submit("a")
    server.wait_for(1)
    waiting = pool.submit("b")
    called = []
    future = flying if where == "in flight" else waiting
    future.add_done_callback(lambda _: called.append(mark.get()))
    mark.set("another")
    try:
        if end == "cancel":
            future.cancel()
        elif end == "abort":
            pool.abort()
        else:
            pool.shutdown(wait=False, cancel_futures=True)
            flying.cancel()
    finally:
        mark.set("none")
    number = 1 if where == "in flight" else 2
    assert called == [number]
    assert marker.kinds_of(number)[-1] == "failed"
    assert marker.strangers() == []


def test_a_call_whose_time_ends_in_line(pool_of, marker):
    pool, server = pool_of(lambda request: Stall(), max_workers=1)
    pool.submit("a")
    server.wait_for(1)
    assert isinstance(pool.submit("b", timeout=Timeout(total=0.1)).exception(30), DeadlineExceededError)
    assert marker.kinds_of(2) == ["queued", "failed"]
    assert marker.strangers() == []


@pytest.mark.parametrize("method", ["chat", "stream", "map"])
def test_calls_within_a_worker_have_contexts_of_their_own(pool_of, marker, method):
    inner = {
        "chat": lambda: pool.chat("inner"),
        "stream": lambda: list(pool.stream("inner")),
        "map": lambda: pool.map(["inner", "inner too"], progress=False),
    }[method]
    after = []

    def parse(text):
        if text == "outer":
            inner()
            after.append(mark.get())
        return text

    pool, _ = pool_of()
    pool.chat("outer", parse=parse)
    assert after == [1]
    assert marker.kinds_of(2) == ["queued", "sent", "succeeded"]
    assert marker.strangers() == []


def test_one_that_gets_the_answer_of_another_does_not_see_the_mark_of_that(pool_of, marker):
    pool, _ = pool_of(max_workers=2)
    assert pool.map(["a"] * 5, dedupe=True).texts == ["a"] * 5
    assert [each for each in marker.seen if each[0] == 1] == [
        (1, "queued", 1),
        (1, "sent", 1),
        (1, "succeeded", 1),
    ]
    assert sorted(each for each in marker.seen if each[0] != 1) == [
        (number, "succeeded", "none") for number in range(2, 6)
    ]


@pytest.mark.parametrize("method", ["chat", "stream", "map", "submit"])
def test_a_call_that_was_queued_ends_even_if_the_pool_is_closed_by_then(pool_of, marker, method):
    pool, server = pool_of()
    pool.add_listener(lambda event: pool.close())
    call = {
        "chat": lambda: pool.chat("a"),
        "stream": lambda: list(pool.stream("a")),
        "map": lambda: pool.map(["a", "b"], on_error="raise"),
        "submit": lambda: pool.submit("a").result(30),
    }[method]
    with pytest.raises(PoolClosedError, match="the pool is closed"):
        call()
    calls = {call_id for call_id, _, _ in marker.seen}
    assert calls
    assert all(marker.kinds_of(call_id) == ["queued", "failed"] for call_id in calls)
    assert server.requests == []


def test_a_listener_that_is_added_later_hears_the_calls_from_then_on(pool_of):
    pool, _ = pool_of()
    pool.chat("a")
    heard = []
    pool.with_options(model="n").add_listener(heard.append)
    pool.chat("b")
    pool.map(["c"])
    assert {event.call_id for event in heard} == {2, 3}


def test_only_callables_can_be_added(pool_of):
    pool, _ = pool_of()
    with pytest.raises(TypeError, match="listeners must be callables that take an Event, got 3"):
        pool.add_listener(3)


class TestGivenUp:
    def test_the_last_event_is_about_the_attempt_that_was_under_way(self, pool_of):
        heard = []
        pool, server = pool_of([Error(503), Stall()], retry=1)
        pool.add_listener(heard.append)
        future = pool.submit("a")
        server.wait_for(2)
        future.cancel()
        last = heard[-1]
        assert (last.kind, last.attempt, last.status, last.wait) == ("failed", 2, None, None)

    def test_or_the_last_one_where_it_waited_for_the_next(self, pool_of):
        heard, retrying = [], threading.Event()
        pool, _ = pool_of([Error(503, headers={"retry-after": "50"})])
        pool.add_listener(heard.append)
        pool.add_listener(lambda event: event.kind == "retrying" and retrying.set())
        future = pool.submit("a")
        assert retrying.wait(30)
        future.cancel()
        last = heard[-1]
        assert (last.kind, last.attempt, last.status, last.wait) == ("failed", 1, 503, heard[-2].wait)
