"""What the events of a call say."""

from __future__ import annotations

import threading

import pytest

from chatpool import BadRequestError, ChatPool
from chatpool.testing import Answer, Error, FakeServer, Stream, chat_completion


@pytest.fixture
def heard():
    return []


@pytest.fixture
def pool_of(heard):
    """A function from a server's script to a pool whose events are heard."""
    opened = []

    def make(script=None, **options):
        server = FakeServer(script=script)
        pool = ChatPool("m", base_url=server.base_url, listeners=[heard.append], **options)
        opened.extend([pool, server])
        return pool

    yield make
    for each in opened:
        each.close()


def test_the_first_is_queued_and_the_last_says_how_long_everything_took(pool_of, heard, stepped_time):
    pool = pool_of(stepped_time.answer_after(0.5), max_workers=1)
    futures = [pool.submit("a"), pool.submit("b")]
    stepped_time.run(pool, lambda: [future.result() for future in futures])
    second = [event for event in heard if event.call_id == 2]
    assert [event.kind for event in second] == ["queued", "sent", "succeeded"]
    queued, sent, succeeded = second
    assert (queued.attempt, queued.endpoint, queued.queued, queued.total) == (0, None, None, None)
    assert sent.queued == succeeded.queued == pytest.approx(0.5, abs=0.05)
    assert succeeded.total == pytest.approx(1.0, abs=0.05)
    assert succeeded.elapsed == pytest.approx(0.5, abs=0.05)
    assert sent.total is None


def test_a_call_that_is_never_sent_has_waited_all_its_time(pool_of, heard):
    release = threading.Event()
    pool = pool_of(lambda request: release.wait(30) and None, max_workers=1)
    first, second = pool.submit("a"), pool.submit("b")
    second.cancel()
    release.set()
    first.result(30)
    queued, failed = [event for event in heard if event.call_id == 2]
    assert (queued.kind, failed.kind, failed.attempt, failed.queued) == ("queued", "failed", 0, None)
    assert failed.total >= 0


@pytest.mark.parametrize(
    ("call", "operation"),
    [
        (lambda pool: pool.chat("a"), "chat"),
        (lambda pool: pool.chat({"prompt": "a"}), "text_completion"),
        (lambda pool: pool.responses("a"), "responses"),
        (lambda pool: pool.embed("a"), "embeddings"),
        (lambda pool: pool.request("/models", method="GET"), "request"),
        (lambda pool: list(pool.stream("a")), "chat"),
    ],
)
def test_the_operation_is_that_of_the_path(pool_of, heard, call, operation):
    call(pool_of())
    assert {event.operation for event in heard} == {operation}


def test_the_answer_says_its_model_and_why_it_stopped(pool_of, heard):
    body = {**chat_completion("a", finish_reason="length"), "model": "m-2026-11-01"}
    pool_of(Answer(body=body)).chat("a")
    assert (heard[-1].model, heard[-1].response_model, heard[-1].finish_reason) == ("m", "m-2026-11-01", "length")


def test_a_refusal_has_neither(pool_of, heard):
    with pytest.raises(BadRequestError):
        pool_of(Error(400)).chat("a")
    assert (heard[-1].response_model, heard[-1].finish_reason, heard[-1].first_chunk) == (None, None, None)


@pytest.mark.parametrize("read", ["stream", "collect", "many", "heartbeat"])
def test_a_stream_says_when_its_first_piece_came(pool_of, heard, stepped_time, read):
    pool = pool_of(stepped_time.answer_after(0.5, Stream(["Once", " upon"])))

    def call():
        if read == "collect":
            pool.chat("a", collect_stream=True)
        else:
            many = pool.stream_many(["a"], progress=False)
            list({"stream": pool.stream("a"), "many": many}.get(read) or pool.stream("a").events(heartbeat=30))

    stepped_time.run(pool, call)
    assert heard[-1].kind == "succeeded"
    assert heard[-1].first_chunk == pytest.approx(0.5, abs=0.05)
    assert heard[-1].finish_reason == "stop"


def test_of_several_attempts_the_last_counts(pool_of, heard):
    pool = pool_of([Stream(["Once"], end="cut"), Answer("whole")], retry=1)
    pool.chat("a", collect_stream=True)
    retrying, succeeded = [event for event in heard if event.kind in ("retrying", "succeeded")]
    assert retrying.first_chunk is not None
    assert succeeded.first_chunk is None or succeeded.first_chunk >= 0


def test_a_call_within_a_worker_is_queued_too(pool_of, heard):
    pool = pool_of()
    texts, done = [], threading.Event()

    def call(_):
        texts.extend([pool.chat("inner").text, "".join(chunk.text for chunk in pool.stream("streamed"))])
        done.set()

    pool.submit("outer").add_done_callback(call)
    assert done.wait(30)
    assert texts == ["inner", "streamed"]
    assert [event.call_id for event in heard if event.kind == "queued"] == [1, 2, 3]
