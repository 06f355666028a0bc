"""Requests for a stream, and the classification of a stream that has ended."""

from __future__ import annotations

import json
import pickle

import pytest
from requests.structures import CaseInsensitiveDict

from chatpool import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    ChatCompletion,
    ChatRequest,
    InsufficientQuotaError,
    InternalServerError,
    RateLimitError,
    ToolCall,
    ToolCallDelta,
    TruncatedStreamError,
    Usage,
)
from chatpool._values import HTTPResponse
from chatpool._wire import (
    StreamReader,
    as_truncated,
    chunk_of,
    classify_exception,
    classify_stream,
    is_event_stream,
    streamed,
)

URL = "http://127.0.0.1:1/v1/chat/completions"
PROMPT = "a prompt that nobody else may see"
SAID = "what the model said"
CHAT = ChatRequest({"model": "m", "messages": [{"role": "user", "content": PROMPT}]})
HEADERS = {"Content-Type": "text/event-stream", "X-Request-Id": "req_1", "X-RateLimit-Remaining-Requests": "9"}


def event(payload):
    return f"data: {json.dumps(payload)}\n\n".encode()


def chunk(text, reason=None, **more):
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}], **more})


def classify(*pieces, headers=None, request=CHAT, **options):
    reader = StreamReader(request, **options)
    for piece in pieces:
        reader.feed(piece)
    reader.end()
    reply = HTTPResponse(200, CaseInsensitiveDict({**HEADERS, **(headers or {})}), b"", URL)
    return classify_stream(reader, reply, request, endpoint_proven=True, model_proven=True, wall=1.0)


def typed(kind):
    return CaseInsensitiveDict({} if kind is None else {"Content-Type": kind})


class TestAsking:
    """The request for a stream."""

    def test_chat_and_completions_ask_for_the_usage_too(self):
        for request in (CHAT, ChatRequest({"prompt": "x"}, "/completions")):
            body = streamed(request).body
            assert body == {**request.body, "stream": True, "stream_options": {"include_usage": True}}

    def test_responses_say_it_anyway(self):
        request = ChatRequest({"input": "x"}, "/responses")
        assert streamed(request) == ChatRequest({"input": "x", "stream": True}, "/responses")

    def test_options_of_ones_own_are_kept_and_none_leaves_them_out(self):
        own = ChatRequest({**CHAT.body, "stream_options": {"include_usage": False}})
        assert streamed(own).body["stream_options"] == {"include_usage": False}
        assert "stream_options" not in streamed(ChatRequest({**CHAT.body, "stream_options": None})).body

    def test_other_paths_are_refused(self):
        with pytest.raises(TypeError, match="/moderations does not stream"):
            streamed(ChatRequest({"input": "x"}, "/moderations"))

    def test_the_request_is_left_alone(self):
        streamed(CHAT)
        assert "stream" not in CHAT.body


class TestKindOfBody:
    """Servers that answer a request for a stream in another way."""

    @pytest.mark.parametrize("kind", ["text/event-stream", "application/json; charset=utf-8", "text/html", None])
    @pytest.mark.parametrize(
        ("start", "is_one"),
        [
            (b"data: {", True),
            (b"data:{", True),
            (b"event: ping", True),
            (b"id: 1", True),
            (b"retry: 3000", True),
            (b"error: {", True),
            (b": keep-alive", True),
            (b"\xef\xbb\xbfdata: {", True),
            (b"\n\ndata: {", True),
            (b'{"choices": ', False),
            (b"\xef\xbb\xbf{", False),
            (b" \n[{", False),
            (b"<html>", False),
            (b'"data: no"', False),
        ],
    )
    def test_the_first_bytes_tell_whatever_the_content_type_says(self, kind, start, is_one):
        assert is_event_stream(typed(kind), start, ended=False) is is_one

    @pytest.mark.parametrize("start", [b"", b"\n", b"\xef", b"\xef\xbb\xbf", b"d", b"data", b"retr", b"\nev"])
    def test_too_few_of_them_do_not(self, start):
        assert is_event_stream(typed("application/json"), start, ended=False) is None

    @pytest.mark.parametrize("start", [b"", b"data", b"null", b"upstream error"])
    @pytest.mark.parametrize(
        ("kind", "is_one"),
        [
            ("text/event-stream; charset=utf-8", True),
            ("text/plain", True),
            ("application/octet-stream", True),
            (None, True),
            ("Application/JSON; charset=utf-8", False),
            ("application/problem+json", False),
            ("text/html; charset=utf-8", False),
        ],
    )
    def test_where_they_are_neither_the_content_type_counts(self, kind, start, is_one):
        assert is_event_stream(typed(kind), start, ended=True) is is_one

    def test_a_whole_answer_is_one_chunk(self):
        completion = ChatCompletion(
            text="pong",
            message={},
            finish_reason="tool_calls",
            usage=Usage(1, 2, 3),
            tool_calls=(ToolCall("a", "f", "{}"),),
            raw={"id": "c-1"},
        )
        found = chunk_of(completion)
        assert (found.text, found.finish_reason, found.usage) == ("pong", "tool_calls", Usage(1, 2, 3))
        assert (found.tool_calls, found.raw) == ((ToolCallDelta(0, "a", "f", "{}"),), {"id": "c-1"})


class TestSuccess:
    """A whole answer."""

    def test_it_carries_the_completion_and_what_goes_with_it(self):
        usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
        verdict = classify(chunk("po"), chunk("ng", "stop"), usage, b"data: [DONE]\n\n")
        assert (verdict.kind, verdict.scope, verdict.error) == ("success", "call", None)
        assert (verdict.value.text, verdict.value.request_id) == ("pong", "req_1")
        assert verdict.usage == verdict.value.usage == Usage(3, 1, 4)
        assert verdict.limits == {"x-ratelimit-remaining-requests": "9"}
        assert (verdict.status, verdict.request_id) == (200, "req_1")


class TestTruncated:
    """A stream that ended too early, or holds what is no chunk."""

    @pytest.mark.parametrize(
        ("pieces", "problem"),
        [
            ([], "ended without a single event"),
            ([chunk(SAID)], "ended without a finish_reason or [DONE]"),
            ([chunk(SAID), b"data: {"], "ended in the middle of an event"),
            ([chunk(SAID), b"data: {no json\n\n"], "has a chunk that is not JSON"),
            ([b"data: [DONE]\n\n"], "has no 'choices'"),
        ],
    )
    def test_it_is_sent_again_and_keeps_the_text(self, pieces, problem):
        verdict = classify(*pieces)
        error = verdict.error
        assert (verdict.kind, verdict.scope) == ("retry", "call")
        assert isinstance(error, TruncatedStreamError)
        assert error.text == (SAID if pieces[:1] == [chunk(SAID)] else "")
        assert f"the stream {problem}: HTTP 200 (text/event-stream, " in error.message
        assert (error.status_code, error.request_id) == (200, "req_1")

    def test_its_message_says_which_call_it_was_and_shows_no_text(self):
        message = classify(chunk(SAID)).error.message
        assert "/chat/completions, model 'm', request id req_1" in message
        assert SAID not in message
        assert PROMPT not in message

    def test_the_server_may_say_that_it_is_not_to_be_sent_again(self):
        assert classify(chunk(SAID), headers={"X-Should-Retry": "false"}).kind == "fail"

    def test_a_wait_that_the_head_asked_for_is_kept(self):
        verdict = classify(chunk(SAID), headers={"Retry-After": "2"})
        assert verdict.retry_after == verdict.error.retry_after == 2.0

    def test_an_event_that_is_too_long_is_never_sent_again(self):
        verdict = classify(chunk(SAID), chunk("x" * 2000), max_event_bytes=1000)
        assert (verdict.kind, type(verdict.error)) == ("fail", TruncatedStreamError)
        assert "max_response_bytes=1,000" in verdict.error.message
        assert type(classify(chunk("x" * 2000), max_event_bytes=1000).error) is APIResponseError


class TestErrorInside:
    """An error in the middle of a stream is judged as an error answer would be."""

    @pytest.mark.parametrize(
        ("error", "kind", "cls"),
        [
            ({"code": "rate_limit_exceeded", "message": "slow down"}, "throttled", RateLimitError),
            ({"type": "overloaded_error", "message": "busy"}, "unavailable", InternalServerError),
            ({"code": "insufficient_quota", "message": "no credit"}, "fatal", InsufficientQuotaError),
            ({"message": "who knows"}, "retry", APIResponseError),
            ("who knows", "retry", APIResponseError),
        ],
    )
    def test_with_nothing_of_the_answer_the_error_is_the_one_of_an_answer(self, error, kind, cls):
        verdict = classify(event({"error": error}))
        assert (verdict.kind, type(verdict.error)) == (kind, cls)

    def test_after_a_part_of_the_answer_it_is_a_truncated_stream_raised_from_it(self):
        error = {"code": "rate_limit_exceeded", "message": "try again in 2s", "type": "tokens"}
        verdict = classify(chunk(SAID), event({"error": error}))
        found = verdict.error
        assert (verdict.kind, verdict.retry_after) == ("throttled", 2.0)
        assert type(found) is TruncatedStreamError
        assert type(found.__cause__) is RateLimitError
        assert found.text == SAID
        assert (found.status_code, found.code, found.type, found.retry_after) == (
            429,
            "rate_limit_exceeded",
            "tokens",
            2.0,
        )
        assert found.message.startswith(
            f"the stream broke off after {len(chunk(SAID)) + len(event({'error': error}))} bytes: "
        )
        assert "try again in 2s" in found.message
        assert SAID not in found.message

    def test_only_without_any_answer_may_it_be_the_same_again(self):
        end = event({"error": {"message": "who knows"}})
        assert classify(end).fingerprint == classify(end).fingerprint is not None
        assert classify(chunk(SAID), end).fingerprint is None

    def test_it_pickles_with_its_facts(self):
        found = pickle.loads(pickle.dumps(classify(chunk(SAID), event({"error": {"code": 503}})).error))
        assert (found.text, found.status_code) == (SAID, 503)

    def test_a_response_that_failed_is_judged_by_its_code(self):
        request = ChatRequest({"input": "x"}, "/responses")
        failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "sorry"}}}
        verdict = classify(event(failed), request=request)
        assert (verdict.kind, verdict.status) == ("unavailable", 500)
        assert "sorry" in verdict.error.message


class TestBrokenConnection:
    """A reset or a stall."""

    @pytest.mark.parametrize(
        ("raised", "kind", "cls"),
        [
            (ConnectionResetError(104, "reset"), "unavailable", APIConnectionError),
            (TimeoutError(), "timeout", APITimeoutError),
        ],
    )
    def test_after_a_part_of_the_answer_the_text_is_kept(self, raised, kind, cls):
        reader = StreamReader(CHAT)
        plain = classify_exception(raised, url=URL)
        assert as_truncated(plain, reader) is plain
        reader.feed(chunk(SAID))
        verdict = as_truncated(plain, reader)
        assert verdict.kind == kind
        assert type(verdict.error) is TruncatedStreamError
        assert isinstance(verdict.error.__cause__, cls)
        assert verdict.error.text == SAID
