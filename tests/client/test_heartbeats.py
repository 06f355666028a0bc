"""Streams that tell their reader now and then that nothing has come."""

from __future__ import annotations

import gc
import itertools
import threading

import pytest

from chatpool import CallCancelledError, DeadlineExceededError, Outcome, PoolClosedError, Timeout, TruncatedStreamError
from chatpool.testing import Error, Stall, Stream

SECONDS = 0.02


class Held:
    """A script whose answers begin when it is opened."""

    def __init__(self, step=None):
        self._step = step
        self.opened = threading.Event()

    def __call__(self, request):
        assert self.opened.wait(30)
        return self._step


def read_silence(events, text=""):
    """Read up to the end of ``text``, and on to the second heartbeat after it."""
    read, silent = "", 0
    while read != text or silent < 2:
        chunk = next(events)
        silent = silent + 1 if chunk is None else 0
        read += "" if chunk is None else chunk.text


def text_of(events):
    return "".join(chunk.text for chunk in events if chunk is not None)


def test_before_the_first_chunk_and_between_two(serve):
    held = Held(Stream(["Once", " upon"], end="stall"))
    server, pool = serve(max_workers=1)
    server.set_script(held)
    with pool.stream("tell") as stream:
        events = stream.events(heartbeat=SECONDS)
        read_silence(events)
        held.opened.set()
        read_silence(events, "Once upon")
        assert stream.text == "Once upon"
    server.wait_until(lambda: server.in_flight == 0)
    server.set_script(None)
    assert pool.chat("again").text == "again"  # its slot is free


def test_the_answer_is_whole_and_counted(serve):
    held = Held(Stream(["Once", " upon"]))
    server, pool = serve()
    server.set_script(held)
    stream = pool.stream("tell")
    events = stream.events(heartbeat=SECONDS)
    assert next(events) is None
    held.opened.set()
    assert text_of(events) == stream.completion.text == "Once upon"
    assert list(events) == list(stream) == []
    assert pool.stats().succeeded == 1
    assert pool.stats().usage == stream.completion.usage


def test_without_a_heartbeat_there_are_only_chunks(serve):
    _, pool = serve(Stream(["Once", " upon"]))
    chunks = list(pool.stream("tell").events())
    assert None not in chunks
    assert text_of(chunks) == "Once upon"


@pytest.mark.parametrize("read_first", [1, 2, 3])
def test_a_stream_may_be_read_in_both_ways_one_after_the_other(serve, read_first):
    _, pool = serve(Stream(list("abcdef")))
    stream = pool.stream("tell")
    texts = [next(stream).text for _ in range(read_first)]
    events = stream.events(heartbeat=30)
    texts += [next(events).text for _ in range(2)]
    texts += [chunk.text for chunk in stream]
    assert "".join(texts) == stream.text == "abcdef"
    assert list(events) == []


def test_the_worker_reads_and_no_further_thread(serve):
    held = Held(Stream(["Once"], end="stall"))
    server, pool = serve()
    server.set_script(held)
    with pool.stream("tell") as stream:
        events = stream.events(heartbeat=SECONDS)
        read_silence(events)
        held.opened.set()
        read_silence(events, "Once")
        assert sum(thread.name.startswith("chatpool") for thread in threading.enumerate()) == 1


def test_one_that_breaks_off_is_an_error_with_its_text(serve):
    _, pool = serve(Stream(["Once"], end="reset"))
    texts = []
    with pytest.raises(TruncatedStreamError) as caught:
        texts.extend(chunk.text for chunk in pool.stream("tell").events(heartbeat=30))
    assert "".join(texts) == caught.value.text == "Once"


def test_a_call_that_is_made_again_has_its_heartbeats_meanwhile(serve):
    server, pool = serve(Error(503), Error(503), Stream(["Once"]))
    assert text_of(pool.stream("tell").events(heartbeat=SECONDS)) == "Once"
    assert len(server.requests) == 3


def test_the_time_of_the_call_ends_it(always):
    _, pool = always(Stall(), timeout=Timeout(total=0.3), retry=0)
    seen = []
    with pytest.raises(DeadlineExceededError):
        seen.extend(pool.stream("tell").events(heartbeat=SECONDS))
    assert set(seen) == {None}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("leave", ["close", "drop", "drop in a cycle"])
def test_leaving_it_early_ends_the_exchange(serve, begun, leave):
    server, pool = serve(Stream(["Once"], end="stall") if begun else Stall(), max_workers=1)
    events = pool.stream("tell").events(heartbeat=SECONDS)
    read_silence(events, "Once" if begun else "")
    server.wait_until(lambda: server.in_flight == 1)
    if leave == "close":
        events.close()
    if leave == "drop in a cycle":
        cycle = [events]
        cycle.append(cycle)
        del cycle
    del events
    gc.collect()
    server.wait_until(lambda: server.in_flight == 0)
    assert pool.chat("again").text == "again"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_of_the_reader_that_is_thrown_into_it_ends_the_exchange(serve, error):
    server, pool = serve(Stall(), max_workers=1)
    events = pool.stream("tell").events(heartbeat=SECONDS)
    assert next(events) is None
    server.wait_until(lambda: server.in_flight == 1)  # otherwise the next call might be the one that stalls
    with pytest.raises(error):
        events.throw(error)
    server.wait_until(lambda: server.in_flight == 0)
    assert pool.chat("again").text == "again"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("end", ["close it", "abort the pool"])
def test_another_thread_may_end_it(serve, within, begun, end):
    _, pool = serve(Stream(["Once"], end="stall") if begun else Stall())
    stream = pool.stream("tell")
    reached, errors = threading.Event(), []

    def read():
        try:
            for chunk in stream.events(heartbeat=SECONDS):
                if chunk is None:
                    reached.set()
        except (CallCancelledError, PoolClosedError) as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert reached.wait(30)
    within(30, stream.close if end == "close it" else pool.abort)
    reader.join(30)
    assert len(errors) == 1


def test_a_second_reader_is_refused_and_the_first_one_reads_on(serve):
    held = Held(Stream(["Once", " upon"]))
    server, pool = serve()
    server.set_script(held)
    stream, texts = pool.stream("tell"), []
    reader = threading.Thread(target=lambda: texts.append(text_of(stream)))
    reader.start()
    server.wait_until(lambda: server.in_flight == 1)
    with pytest.raises(RuntimeError, match="another thread is reading"):
        next(stream.events(heartbeat=SECONDS))
    held.opened.set()
    reader.join(30)
    assert texts == ["Once upon"]


def test_one_that_is_refused_for_want_of_a_slot_can_be_read_when_there_is_one(always):
    _, pool = always(Stream(["Once", " upon"]), max_workers=1)
    open_stream, stream = pool.stream("tell"), pool.stream("tell")
    next(open_stream)
    with pytest.raises(RuntimeError, match="max_workers"):
        next(stream.events(heartbeat=SECONDS))
    open_stream.close()
    assert text_of(stream.events(heartbeat=SECONDS)) == "Once upon"


def test_one_that_has_not_begun_holds_a_slot_of_its_reader(serve):
    _, pool = serve(Stall(), max_workers=1)
    events = pool.stream("tell").events(heartbeat=SECONDS)
    assert next(events) is None
    with pytest.raises(RuntimeError, match="max_workers"):
        pool.chat("again")


def test_a_pool_that_its_reader_closes_does_not_wait_for_one_that_has_not_begun(serve):
    _, pool = serve(Stall())
    events = pool.stream("tell").events(heartbeat=SECONDS)
    assert next(events) is None
    pool.close()
    with pytest.raises(CallCancelledError, match="closed"):
        next(events)


def test_a_reader_in_a_worker_of_the_pool_has_them_as_well(serve):
    held = Held(Stream(["inner"]))
    server, pool = serve(max_workers=1)
    server.set_script(lambda request: held(request) if request.prompt == "tell" else None)
    texts, done = [], threading.Event()

    def read(_):
        stream = pool.stream("tell")
        events = stream.events(heartbeat=SECONDS)
        read_silence(events)
        held.opened.set()
        texts.append(text_of(events))
        done.set()

    pool.submit("outer").add_done_callback(read)
    assert done.wait(30)
    assert texts == ["inner"]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, "5"])
@pytest.mark.parametrize("method", ["stream", "stream_many"])
def test_a_heartbeat_that_cannot_be_is_refused_at_once(serve, method, seconds):
    server, pool = serve()
    with pytest.raises((ValueError, TypeError), match="heartbeat"):
        if method == "stream":
            pool.stream("tell").events(heartbeat=seconds)
        else:
            pool.stream_many(["tell"], heartbeat=seconds)
    assert not server.requests


def test_many_streams_share_one(serve):
    held = Held()
    server, pool = serve(max_workers=2)
    server.set_script(held)
    pairs = pool.stream_many(["a", "b", "c"], heartbeat=SECONDS, progress=False)
    assert list(itertools.islice(pairs, 3)) == [(None, None)] * 3
    held.opened.set()
    outcomes = {index: piece for index, piece in pairs if isinstance(piece, Outcome)}
    assert [outcomes[index].value.text for index in range(3)] == ["a", "b", "c"]


def test_leaving_many_early_ends_them(always):
    server, pool = always(Stall(), max_workers=2)
    pairs = pool.stream_many(["a", "b", "c"], heartbeat=SECONDS, progress=False)
    assert next(pairs) == (None, None)
    server.wait_until(lambda: server.in_flight == 2)
    del pairs
    gc.collect()
    server.wait_until(lambda: server.in_flight == 0)
