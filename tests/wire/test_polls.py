"""Answers to polls: pending, ended, or the poll itself has failed."""

from __future__ import annotations

import json

import pytest

from chatpool._values import HTTPResponse
from chatpool._wire import background_response, classify_poll, classify_response, is_background
from chatpool.types import ChatRequest

REQUEST = ChatRequest({"input": "ping", "model": "m", "background": True}, "/responses")
POLLED = background_response(REQUEST, "resp_1")
EVIDENCE = {"endpoint_proven": True, "model_proven": True, "wall": 0.0}


def answer(body, status=200, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HTTPResponse(status, {"content-type": "application/json", **headers}, content)


def response(status, **fields):
    return {"id": "resp_1", "object": "response", "status": status, "background": True, "output": [], **fields}


def poll(body, status=200, **headers):
    return classify_poll(answer(body, status, **headers), POLLED, REQUEST, **EVIDENCE)


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_promise_names_what_to_ask_for(status):
    verdict = classify_response(answer(response(status), **{"retry-after": "7"}), REQUEST, **EVIDENCE)
    assert (verdict.kind, verdict.retry_after, verdict.background) == ("pending", 7.0, POLLED)
    assert (POLLED.poll.method, POLLED.poll.path) == ("GET", "/responses/resp_1")
    assert (POLLED.cancel.method, POLLED.cancel.path) == ("POST", "/responses/resp_1/cancel")


def test_the_place_is_that_of_the_request_and_its_query_stays():
    request = ChatRequest({}, "/openai/v1/responses/?api-version=preview")
    found = background_response(request, "resp_1")
    assert found.poll.path == "/openai/v1/responses/resp_1?api-version=preview"
    assert found.cancel.path == "/openai/v1/responses/resp_1/cancel?api-version=preview"


def test_a_poll_that_finds_it_unfinished_keeps_the_name_that_was_asked_for():
    verdict = poll(response("in_progress", id="another"))
    assert (verdict.kind, verdict.background) == ("pending", POLLED)


def test_what_has_ended_is_an_answer_to_the_request():
    text = {"type": "message", "content": [{"type": "output_text", "text": "pong"}]}
    verdict = poll(response("completed", output=[text]))
    assert (verdict.kind, verdict.value.text, verdict.background) == ("success", "pong", None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (response("failed", error={"code": "server_error", "message": "no"}), "unavailable"),
        (response("failed", error={"code": "rate_limit_exceeded", "message": "no"}), "throttled"),
        (response("failed", error={"code": "vector_store_timeout", "message": "no"}), "timeout"),
        (response("failed", error={"code": "invalid_prompt", "message": "no"}), "fail"),
        (response("failed"), "retry"),
        (response("cancelled"), "fail"),
    ],
)
def test_a_response_that_failed_is_no_longer_asked_for(body, kind):
    verdict = poll(body)
    assert (verdict.kind, verdict.background) == (kind, None)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"error": {"message": "no"}}, 500, "unavailable"),
        ({"error": {"message": "no"}}, 429, "throttled"),
        ({"error": {"message": "no"}}, 401, "fatal"),
        (b"<html>", 200, "retry"),
        ([1], 200, "retry"),
        ({"status": ["completed"]}, 200, "retry"),
    ],
)
def test_a_poll_that_failed_leaves_it_to_be_asked_for(body, status, kind):
    verdict = poll(body, status)
    assert (verdict.kind, verdict.background) == (kind, POLLED)


def test_one_that_is_gone_is_neither_there_nor_a_wrong_model():
    verdict = classify_poll(
        answer({"error": {"message": "no such response"}}, 404),
        POLLED,
        REQUEST,
        endpoint_proven=False,
        model_proven=False,
        wall=0.0,
    )
    assert (verdict.kind, verdict.scope, verdict.status, verdict.background) == ("fail", "call", 404, None)


def test_only_the_responses_api_has_a_background():
    assert is_background(REQUEST)
    assert not is_background(ChatRequest({"input": "ping"}, "/responses"))
    assert not is_background(ChatRequest({"messages": [], "background": True}))
