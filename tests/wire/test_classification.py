"""Classification of responses: the table of statuses, codes and headers, row by row."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

import chatpool
from chatpool import ChatCompletion, ChatRequest, Usage
from chatpool._values import HTTPResponse
from chatpool._wire import classify_response
from chatpool._wire.rules import RULES

NOW = 1_700_000_000.0
URL = "http://127.0.0.1:1/v1/chat/completions"
PROMPT = "a prompt that nobody else may see"
CHAT = ChatRequest({"model": "m", "messages": [{"role": "user", "content": PROMPT}]})
GOOD = {"choices": [{"message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}]}


def classify(status=200, payload=None, headers=None, *, content=None, request=CHAT, endpoint=False, model=False):
    if content is None:
        content = b"" if payload is None else json.dumps(payload).encode()
    reply = HTTPResponse(status, CaseInsensitiveDict(headers or {}), content, URL)
    return classify_response(reply, request, endpoint_proven=endpoint, model_proven=model, wall=NOW)


def refusal(kind=None, code=None, message="no", **more):
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


class TestSuccess:
    """A usable answer."""

    def test_it_carries_the_value_and_what_goes_with_it(self):
        payload = {**GOOD, "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
        headers = {"X-Request-Id": "req_1", "X-RateLimit-Remaining-Requests": "9", "Retry-After": "7"}
        verdict = classify(200, payload, headers)
        assert verdict.kind == "success"
        assert isinstance(verdict.value, ChatCompletion)
        assert (verdict.value.text, verdict.value.request_id) == ("pong", "req_1")
        assert verdict.usage == Usage(3, 1, 4) == verdict.value.usage
        assert verdict.limits == {"x-ratelimit-remaining-requests": "9"}
        assert (verdict.status, verdict.request_id, verdict.error, verdict.retry_after) == (200, "req_1", None, None)

    def test_an_error_field_of_null_is_no_error(self):
        assert classify(200, {**GOOD, "error": None}).kind == "success"

    def test_the_usage_of_plain_json_is_read_too(self):
        request = ChatRequest({"input": "x"}, "/embeddings")
        verdict = classify(200, {"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 2}}, request=request)
        assert (verdict.value, verdict.usage) == ([1.0], Usage(2, 0, 2))

    def test_an_empty_204_of_another_path_is_none(self):
        verdict = classify(204, request=ChatRequest({}, "/files/1", "DELETE"))
        assert (verdict.kind, verdict.value) == ("success", None)

    def test_a_stored_resource_may_tell_of_its_own_failure(self):
        job = {"object": "fine_tuning.job", "error": {"code": "invalid_training_file", "message": "no"}}
        verdict = classify(200, job, request=ChatRequest({}, "/fine_tuning/jobs/1", "GET"))
        assert (verdict.kind, verdict.value) == ("success", job)


# status, body, headers -> kind, scope, error class
TABLE = {
    "context too long": (
        400,
        refusal("invalid_request_error", "context_length_exceeded"),
        {},
        "fail",
        "call",
        "BadRequestError",
    ),
    "content policy": (400, refusal(None, "content_policy_violation"), {}, "fail", "call", "BadRequestError"),
    "bad request of vLLM": (
        400,
        {"object": "error", "message": "no", "code": 400},
        {},
        "fail",
        "call",
        "BadRequestError",
    ),
    "bad request, no body": (400, None, {}, "fail", "call", "BadRequestError"),
    "bad key": (401, refusal("invalid_request_error", "invalid_api_key"), {}, "fatal", "run", "AuthenticationError"),
    "no credit": (402, refusal(code=402), {}, "fatal", "run", "InsufficientQuotaError"),
    "no credit for now": (402, refusal(code=402), {"Retry-After": "3"}, "throttled", "call", "RateLimitError"),
    "forbidden": (403, refusal(), {}, "fatal", "endpoint", "PermissionDeniedError"),
    "region": (
        403,
        refusal(code="unsupported_country_region_territory"),
        {},
        "fatal",
        "endpoint",
        "PermissionDeniedError",
    ),
    "no access to model": (403, refusal(code="model_not_found"), {}, "fatal", "model", "PermissionDeniedError"),
    "prompt flagged": (403, refusal(metadata={"flagged_input": "x"}), {}, "fail", "call", "PermissionDeniedError"),
    "no such model": (404, refusal(code="model_not_found"), {}, "fatal", "model", "NotFoundError"),
    "no such path": (404, {"detail": "Not Found"}, {}, "fatal", "model", "NotFoundError"),
    "method not allowed": (405, None, {}, "fail", "call", "APIStatusError"),
    "request timeout": (408, None, {}, "timeout", "call", "APIStatusError"),
    "conflict": (409, None, {}, "retry", "call", "ConflictError"),
    "too large": (413, None, {}, "fail", "call", "APIStatusError"),
    "too early": (425, None, {}, "retry", "call", "APIStatusError"),
    "teapot": (418, None, {}, "fail", "call", "APIStatusError"),
    "validation": (422, {"detail": [{"loc": ["body"], "msg": "no"}]}, {}, "fail", "call", "UnprocessableEntityError"),
    "rate of requests": (429, refusal("requests", "rate_limit_exceeded"), {}, "throttled", "call", "RateLimitError"),
    "rate, no body": (429, None, {}, "throttled", "call", "RateLimitError"),
    "slow down": (429, refusal(code="slow_down"), {}, "throttled", "call", "RateLimitError"),
    "quota by code": (429, refusal(code="insufficient_quota"), {}, "fatal", "run", "InsufficientQuotaError"),
    "quota by type": (429, refusal("insufficient_quota"), {}, "fatal", "run", "InsufficientQuotaError"),
    "balance": (429, refusal(code="credit_balance_exhausted"), {}, "fatal", "run", "InsufficientQuotaError"),
    "hard limit": (429, refusal(code="billing_hard_limit_reached"), {}, "fatal", "run", "InsufficientQuotaError"),
    "billing off": (403, refusal(code="billing_not_active"), {}, "fatal", "run", "InsufficientQuotaError"),
    "never fits": (
        429,
        refusal("tokens", "rate_limit_exceeded", "Request too large for m"),
        {},
        "fail",
        "call",
        "RateLimitError",
    ),
    "server error": (500, refusal("server_error"), {}, "unavailable", "call", "InternalServerError"),
    "not implemented": (501, None, {}, "unavailable", "call", "InternalServerError"),
    "not supported": (501, refusal("not_supported_error"), {}, "fatal", "model", "InternalServerError"),
    "gateway page": (502, None, {"Content-Type": "text/html"}, "unavailable", "call", "InternalServerError"),
    "overloaded": (503, refusal(code="server_is_overloaded"), {}, "unavailable", "call", "InternalServerError"),
    "gateway timeout": (504, None, {}, "timeout", "call", "InternalServerError"),
    "origin unreachable": (523, None, {}, "unavailable", "call", "InternalServerError"),
    "site overloaded": (529, refusal("overloaded_error"), {}, "unavailable", "call", "InternalServerError"),
    "redirect": (302, None, {"Location": "https://other.example/login?k=1"}, "fail", "call", "APIStatusError"),
    "not modified": (304, None, {}, "fail", "call", "APIStatusError"),
    "no final status": (199, None, {}, "retry", "call", "APIResponseError"),
    "server says retry": (400, refusal(), {"x-should-retry": "true"}, "retry", "call", "BadRequestError"),
    "server says retry of a fatal one": (401, None, {"x-should-retry": "true"}, "retry", "call", "AuthenticationError"),
    "server says retry of quota": (
        429,
        refusal("insufficient_quota"),
        {"x-should-retry": "true"},
        "throttled",
        "call",
        "InsufficientQuotaError",
    ),
    "server says retry of a 5xx": (503, None, {"x-should-retry": "true"}, "unavailable", "call", "InternalServerError"),
    "server says no to a 429": (429, None, {"X-Should-Retry": "False"}, "fail", "call", "RateLimitError"),
    "server says no to a 5xx": (503, None, {"x-should-retry": "false"}, "fail", "call", "InternalServerError"),
    "server says no to a fatal one": (401, None, {"x-should-retry": "false"}, "fatal", "run", "AuthenticationError"),
    "server says nothing clear": (409, None, {"x-should-retry": "maybe"}, "retry", "call", "ConflictError"),
}


@pytest.mark.parametrize(("status", "payload", "headers", "kind", "scope", "cls"), TABLE.values(), ids=TABLE)
def test_every_row_of_the_table(status, payload, headers, kind, scope, cls):
    verdict = classify(status, payload, headers)
    assert (verdict.kind, verdict.scope, type(verdict.error).__name__) == (kind, scope, cls)
    assert verdict.status == verdict.error.status_code == status
    assert verdict.value is None


@pytest.mark.parametrize(
    ("status", "payload", "proven", "kind"),
    [
        (403, refusal(), {"endpoint": True}, "fail"),
        (403, refusal(code="unsupported_country_region_territory"), {"endpoint": True}, "fatal"),
        (403, refusal(code="invalid_api_key"), {"endpoint": True}, "fatal"),
        (403, refusal(code="model_not_found"), {"endpoint": True}, "fatal"),
        (403, refusal(code="model_not_found"), {"endpoint": True, "model": True}, "fail"),
        (404, refusal(code="model_not_found"), {"endpoint": True}, "fatal"),
        (404, refusal(code="model_not_found"), {"endpoint": True, "model": True}, "fail"),
        (401, refusal(), {"endpoint": True, "model": True}, "fatal"),
    ],
)
def test_what_has_worked_before_is_not_condemned_for_one_call(status, payload, proven, kind):
    assert classify(status, payload, **proven).kind == kind


@pytest.mark.parametrize(("status", "refused"), [(401, True), (403, False), (400, False), (200, False)])
def test_a_refused_key_is_told_apart_for_it_may_be_fetched_again(status, refused):
    assert classify(status, GOOD if status == 200 else refusal(code="invalid_api_key")).key_refused is refused


# body of a 200 -> kind, error class, status that it counts as
INSIDE = {
    "status as a number": (refusal(code=429), "throttled", "RateLimitError", 429),
    "status as text": (refusal(code="503"), "unavailable", "InternalServerError", 503),
    "status of vLLM": ({"object": "error", "message": "no", "code": 400}, "fail", "BadRequestError", 400),
    "a known code": (refusal("invalid_request_error", "model_not_found"), "fatal", "NotFoundError", 404),
    "a known type": (refusal("invalid_request_error"), "fail", "BadRequestError", 400),
    "quota": (refusal("insufficient_quota"), "fatal", "InsufficientQuotaError", 429),
    "in a list": ([refusal(code=500)], "unavailable", "InternalServerError", 500),
    "beside an answer": ({**GOOD, **refusal(code=502)}, "unavailable", "InternalServerError", 502),
    "no status": (refusal(code=1234), "retry", "APIResponseError", 200),
    "words only": ({"error": "it broke"}, "retry", "APIResponseError", 200),
    "an unknown word": (refusal("odd", "odder"), "retry", "APIResponseError", 200),
}


@pytest.mark.parametrize(("payload", "kind", "cls", "status"), INSIDE.values(), ids=INSIDE)
def test_an_error_inside_a_200_counts_as_the_status_it_names(payload, kind, cls, status):
    verdict = classify(200, payload)
    assert (verdict.kind, type(verdict.error).__name__, verdict.error.status_code) == (kind, cls, status)


UNUSABLE = {
    "nothing": (b"", "is not JSON"),
    "cut off": (b'{"choices": [', "is not JSON"),
    "a page": (b"<html><title>Sign in</title>", "an HTML page titled 'Sign in'"),
    "an event stream": (b"data: {}\n\n", "is a stream that ended without a finish_reason"),
    "events that are none": (b"data: {no json\n\n", "is a stream that has a chunk that is not JSON"),
    "half a stream": (b'data: {"choices": [{"index": 0, "delta": {"content": "po"}}]}\n\n', "is a stream that ended"),
    "nested without end": (b"[" * 100_000, "is nested more than 200 deep"),
    "not text": (b"\x80\x00\xff", "is not JSON"),
    "a list": (b"[]", "is not a JSON object but a list"),
    "no choices": (b'{"id": "x"}', "has no 'choices'"),
    "other words": (b'{"detail": "starting up"}', "starting up"),
    "the model failed": (
        b'{"choices": [{"finish_reason": "error", "error": {"message": "provider died"}}]}',
        "provider died",
    ),
}


@pytest.mark.parametrize(("content", "words"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.usefixtures("no_collection")
def test_a_200_with_an_unusable_body_is_tried_again(content, words):
    verdict = classify(200, content=content)
    assert (verdict.kind, verdict.scope, type(verdict.error)) == ("retry", "call", chatpool.APIResponseError)
    assert words in str(verdict.error)


def test_the_server_may_forbid_to_try_again_after_an_unusable_body():
    assert classify(200, content=b"", headers={"x-should-retry": "false"}).kind == "fail"


def sse(*payloads, done=True):
    return b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in payloads) + b"data: [DONE]\n\n" * done


class TestOtherForms:
    """Answers that are good, and come in the form of something else."""

    PIECES = (
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "po"}}]},
        {"choices": [{"index": 0, "delta": {"content": "ng"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
    )

    @pytest.mark.parametrize("before", [b"", b": hello\n\n", b"\xef\xbb\xbf", b"\n"])
    @pytest.mark.parametrize("done", [True, False])
    def test_a_stream_that_nobody_asked_for_is_the_answer(self, before, done):
        verdict = classify(200, content=before + sse(*self.PIECES, done=done))
        assert (verdict.kind, verdict.value.text, verdict.value.request_id) == ("success", "pong", None)
        assert verdict.usage == verdict.value.usage == Usage(3, 1, 4)
        assert verdict.value.raw["choices"][0]["message"]["content"] == "pong"

    def test_an_error_in_it_is_judged_as_one_inside_a_200(self):
        error = {"message": "slow down", "code": "rate_limit_exceeded"}
        verdict = classify(200, content=sse({"error": error}))
        assert (verdict.kind, verdict.status) == ("throttled", 429)
        assert "slow down" in str(verdict.error)
        assert classify(200, content=b"error: no such slot\n\n").error.message.count("no such slot") == 1

    @pytest.mark.parametrize("depth", [100, 250, 300, 330, 500, 900])
    def test_however_deep_it_is_nested_there_is_a_verdict(self, depth):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        piece = b'{"index": 0, "delta": {"content": "x", "y": %s}, "finish_reason": "stop"}' % deep
        verdict = classify(200, content=b'data: {"choices": [%s]}\n\ndata: [DONE]\n\n' % piece)
        assert verdict.kind in ("success", "retry")

    @pytest.mark.parametrize("done", [b"[DONE]", b"\n\ndata: [DONE]\n\n", b"\r\ndata:[DONE]", b" data:  [DONE] \n"])
    def test_json_followed_by_the_mark_of_streams_is_json(self, done):
        verdict = classify(200, content=json.dumps(GOOD).encode() + done)
        assert (verdict.kind, verdict.value.text, verdict.value.raw) == ("success", "pong", GOOD)
        models = classify(200, content=b'{"data": []}' + done, request=ChatRequest({}, "/models", "GET"))
        assert models.value == {"data": []}

    @pytest.mark.parametrize("after", [b"[DONE] and more", b"[done]", b"\ndata: x\n\n", b"[DONE]" + b" " * 100 + b"x"])
    def test_json_followed_by_anything_else_is_not(self, after):
        assert classify(200, content=json.dumps(GOOD).encode() + after).kind == "retry"

    def test_usage_inside_a_choice_is_usage(self):
        choice = {**GOOD["choices"][0], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
        verdict = classify(200, {"choices": [choice]})
        assert verdict.usage == verdict.value.usage == Usage(5, 2, 7)
        assert classify(200, {"choices": [choice], "usage": {"prompt_tokens": 3}}).usage == Usage(3, 0, 3)


SPEECH = ChatRequest({"model": "tts", "input": "hello"}, "/audio/speech")
FILE = ChatRequest({}, "/files/f/content", "GET")


class TestNotJson:
    """A good answer of another type, from a path of which nobody says that it answers with JSON."""

    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            ("audio/mpeg", b"ID3\x04" + bytes(range(256)) * 20),
            ("application/octet-stream", b'{"id": 1}\n{"id": 2}\n'),
            ("application/x-ndjson", b'{"id": 1}\n{"id": 2}\n'),
            ("text/plain; charset=utf-8", b"and so it ends"),
            ("text/html", b"<html><title>Sign in</title>"),
            ("text/event-stream", b"data: {}\n\n"),
            (None, b"\x80\x00"),
        ],
    )
    @pytest.mark.parametrize("request_", [SPEECH, FILE])
    @pytest.mark.parametrize("status", [200, 201])
    def test_it_is_not_asked_for_again_and_the_error_has_all_of_it(self, kind, content, request_, status):
        headers = {} if kind is None else {"Content-Type": kind}
        verdict = classify(status, content=content, request=request_, headers=headers)
        error = verdict.error
        assert (verdict.kind, verdict.scope, type(error)) == ("fail", "call", chatpool.APIResponseError)
        assert error.body == content
        assert (error.status_code, error.request_id) == (status, None)
        shown = (kind or "no content type").partition(";")[0]
        assert f"HTTP {status} ({shown}, {len(content):,} bytes) is not JSON ({request_.path}" in str(error)
        assert "error's .body" in str(error)
        assert "ends" not in str(error)  # what it says may be an echo of a prompt
        assert pickle.loads(pickle.dumps(error)).body == content

    def test_the_title_of_a_page_is_told(self):
        verdict = classify(
            200, content=b"<html><title>Sign in</title>", request=FILE, headers={"Content-Type": "text/html"}
        )
        assert "an HTML page titled 'Sign in'" in str(verdict.error)

    @pytest.mark.parametrize("kind", ["application/json", "application/problem+json; charset=utf-8"])
    @pytest.mark.parametrize("content", [b"", b'{"id": ', b"oops"])
    def test_what_says_that_it_is_json_is_asked_for_again(self, kind, content):
        verdict = classify(200, content=content, request=SPEECH, headers={"Content-Type": kind})
        assert verdict.kind == "retry"

    def test_a_path_that_is_known_is_asked_again(self):
        assert classify(200, content=b"ID3", headers={"Content-Type": "audio/mpeg"}).kind == "retry"

    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_nothing_at_all_is_none(self, status):
        verdict = classify(status, content=b"", request=ChatRequest({}, "/files/f", "DELETE"))
        assert (verdict.kind, verdict.value) == ("success", None)

    @pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", None])
    def test_json_under_another_name_is_json(self, kind):
        headers = {} if kind is None else {"Content-Type": kind}
        assert classify(200, content=b'{"id": 1}', request=FILE, headers=headers).value == {"id": 1}

    def test_the_servers_word_counts_for_these_too(self):
        assert classify(200, content=b"x", request=FILE, headers={"x-should-retry": "true"}).kind == "retry"


class TestError:
    """What a failure tells a person."""

    def test_it_says_what_happened_to_which_call_and_what_to_do(self):
        payload = refusal("invalid_request_error", "context_length_exceeded", "Too many tokens.")
        error = classify(400, payload, {"x-request-id": "req_1"}).error
        assert str(error) == (
            "HTTP 400 Bad Request (/chat/completions, model 'm', request id req_1): Too many tokens; "
            "change the request: it is refused as it is"
        )

    def test_it_carries_its_facts_also_through_pickle(self):
        payload = refusal("tokens", "rate_limit_exceeded", param="messages")
        error = classify(429, payload, {"x-request-id": "req_1", "retry-after": "2"}).error
        copy = pickle.loads(pickle.dumps(error))
        for fact in (error, copy):
            assert (fact.status_code, fact.request_id, fact.retry_after) == (429, "req_1", 2.0)
            assert (fact.code, fact.type, fact.param) == ("rate_limit_exceeded", "tokens", "messages")
            assert fact.body == payload

    @pytest.mark.parametrize(
        ("status", "headers", "words"),
        [
            (404, {}, "/v1"),
            (404, {}, URL),
            (302, {"location": "https://other.example/login?k=1"}, "to https://other.example/login ("),
            (302, {}, "base_url"),
            (401, {}, "OPENAI_API_KEY"),
            (402, {}, "credit"),
            (413, {}, "shorten"),
        ],
    )
    def test_it_names_the_cure(self, status, headers, words):
        assert words in str(classify(status, headers=headers).error)

    @pytest.mark.parametrize(
        ("status", "content"),
        [
            (200, PROMPT.encode()),
            (200, json.dumps(PROMPT).encode()),
            (200, json.dumps({"messages": [{"content": PROMPT}]}).encode()),
            (200, f"<html><title>Echo</title>{PROMPT}".encode()),
            (422, json.dumps({"detail": [{"loc": ["body"], "msg": "no", "input": {"content": PROMPT}}]}).encode()),
            (400, json.dumps({"error": {"message": "no"}, "request": PROMPT}).encode()),
        ],
    )
    def test_it_never_shows_the_prompt(self, status, content):
        assert PROMPT not in str(classify(status, content=content).error)

    def test_a_long_request_id_is_cut(self):
        verdict = classify(500, headers={"x-request-id": "r" * 5000})
        assert len(verdict.request_id) == 200
        assert len(str(verdict.error)) < 600

    def test_a_long_message_is_cut_but_its_hint_is_found(self):
        verdict = classify(429, refusal(message="x" * 400 + ". Please try again in 3s"))
        assert verdict.retry_after == 3
        assert len(str(verdict.error)) < 500


class TestHints:
    """The wait that a failure asks for, on the verdict and on the error."""

    @pytest.mark.parametrize(
        ("status", "payload", "headers", "hint"),
        [
            (429, None, {"retry-after-ms": "250"}, 0.25),
            (503, None, {"retry-after": "7"}, 7),
            (429, refusal(message="Please try again in 1.2s"), {}, 1.2),
            (429, refusal("tokens"), {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6s"}, 6),
            (429, refusal("Requests"), {"x-ratelimit-reset-requests": "8s", "x-ratelimit-reset-tokens": "6s"}, 8),
            (500, None, {"x-ratelimit-reset-requests": "6m0s"}, None),
            (429, None, {}, None),
        ],
    )
    def test_it_is_found(self, status, payload, headers, hint):
        verdict = classify(status, payload, headers)
        assert verdict.retry_after == verdict.error.retry_after == hint

    def test_limits_are_told_with_a_failure_too(self):
        assert classify(429, None, {"x-ratelimit-limit-tokens": "10"}).limits == {"x-ratelimit-limit-tokens": "10"}


def test_the_rows_have_names_of_their_own_and_known_kinds():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {rule.kind for rule in RULES} <= {"throttled", "timeout", "unavailable", "retry", "fail", "fatal"}


NAMES = st.sampled_from(
    ["error", "message", "type", "code", "detail", "choices", "output", "data", "embedding", "results", "usage",
     "content", "finish_reason", "tool_calls", "function", "object", "status", "loc", "metadata", "prompt_tokens"]
)  # fmt: skip
WORDS = st.text(max_size=20) | st.sampled_from(
    ["error", "message", "insufficient_quota", "429", "failed", "function_call"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=15,
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-should-retry", "location", "content-type", "x-request-id",
                     "x-ratelimit-reset-tokens", "x-ratelimit-limit-requests"]),
    st.text(max_size=30) | st.sampled_from(["true", "false", "0", "-1", "nan", "1e999", "6m0s"]),
)  # fmt: skip
PATHS = st.sampled_from(["/chat/completions", "/completions", "/responses", "/embeddings", "/moderations", "/x"])
STATUSES = st.sampled_from([200, 201, 204, 302, 400, 401, 402, 403, 404, 408, 429, 500, 529]) | st.integers(-1, 1000)


@given(
    STATUSES,
    st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    HEADERS,
    PATHS,
    st.booleans(),
)
def test_whatever_a_server_sends_there_is_one_consistent_verdict(status, content, headers, path, proven):
    request = ChatRequest({"model": "m", "input": "x"}, path)
    verdict = classify(status, content=content, headers=headers, request=request, endpoint=proven, model=proven)
    assert verdict.kind in {"success", "throttled", "timeout", "unavailable", "retry", "fail", "fatal"}
    assert (verdict.error is None) == (verdict.kind == "success")
    assert (verdict.scope == "call") == (verdict.kind != "fatal")
    assert verdict.retry_after is None or 0 <= verdict.retry_after <= 31 * 86400
    if verdict.error is not None:
        assert str(pickle.loads(pickle.dumps(verdict.error))) == str(verdict.error)
        assert len(str(verdict.error)) < 1200
