"""A stream that goes wrong: whatever the fault, the same is raised, retried, kept and freed."""

from __future__ import annotations

import json

import pytest

from chatpool import (
    APIError,
    APIResponseError,
    APITimeoutError,
    BadRequestError,
    DeadlineExceededError,
    InternalServerError,
    RateLimitError,
    Timeout,
    TruncatedStreamError,
)
from chatpool.testing import Answer, Error, Html, RateLimited, Stall, Stream, chat_completion

PIECES = ["Once", " upon"]
OVERLOADED = {"error": {"message": "overloaded", "type": "server_error", "code": "server_is_overloaded"}}

FAULTS = {
    "a clean end without a finish_reason": {"end": "cut"},
    "the connection closed in the body": {"end": "hangup"},
    "a reset": {"end": "reset", "every": 0.03},  # what has come and was not read is lost with a reset
    "an error object": {"end": OVERLOADED},
    "a chunk that is not JSON": {"pieces": [*PIECES, b"data: {no json\n\n"]},
    "a chunk that is no object": {"pieces": [*PIECES, b"data: 7\n\n"]},
    "a stall": {"end": "stall"},
    "comments without end": {"pieces": [*PIECES, *[b": keep-alive\n\n"] * 200], "every": 0.02},
}
PATIENCE = Timeout(read=0.3, attempt=1)

# The only one after which the next request can go over the same connection: all others are closed.
REUSABLE = "a clean end without a finish_reason"


def broken(fault, pieces=PIECES):
    """The stream with the fault after its pieces."""
    how = dict(FAULTS[fault])
    how["pieces"] = [*pieces, *how.pop("pieces", PIECES)[len(PIECES) :]]
    return Stream(**how)


@pytest.fixture(params=FAULTS)
def fault(request):
    return request.param


def test_after_the_first_chunk_it_is_raised_and_the_text_kept(serve, fault):
    server, pool = serve(broken(fault), timeout=PATIENCE)
    read = []
    with pytest.raises(TruncatedStreamError) as caught, pool.stream("tell") as stream:
        read.extend(chunk.text for chunk in stream)
    assert "".join(read) == stream.text == caught.value.text == "Once upon"
    assert caught.value.attempts == len(server.requests) == 1
    assert list(stream) == []
    with pytest.raises(TruncatedStreamError):
        _ = stream.completion
    server.wait_until(lambda: server.open_connections == (fault == REUSABLE))
    stats = pool.stats()
    assert (stats.in_flight, stats.failed, stats.succeeded) == (0, 1, 0)


def test_before_the_first_chunk_it_is_retried_like_any_call(serve, fault):
    short = Timeout(read=1, attempt=2)  # a stall before the first event is a matter of the attempt
    server, pool = serve(broken(fault, pieces=[]), Stream(["whole"]), timeout=short)
    with pool.stream("tell") as stream:
        assert [chunk.text for chunk in stream if chunk.text] == ["whole"]
    assert stream.completion.text == "whole"
    assert len(server.requests) == 2
    assert pool.stats().retried == 1


def test_a_collected_stream_is_retried_at_any_point(serve, fault):
    server, pool = serve(broken(fault), Stream(["whole"]), timeout=PATIENCE)
    assert pool.chat("tell", collect_stream=True).text == "whole"
    assert len(server.requests) == 2
    server.wait_until(lambda: server.open_connections == 1)


def test_a_collected_stream_keeps_the_text_of_its_last_attempt(serve, fault):
    _, pool = serve(broken(fault), timeout=PATIENCE, retry=0)
    with pytest.raises(TruncatedStreamError) as caught:
        pool.chat("tell", collect_stream=True)
    assert caught.value.text == "Once upon"


def test_in_a_run_of_streams_it_is_the_outcome_after_the_chunks(serve, fault):
    server, pool = serve(broken(fault), timeout=PATIENCE)
    *chunks, (index, outcome) = list(pool.stream_many(["tell"]))
    assert "".join(chunk.text for _, chunk in chunks) == outcome.error.text == "Once upon"
    assert (index, outcome.attempts, type(outcome.error)) == (0, 1, TruncatedStreamError)
    server.wait_until(lambda: server.open_connections == (fault == REUSABLE))


def test_an_error_in_the_stream_says_what_the_server_said(serve):
    _, pool = serve(Stream(PIECES, end=OVERLOADED))
    with pytest.raises(TruncatedStreamError, match="overloaded") as caught:
        list(pool.stream("tell"))
    assert caught.value.code == "server_is_overloaded"


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Error(500), InternalServerError),
        (RateLimited(0.01), RateLimitError),
        (Html(200), APIResponseError),
        (Answer(body=b"{}"), APIResponseError),
        (Stall(), APITimeoutError),
    ],
)
def test_what_is_no_stream_is_judged_as_ever(serve, step, error):
    _, pool = serve(step, Stream(["whole"]), timeout=0.5)
    assert "".join(chunk.text for chunk in pool.stream("tell")) == "whole"
    _, impatient = serve(step, retry=0, timeout=0.5)
    with pytest.raises(error):
        next(impatient.stream("tell"))


def test_a_server_that_does_not_stream_gives_one_chunk(serve):
    _, pool = serve(Answer(body=json.dumps(chat_completion("all at once")).encode()))
    with pool.stream("tell") as stream:
        assert [chunk.text for chunk in stream] == ["all at once"]
    assert stream.completion.text == "all at once"


@pytest.mark.parametrize("end", ["no_done", "no_reason", "open"])
def test_an_end_that_is_whole_in_one_of_its_two_ways_is_whole(serve, end):
    _, pool = serve(Stream(PIECES, end=end), timeout=PATIENCE)
    with pool.stream("tell") as stream:
        assert "".join(chunk.text for chunk in stream) == "Once upon"
    assert stream.completion.text == "Once upon"


def delta(reason=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
SETTLED = {
    "text": ([*PIECES, delta("stop")], "Once upon"),
    "text and reason in one": ([delta("stop", content="Once upon")], "Once upon"),
    "reasoning, text": ([delta("stop", reasoning_content="Hm."), *PIECES, delta("stop")], "Once upon"),
    "tool calls": ([delta("tool_calls", tool_calls=[CALL])], ""),
    "a refusal": ([delta("stop", refusal="No.")], ""),
}
OPEN = {
    "a reason alone": [delta("stop", content="")],
    "a reason on the reasoning": [delta("stop", reasoning_content="Hm.")],
    "text after the reason": [delta("stop", reasoning_content="Hm."), *PIECES],
    "text after text and reason": [delta("stop", content="Once"), delta(content=" upon")],
    "reasoning after the reason": [delta("stop", content="Once upon"), delta(reasoning="Hm.")],
}
BREAKS = {"stall": {"end": "stall"}, "reset": {"end": "reset", "every": 0.03}}


@pytest.mark.parametrize("way", BREAKS)
@pytest.mark.parametrize("case", SETTLED)
def test_a_reason_is_believed_without_an_end_once_there_is_an_answer(serve, case, way):
    pieces, text = SETTLED[case]
    server, pool = serve(Stream(pieces, **BREAKS[way]), timeout=PATIENCE)
    with pool.stream("tell") as stream:
        assert "".join(chunk.text for chunk in stream) == text
    assert stream.completion.finish_reason in ("stop", "tool_calls")
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", BREAKS)
@pytest.mark.parametrize("case", OPEN)
def test_before_that_it_is_not(serve, case, way):
    server, pool = serve(Stream(OPEN[case], **BREAKS[way]), Stream(["whole"]), timeout=PATIENCE)
    assert pool.chat("tell", collect_stream=True).text == "whole"
    assert len(server.requests) == 2


@pytest.mark.parametrize("end", ["cut", "no_reason"])
def test_an_answer_without_text_is_whole_at_a_clean_end(serve, end):
    _, pool = serve(Stream([delta("stop", reasoning_content="Hm.")], end=end))
    reply = pool.chat("tell", collect_stream=True)
    assert (reply.text, reply.finish_reason, reply.message["reasoning_content"]) == ("", "stop", "Hm.")


def test_an_answer_after_an_early_reason_and_a_pause_is_taken_whole(serve):
    pieces = [delta("stop", reasoning_content="Hm."), *[b": working\n\n"] * 4, *PIECES, delta("stop")]
    server, pool = serve(Stream(pieces, every=0.15), timeout=Timeout(read=0.3, attempt=5))
    with pool.stream("tell") as stream:
        assert "".join(chunk.text for chunk in stream) == "Once upon"
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html"])
def test_events_under_another_name_are_events(serve, kind):
    server, pool = serve(Stream(PIECES, headers={"content-type": kind}), Stream(PIECES, headers={"content-type": kind}))
    with pool.stream("tell") as stream:
        assert "".join(chunk.text for chunk in stream) == "Once upon"
    assert pool.chat("tell", collect_stream=True).text == "Once upon"
    assert len(server.requests) == 2


@pytest.mark.parametrize("text", [b"", b"\n\ndata: [DONE]\n\n", b"\n[DONE]"])
def test_json_under_the_name_of_events_is_one_chunk(serve, text):
    body = json.dumps(chat_completion("all at once")).encode() + text
    _, pool = serve(Answer(body=body, headers={"content-type": "text/event-stream"}))
    with pool.stream("tell") as stream:
        assert [chunk.text for chunk in stream] == ["all at once"]
    assert stream.completion.text == "all at once"


ERROR = {"code": 400, "message": "the request exceeds the context size", "type": "invalid_request_error"}
SAID = {
    "a field": b"error: " + json.dumps(ERROR).encode() + b"\n\n",
    "a field, with its envelope": b"error: " + json.dumps({"error": ERROR}).encode() + b"\n\n",
    "a field without a space, at the end": b"error:" + json.dumps(ERROR).encode(),
    "an event": b"event: error\ndata: " + json.dumps(ERROR).encode() + b"\n\n",
    "no field at all": json.dumps({"error": ERROR}).encode() + b"\n\n",
    "no field at all, at the end": json.dumps({"error": ERROR}).encode(),
    "an event without its blank line": b"data: " + json.dumps({"error": ERROR}).encode() + b"\n",
}


@pytest.mark.parametrize("case", SAID)
@pytest.mark.parametrize("before", [[], ["Once"]])
def test_an_error_in_any_form_is_told_in_the_servers_words_and_not_retried(serve, case, before):
    # A comment first: a body that is JSON from its first byte on is an answer, not a stream.
    server, pool = serve(Stream([b": hello\n\n", *before, SAID[case]], end="cut"))
    with pytest.raises(APIError, match="the request exceeds the context size") as caught:
        pool.chat("tell", collect_stream=True)
    assert caught.value.status_code == 400
    assert isinstance(caught.value, TruncatedStreamError if before else BadRequestError)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "form", [b"error: the model has crashed\n\n", b"event: error\ndata: the model has crashed\n\n"]
)
def test_an_error_that_is_plain_text_is_told(serve, form):
    _, pool = serve(Stream(["Once", form]), retry=0)
    with pytest.raises(TruncatedStreamError, match="the model has crashed"):
        list(pool.stream("tell"))


def test_the_total_time_ends_a_stream_however_lively_it_is(serve):
    server, pool = serve(Stream(["word "] * 1000, every=0.01), timeout=Timeout(total=2))
    with pytest.raises(DeadlineExceededError, match="total") as caught, pool.stream("tell") as stream:
        list(stream)
    assert isinstance(caught.value.__cause__, TruncatedStreamError)
    assert caught.value.__cause__.text == stream.text != ""
    server.wait_until(lambda: server.open_connections == 0)


def test_a_stream_longer_than_max_response_bytes_is_an_error(serve):
    _, pool = serve(Stream(["word "] * 500), max_response_bytes=20_000)
    with pytest.raises(TruncatedStreamError, match="max_response_bytes"):
        list(pool.stream("tell"))
