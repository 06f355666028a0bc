"""pool.stream_many: many streams in one sequence."""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections import defaultdict

import pytest

from chatpool import ChatChunk, DeadlineExceededError, Outcome, PoolClosedError, RetryPolicy
from chatpool._client import streams
from chatpool.testing import Answer, Error, RateLimited, Reset, Stall, Stream

LONG = Stream(["word "] * 3000)


def gathered(pairs):
    """All that came, by index."""
    found = defaultdict(list)
    for index, piece in pairs:
        found[index].append(piece)
    return found


def assert_complete(found, count):
    """One outcome per item, after its chunks, and the chunks of a good one are its text."""
    assert sorted(found) == list(range(count))
    for index, (*chunks, outcome) in found.items():
        assert isinstance(outcome, Outcome)
        assert outcome.index == index
        assert all(isinstance(chunk, ChatChunk) for chunk in chunks)
        text = "".join(chunk.text for chunk in chunks)
        assert text == outcome.value.text if outcome.ok else text.startswith(getattr(outcome.error, "text", ""))


def test_chunks_come_before_the_outcome_of_their_item(serve):
    _, pool = serve(max_workers=4)
    found = gathered(pool.stream_many(f"item number {number}" for number in range(50)))
    assert_complete(found, 50)
    assert all(pieces[-1].value.text == f"item number {index}" for index, pieces in found.items())
    assert pool.stats().succeeded == 50


def test_streams_are_read_side_by_side(serve):
    server, pool = serve(max_workers=2)
    server.set_script({"slow": Stream(["a"], end="stall"), "quick": Stream(["b"])})
    pairs = pool.stream_many(["slow", "quick"])
    assert any(index == 1 and isinstance(piece, Outcome) for index, piece in pairs)
    pairs.close()


def test_whatever_goes_wrong_each_item_has_one_outcome_at_its_end(serve):
    faults = [
        None,
        Error(503),
        Error(400),
        RateLimited(0.01),
        Reset(),
        Reset(after=300, then=Stream(["Once", " upon"])),
        Stream(["Once"], end="cut"),
        Stream(["Once"], end="hangup"),
        Stream(["Once"], end={"error": {"message": "no", "code": "overloaded"}}),
        Stream(["Once", b"data: {\n\n"]),
        Answer(body=b"<html>"),
    ]
    choose = random.Random(7)
    server, pool = serve(max_workers=8, retry=RetryPolicy(max_retries=4, wait_initial=0.01))
    server.set_script(lambda request: choose.choice([*faults, *[None] * 20]))
    found = gathered(pool.stream_many([f"item {number}" for number in range(120)]))
    assert_complete(found, 120)
    kinds = {type(pieces[-1].error).__name__ for pieces in found.values()}
    assert {"NoneType", "TruncatedStreamError", "BadRequestError"} <= kinds


def test_items_that_are_none_and_rows_of_ones_own(serve):
    _, pool = serve()
    found = gathered(pool.stream_many([{"q": "a"}, {}], prompt=lambda row: row["q"]))
    assert_complete(found, 2)
    assert found[0][-1].item == {"q": "a"}
    assert "prompt=" in str(found[1][-1].error)
    with pytest.raises(TypeError, match="iterable of items"):
        pool.stream_many("tell")


def test_an_endless_input_is_read_only_so_far_ahead(serve):
    _, pool = serve()
    read = []

    def rows():
        for number in itertools.count():
            read.append(number)
            yield str(number)

    with pool.stream_many(rows(), buffersize=10) as pairs:
        done = 0
        while done < 30:
            done += isinstance(next(pairs)[1], Outcome)
    assert len(read) <= 30 + 10


def test_a_slow_consumer_holds_up_the_workers_and_not_the_memory(serve, monkeypatch):
    monkeypatch.setattr(streams, "_MAX_QUEUED_CHUNKS", 10)
    server, pool = serve(LONG, LONG, max_workers=2)
    pairs = pool.stream_many(["a", "b", "c", "d"])
    next(pairs)
    server.wait_for(2)  # it may have written all of it by now: to buffers that nobody empties
    assert pool.stats().in_flight == 2
    assert len(pairs._run._finished) <= 10 + 2
    assert len(server.requests) == 2
    assert_complete(gathered(pairs), 4)


def test_workers_do_not_run_ahead_while_the_consumer_wakes_up(serve, monkeypatch):
    monkeypatch.setattr(streams, "_MAX_QUEUED_CHUNKS", 10)
    waiting, take = [], streams.StreamRun._take_ready

    def take_ready(run):
        waiting.append(len(run._finished))
        return take(run)

    monkeypatch.setattr(streams.StreamRun, "_take_ready", take_ready)
    server, pool = serve(max_workers=1)
    server.set_script({"long": LONG})
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1)  # as on greenlets: the others go on when the worker has to wait, and not before
    try:
        assert_complete(gathered(pool.stream_many(["long"])), 1)
    finally:
        sys.setswitchinterval(usual)
    assert max(waiting) <= 10 + 1


def test_leaving_early_cancels_what_is_left(serve, monkeypatch):
    monkeypatch.setattr(streams, "_MAX_QUEUED_CHUNKS", 10)
    server, pool = serve(max_workers=2)
    server.set_script(lambda request: LONG)
    with pool.stream_many(["tell"] * 20) as pairs:
        next(pairs)
    server.wait_until(lambda: server.open_connections == 0)
    stats = pool.stats()
    assert (stats.queued, stats.in_flight) == (0, 0)
    assert list(pairs) == []
    server.set_script(None)
    assert pool.chat("next").text == "next"


def test_dropping_it_cancels_what_is_left(serve, monkeypatch):
    monkeypatch.setattr(streams, "_MAX_QUEUED_CHUNKS", 10)
    server, pool = serve(max_workers=2)
    server.set_script(lambda request: LONG)
    for _ in pool.stream_many(["tell"] * 20):
        break
    server.wait_until(lambda: server.open_connections == 0)
    server.set_script(None)
    assert pool.chat("next").text == "next"


@pytest.mark.slow
def test_a_call_in_the_loop_does_not_wait_for_ever_for_its_own_thread(serve, monkeypatch):
    monkeypatch.setattr(streams, "_MAX_QUEUED_CHUNKS", 10)
    server, pool = serve(max_workers=2)
    server.set_script({"long": LONG})
    pairs = pool.stream_many(["long"] * 4)
    seen = [next(pairs)]
    assert pool.chat("between").text == "between"  # after all four: its turn comes when theirs has been
    assert_complete(gathered(itertools.chain(seen, pairs)), 4)


@pytest.mark.slow
def test_closing_the_pool_in_the_loop_finishes_what_was_submitted(serve, monkeypatch):
    monkeypatch.setattr(streams, "_MAX_QUEUED_CHUNKS", 10)
    server, pool = serve(max_workers=2)
    server.set_script({"long": LONG})
    pairs = pool.stream_many(["long"] * 4)
    seen = [next(pairs)]
    pool.close()
    found = gathered(itertools.chain(seen, pairs))
    assert_complete(found, 4)
    assert all(pieces[-1].ok for pieces in found.values())


def test_abort_ends_it(serve, monkeypatch):
    monkeypatch.setattr(streams, "_MAX_QUEUED_CHUNKS", 10)
    server, pool = serve(max_workers=2)
    server.set_script({"long": LONG})
    pairs = pool.stream_many(["long"] * 4)
    seen = [next(pairs)]
    pool.abort()
    found = gathered(itertools.chain(seen, pairs))
    assert_complete(found, 4)
    assert {type(pieces[-1].error) for pieces in found.values()} == {PoolClosedError}


def test_run_timeout_bounds_it(serve):
    server, pool = serve(max_workers=2)
    server.set_script(lambda request: Stream(["Once"], end="stall") if request.number else Stall())
    found = gathered(pool.stream_many(["a", "b", "c"], run_timeout=0.5))
    assert_complete(found, 3)
    assert {type(pieces[-1].error) for pieces in found.values()} == {DeadlineExceededError}


def test_a_fatal_error_ends_it(serve):
    server, pool = serve(max_workers=1)
    server.set_script(lambda request: Error(401))
    found = gathered(pool.stream_many(["a"] * 20))
    assert_complete(found, 20)
    assert len(server.requests) == 1


def test_a_callback_in_a_worker_may_use_it(serve):
    found = []

    def listener(event):
        if event.call_id == 1 and event.kind == "succeeded":
            found.append(gathered(pool.stream_many(["long", "b"])))

    server, pool = serve(max_workers=1, listeners=[listener])
    server.set_script({"long": LONG})
    assert pool.chat("outer").text == "outer"
    assert_complete(found[0], 2)


def test_its_progress_is_that_of_its_items(serve, capsys):
    _, pool = serve()
    list(pool.stream_many(["a", "b", "c"], progress=True))
    assert "3/3" in capsys.readouterr().err


def test_several_threads_use_a_pool_side_by_side(serve):
    _, pool = serve(max_workers=4)
    results = {}

    def use(name):
        results[name] = gathered(pool.stream_many([f"{name} {number}" for number in range(30)]))

    threads = [threading.Thread(target=use, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for name in "abc":
        assert_complete(results[name], 30)
        assert results[name][7][-1].value.text == f"{name} 7"
