"""The worker slot of a stream: when it is taken, who holds it, and everything that gives it back."""

from __future__ import annotations

import gc
import threading

import pytest

from chatpool import CallCancelledError, ChatPool, PoolClosedError
from chatpool.testing import Error, Stream
from tests.waiting import until

ENDLESS = Stream(["Once", " upon"], end="stall")


@pytest.fixture
def one(serve):
    """A pool of one worker, and a server whose first stream never ends."""
    return serve(ENDLESS, max_workers=1)


def assert_free(server, pool):
    """The slot is free and the connection closed."""
    server.wait_until(lambda: server.open_connections == 0)
    assert pool.stats().in_flight == 0
    assert pool.chat("next").text == "next"


def test_leaving_early_closes_the_connection_and_frees_the_slot(one):
    server, pool = one
    with pool.stream("tell") as stream:
        next(stream)
        assert pool.stats().in_flight == server.in_flight == 1
    assert pool.stats().in_flight == 0
    assert_free(server, pool)
    assert list(stream) == []


def test_an_exception_in_the_loop_does_so_too(one):
    server, pool = one
    with pytest.raises(ZeroDivisionError), pool.stream("tell") as stream:
        for _ in stream:
            1 / 0  # noqa: B018
    assert_free(server, pool)


def test_dropping_it_does_so_too(one):
    server, pool = one
    stream = pool.stream("tell")
    next(stream)
    del stream
    server.wait_until(lambda: server.open_connections == 0)
    assert pool.chat("next").text == "next"


def test_the_garbage_collector_does_so_too(one):
    server, pool = one
    stream = pool.stream("tell")
    next(stream)
    cycle = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    server.wait_until(lambda: server.open_connections == 0)
    assert pool.chat("next").text == "next"


def test_one_that_has_begun_before_anybody_waits_for_it_is_no_exception(one, monkeypatch):
    server, pool = one
    submit = pool._core.engine.submit_stream

    def submit_and_wait(call):
        submit(call)
        assert call.sink.wait(30, for_end=False)

    monkeypatch.setattr(pool._core.engine, "submit_stream", submit_and_wait)
    stream = pool.stream("tell")
    next(stream)
    del stream
    server.wait_until(lambda: server.open_connections == 0)
    assert pool.chat("next").text == "next"


def test_its_end_frees_the_slot_without_any_closing(serve):
    server, pool = serve(max_workers=1)
    stream = pool.stream("tell")
    assert "".join(map(str, stream)) == "tell"
    assert pool.stats().in_flight == 0
    assert pool.chat("next").text == "next"
    assert server.connections == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.chat("b"),
        lambda pool: pool.map(["b"]),
        lambda pool: next(pool.imap(["b"])),
        lambda pool: next(pool.as_completed(["b"])),
        lambda pool: next(pool.stream("b")),
        lambda pool: next(pool.stream_many(["b"])),
        lambda pool: pool.embed("b"),
        lambda pool: pool.request("/moderations", {"input": "b"}),
    ],
)
def test_waiting_for_a_slot_that_this_very_thread_holds_fails_at_once(one, call):
    _, pool = one
    with pool.stream("tell") as stream:
        next(stream)
        with pytest.raises(RuntimeError, match=r"an open stream takes all worker slots of the pool \(max_workers=1\)"):
            call(pool)
        assert next(stream).text == "Once"  # it goes on
    assert pool.chat("next").text == "next"


def test_a_stream_that_was_refused_a_slot_can_be_read_later(one):
    _, pool = one
    with pool.stream("tell") as stream, pool.stream("other") as other:
        next(stream)
        with pytest.raises(RuntimeError, match="takes all"):
            next(other)
        stream.close()
        assert "".join(map(str, other)) == "other"


def test_several_streams_are_counted_together(serve):
    server, pool = serve(max_workers=2)
    server.set_script({"a": ENDLESS, "b": ENDLESS})
    with pool.stream("a") as first, pool.stream("b") as second:
        next(first)
        assert pool.chat("c").text == "c"  # there is a slot left
        next(second)
        with pytest.raises(RuntimeError, match="2 open streams take all"):
            pool.map(["d"])


def test_a_slot_that_another_thread_holds_is_waited_for(one):
    server, pool = one
    stream = pool.stream("tell")
    next(stream)
    future = pool.submit("ask")  # a future waits for nobody
    answers = []
    other = threading.Thread(target=lambda: answers.append(pool.chat("other").text))
    other.start()
    stream.close()
    other.join(60)
    assert answers == ["other"]
    assert future.result(60).text == "ask"


def test_abort_wakes_a_reader_and_ends_the_stream(one):
    server, pool = one
    errors, reading = [], threading.Event()

    def read():
        try:
            for chunk in pool.stream("tell"):
                if chunk.text == " upon":
                    reading.set()
        except PoolClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(60)
    pool.abort()
    thread.join(60)
    assert not thread.is_alive()
    assert len(errors) == 1
    server.wait_until(lambda: server.open_connections == 0)


def test_abort_ends_a_stream_that_nobody_reads_at_the_moment(one):
    server, pool = one
    stream = pool.stream("tell")
    next(stream)
    pool.abort()
    server.wait_until(lambda: server.open_connections == 0)
    with pytest.raises(PoolClosedError):
        next(stream)


def test_closing_the_pool_ends_the_streams_of_the_closing_thread(one):
    server, pool = one
    with pool:
        stream = pool.stream("tell")
        next(stream)
    server.wait_until(lambda: server.open_connections == 0)
    with pytest.raises(CallCancelledError, match="closed"):
        next(stream)


def test_closing_the_pool_waits_for_the_streams_of_others(serve):
    may_go_on, begun, texts = threading.Event(), threading.Event(), []
    _, pool = serve(Stream(["Once", " upon"]))

    def read():
        with pool.stream("tell") as stream:
            for _ in stream:
                begun.set()
                assert may_go_on.wait(60)
        texts.append(stream.text)

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(60)
    closing = threading.Thread(target=pool.close)
    closing.start()
    may_go_on.set()
    thread.join(60)
    closing.join(60)
    assert texts == ["Once upon"]
    assert not closing.is_alive()


def test_closing_the_pool_ends_the_streams_of_threads_that_are_gone(one):
    server, pool = one
    streams = []

    def begin():
        streams.append(pool.stream("tell"))
        next(streams[0])

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join(60)
    pool.close()
    server.wait_until(lambda: server.open_connections == 0)


def test_a_collected_pool_leaves_no_threads(serve):
    server, _ = serve(ENDLESS)
    before = set(threading.enumerate())
    pool = ChatPool("m", base_url=server.base_url)
    stream = pool.stream("tell")
    next(stream)
    workers = set(threading.enumerate()) - before
    del pool, stream

    def have_ended():
        # One collection may not be enough without the global lock: each frees what other threads no longer count.
        gc.collect()
        return not any(worker.is_alive() for worker in workers)

    until(have_ended)


def test_a_callback_in_a_worker_may_stream(serve):
    texts = []

    def listener(event):
        if event.kind == "succeeded" and not texts:
            texts.append("")
            with pool.stream("inner") as stream:
                texts.append("".join(map(str, stream)))
            with pool.stream("left early") as stream:
                next(stream)

    server, pool = serve(max_workers=1, listeners=[listener])
    assert pool.chat("outer").text == "outer"
    assert texts == ["", "inner"]
    assert pool.stats().in_flight == 0


def test_a_callback_in_a_worker_hears_of_failures(serve):
    errors = []

    def listener(event):
        if event.kind == "sent" and event.attempt == 1 and not errors:
            errors.append(None)
            try:
                next(pool.stream("inner", retry=0))
            except Exception as error:
                errors.append(type(error).__name__)

    _, pool = serve(Error(500), max_workers=1, listeners=[listener])
    assert pool.chat("outer").text == "outer"
    assert errors == [None, "InternalServerError"]


def test_what_runs_in_the_background_goes_on_beside_a_stream(serve):
    server, pool = serve(ENDLESS, max_workers=2)
    with pool.stream("tell") as stream:
        next(stream)
        assert [str(answer) for answer in pool.map(["a", "b", "c"])] == ["a", "b", "c"]
        assert server.max_in_flight == 2
