"""What a pool keeps of calls that have ended, and of streams that somebody still holds."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from chatpool import ChatPool, ChatPoolError, PoolClosedError
from chatpool.testing import Answer, Delay, Error, FakeServer, Reset, Stream
from tests.waiting import until

CHUNKS = ["some ", "of ", "it"]


@pytest.fixture(autouse=True)
def collection_at_known_moments():
    gc.disable()
    yield
    gc.enable()


def read(stream, how):
    """Use a stream in one of the ways in which people do; returns nothing of it."""
    try:
        with stream:
            for _ in stream:
                if how == "left by break":
                    break
                if how == "left by an error":
                    raise KeyError("of the reader's own")
    except (ChatPoolError, KeyError):
        pass


@pytest.mark.parametrize("how", ["whole", "broken off", "an error in it", "left by break", "left by an error"])
def test_nothing_leads_to_a_stream_that_has_ended(serve, how):
    broken = b'data: {"choices": [{"index": 0, "delta": {"content": "some"}}]}\n\n'
    bodies = {"broken off": broken, "an error in it": broken + b'data: {"error": {"message": "no"}}\n\n'}
    server, pool = serve(max_workers=2)
    answer = Answer(body=bodies[how], headers={"Content-Type": "text/event-stream"}) if how in bodies else None
    server.set_script(lambda request: answer or Stream(CHUNKS))
    streams = []
    for _ in range(3):
        stream = pool.stream("tell")
        read(stream, how)
        streams.append(weakref.ref(stream))
        del stream
    until(lambda: gc.collect() >= 0 and not any(one() for one in streams))  # its worker may be at its last steps


@pytest.mark.parametrize("how", ["whole", "broken off"])
def test_no_connection_is_open_after_close_though_streams_and_errors_are_held(serve, how):
    server, pool = serve(max_workers=2)
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "some"}}]}\n\n'
    headers = {"Content-Type": "text/event-stream", "Content-Length": str(len(body))}
    server.set_script(lambda request: Answer(body=body, headers=headers) if how == "broken off" else Stream(CHUNKS))
    held = []
    for _ in range(3):
        stream = pool.stream("tell")
        held.append(stream)
        try:
            list(stream)
        except ChatPoolError as error:
            held.append(error)
    pool.close()
    server.wait_until(lambda: server.open_connections == 0)
    assert len(held) == (6 if how == "broken off" else 3)


@pytest.mark.slow
def test_names_of_models_without_end_are_forgotten(serve):
    server, pool = serve(max_workers=4)
    for first in range(0, 2_000, 500):
        assert None not in pool.map([{"model": f"m{first + number}", "prompt": "x"} for number in range(500)])
    assert len(pool.stats().lines) <= 1_500


@pytest.mark.slow
def test_a_model_that_is_used_is_not_forgotten(serve):
    server, pool = serve(max_workers=4)
    learned = None
    for first in range(0, 1_500, 300):
        pool.chat("x", model="usual")
        upstreams = pool._core.engine._scheduler._upstreams
        (upstream,) = (upstream for upstream in upstreams if upstream.key[1] == "usual")
        assert learned in (None, upstream)
        learned = upstream
        pool.map([{"model": f"m{first + number}", "prompt": "x"} for number in range(300)])


def test_refused_callers_do_not_hold_up_the_end_of_what_is_in_flight():
    """With many of them that try again at once, the interpreter has time for little else."""
    with FakeServer(lambda request: Delay(0.05)) as server:
        pool = ChatPool("m", base_url=server.base_url, max_workers=8, retry=0)
        closed, refused = threading.Event(), threading.Event()

        def call_on():
            while not closed.is_set():
                try:
                    pool.chat("x")
                except PoolClosedError:
                    refused.set()

        callers = [threading.Thread(target=call_on, daemon=True) for _ in range(100)]
        for caller in callers:
            caller.start()
        server.wait_for(16)
        ending = threading.Thread(target=pool.close, daemon=True)
        ending.start()
        ending.join(60)  # thousands of refusals a second made it half a minute
        assert not ending.is_alive()
        closed.set()
        for caller in callers:
            caller.join(60)
        assert refused.is_set()


BROKEN_OFF = b'data: {"choices": [{"index": 0, "delta": {"content": "some"}}]}\n\n'


def an_hour_of_everything(pool, hour):
    """Calls of every kind, of which many fail, to a handful of models."""
    pool.chat("hello")
    pool.embed(["a", "b"])
    pool.map([f"row {number}" for number in range(10)] + ["refused", "down", "cut"], on_error="return", retry=0)
    for prompt in ("stream", "broken off", "refused"):
        read(pool.stream(prompt, retry=0), "whole" if hour % 2 else "left by break")
    with pytest.raises(ChatPoolError):
        pool.chat("refused", model=f"m{hour % 5}", retry=0)
    for item in pool.imap(f"row {number}" for number in range(10**6)):
        if item.index == 5:
            break
    pool.submit("hello").cancel()
    pool.with_options(model=f"n{hour % 5}", headers={"X-Hour": str(hour)}).chat("hello")


@pytest.mark.parametrize("hours", [20, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_pool_that_works_for_days_does_not_grow(hours, fake_clock, record_property):
    """On a clock of its own, with an hour between two bouts of work."""
    answers = {
        "refused": Error(400),
        "down": Error(503),
        "cut": Reset(),
        "broken off": Answer(body=BROKEN_OFF, headers={"Content-Type": "text/event-stream"}),
    }

    def answer(request):
        prompt = request.body["messages"][-1]["content"] if "messages" in request.body else ""
        return answers.get(prompt) or (Stream(CHUNKS) if request.body.get("stream") else None)

    sizes = []
    with FakeServer(answer) as server, ChatPool("m", base_url=server.base_url, max_workers=4) as pool:
        for hour in range(hours):
            an_hour_of_everything(pool, hour)
            fake_clock.advance(3600)
            if hour % (hours // 4) == hours // 4 - 1:
                while pool.stats().queued or pool.stats().in_flight:  # of the run that was left
                    threading.Event().wait(0.01)
                gc.collect()
                sizes.append(sum(map(_is_of_the_pool, gc.get_objects())))
    record_property("counted", f"a pool over {hours} hours: its objects after each quarter {sizes}")
    assert max(sizes) - sizes[0] < 40  # threads come and go


def _is_of_the_pool(one):
    module = str(type(one).__module__)
    return module.startswith("chatpool.") and not module.startswith("chatpool.testing.")
