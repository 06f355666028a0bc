"""pool.stream: an answer chunk by chunk."""

from __future__ import annotations

import json
import threading
import time

import pytest

from chatpool import (
    Budget,
    BudgetExceededError,
    CallCancelledError,
    ChatChunk,
    ChatRequest,
    DeadlineExceededError,
    Limits,
    PoolClosedError,
    Timeout,
)
from chatpool.testing import Answer, Error, Stall, Stream

REFUSAL = {"error": {"message": "Unrecognized request argument supplied: stream_options", "type": "invalid_request"}}


def test_chunks_come_as_the_model_writes(serve):
    server, pool = serve(Stream(["Once", " upon", " a time"], end="stall"))
    with pool.stream("tell") as stream:
        assert next(stream).text == ""  # the role
        assert [next(stream).text for _ in range(3)] == ["Once", " upon", " a time"]  # and the answer is not there yet
        assert stream.text == "Once upon a time"
        assert server.in_flight == 1


def test_the_whole_answer_is_there_at_the_end(serve):
    server, pool = serve(Stream(["Once", " upon"], headers={"x-request-id": "req_7"}))
    with pool.stream("tell") as stream:
        chunks = list(stream)
    whole = stream.completion
    assert "".join(map(str, chunks)) == stream.text == whole.text == "Once upon"
    assert (whole.finish_reason, whole.request_id) == ("stop", "req_7")
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert whole.usage == chunks[-1].usage
    assert pool.stats().usage.total_tokens == whole.usage.total_tokens > 0
    assert pool.stats().succeeded == 1


def test_the_usage_is_asked_for_unless_the_caller_says_otherwise(serve):
    server, pool = serve()
    list(pool.stream("a"))
    list(pool.stream("b", stream_options={"include_usage": False}))
    list(pool.stream("c", stream_options=None))
    sent = [request.body.get("stream_options", "left out") for request in server.requests]
    assert sent == [{"include_usage": True}, {"include_usage": False}, "left out"]
    assert all(request.body["stream"] is True for request in server.requests)


def test_a_server_that_refuses_to_be_asked_for_it_is_not_asked_again(serve):
    def refusing(request):
        refused = "stream_options" in request.body
        return Answer(status=400, body=json.dumps(REFUSAL).encode()) if refused else None

    server, pool = serve(retry=0)
    server.set_script(refusing)
    for _ in range(2):
        assert "".join(map(str, pool.stream("tell"))) == "tell"
    assert pool.chat("tell", collect_stream=True).text == "tell"
    assert ["stream_options" in request.body for request in server.requests] == [True, False, False, False]


def test_a_refusal_for_another_reason_is_a_refusal(serve):
    server, pool = serve(Error(400, "max_tokens is too large"))
    with pytest.raises(Exception, match="max_tokens"):
        next(pool.stream("tell"))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "item",
    [
        {"messages": [{"role": "user", "content": "tell"}], "stream": True},
        ChatRequest({"messages": [{"role": "user", "content": "tell"}], "stream": True}),
        {"input": "tell"},
        {"prompt": "tell"},
    ],
)
def test_every_kind_of_item_streams(serve, item):
    _, pool = serve()
    with pool.stream(item, stream=True) as stream:
        assert "".join(map(str, stream)) == "tell"
    assert stream.completion.text == "tell"


def test_a_path_that_does_not_stream_is_said_at_once(serve):
    server, pool = serve()
    with pytest.raises(TypeError, match="/embeddings does not stream"):
        pool.stream(ChatRequest({"input": "a"}, "/embeddings"))
    assert not server.requests


@pytest.mark.parametrize("method", ["chat", "submit", "map", "imap", "as_completed"])
def test_other_methods_name_the_one_that_streams(serve, method):
    _, pool = serve()
    with pytest.raises(TypeError, match=r"pool\.stream"):
        getattr(pool, method)("tell", stream=True)
    with pytest.raises(TypeError, match=r"pool\.stream"):
        pool.chat({"prompt": "tell", "stream": True})


def test_keywords_of_whole_answers_mean_nothing_here(serve):
    _, pool = serve()
    for name in ("parse", "accept", "collect_stream", "journal", "dedupe"):
        with pytest.raises(TypeError, match=name):
            pool.stream("tell", **{name: True})


def test_nothing_is_sent_before_the_first_chunk_is_asked_for(serve):
    server, pool = serve()
    with pool.stream("tell") as stream:
        assert repr(stream) == "<ChatStream not sent, 0 characters so far>"
    assert list(stream) == []  # closed
    pool.stream("tell").close()
    assert not server.requests


def test_before_its_end_there_is_no_completion(serve):
    _, pool = serve(Stream(["Once"], end="stall"))
    with pool.stream("tell") as stream:
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = stream.completion
        next(stream)
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = stream.completion


def test_a_whole_stream_gives_its_connection_back(serve):
    server, pool = serve(max_workers=1)
    for _ in range(3):
        list(pool.stream("tell"))
        pool.chat("ask")
    assert server.connections == 1


def test_tool_calls_come_in_pieces_and_are_whole_in_the_end(serve):
    body = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
                    ],
                },
            }
        ]
    }
    _, pool = serve(Stream(body=body))
    with pool.stream("add") as stream:
        pieces = [delta for chunk in stream for delta in chunk.tool_calls]
    assert "".join(piece.arguments for piece in pieces) == '{"a": 1, "b": 2}'
    assert [(call.name, call.arguments) for call in stream.completion.tool_calls] == [("add", {"a": 1, "b": 2})]


def test_another_thread_may_read_on(serve):
    _, pool = serve(Stream(["Once", " upon"]))
    stream = pool.stream("tell")
    read = [next(stream)]
    thread = threading.Thread(target=lambda: read.extend(stream))
    thread.start()
    thread.join(60)
    assert "".join(map(str, read)) == "Once upon"
    assert stream.completion.text == "Once upon"


def test_two_threads_may_not_read_at_the_same_time(serve):
    _, pool = serve(Stream(["Once"], end="stall"))
    stream, errors = pool.stream("tell"), []

    def reader():
        try:
            for _ in stream:
                pass
        except (RuntimeError, CallCancelledError) as error:
            errors.append(type(error))
            stream.close()  # wakes the other one

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [RuntimeError, CallCancelledError]


def test_a_stream_that_another_thread_closed_does_not_seem_whole(serve):
    _, pool = serve(Stream(["Once", " upon"]))
    stream = pool.stream("tell")
    next(stream)
    closer = threading.Thread(target=stream.close)
    closer.start()
    closer.join(60)
    with pytest.raises(CallCancelledError, match="closed by another thread"):
        next(stream)
    unsent = pool.stream("tell")
    closer = threading.Thread(target=unsent.close)
    closer.start()
    closer.join(60)
    with pytest.raises(CallCancelledError, match="closed by another thread"):
        next(unsent)


def test_the_time_its_reader_takes_does_not_count(serve):
    server, pool = serve(Stream(["a", "b", "c"], every=0.01), timeout=Timeout(total=0.6, read=0.4))
    stream = pool.stream("tell")
    next(stream)
    read_slowly = threading.Event()
    threading.Timer(0.8, read_slowly.set).start()
    assert read_slowly.wait(60)
    assert "".join(map(str, stream)) == "abc"


def test_waiting_for_a_worker_counts(serve):
    _, pool = serve(Stall(), max_workers=1)
    future = pool.submit("slow")
    with pytest.raises(DeadlineExceededError, match="worker"):
        next(pool.stream("tell", timeout=Timeout(total=0.3)))
    future.cancel()


def test_a_closed_pool_streams_nothing(serve):
    _, pool = serve()
    pool.close()
    with pytest.raises(PoolClosedError):
        next(pool.stream("tell"))


def test_a_stream_that_is_read_costs_what_it_used(serve):
    _, pool = serve(budget=Budget(tokens=250))
    for _ in range(10):
        list(pool.stream("tell", max_tokens=100))


def test_a_stream_that_is_left_costs_what_it_may_have_used(serve):
    server, pool = serve(budget=Budget(tokens=250))
    for _ in range(2):
        with pool.stream("tell", max_tokens=100) as stream:
            next(stream)
    with pytest.raises(BudgetExceededError):
        next(pool.stream("tell", max_tokens=100))
    assert len(server.requests) == 2
    assert pool.stats().succeeded == 2


def test_a_stream_waits_for_its_turn_as_any_call(serve):
    server, pool = serve(limits=Limits(requests_per_minute=600, burst=0.1))
    started = time.monotonic()
    for _ in range(4):
        list(pool.stream("tell"))
    assert time.monotonic() - started > 0.25  # three intervals of a tenth of a second


def test_chunks_are_values():
    assert ChatChunk("a") == ChatChunk("a")
    assert str(ChatChunk("a")) == "a"
