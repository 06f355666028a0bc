"""Finish reasons of all servers, and the requests for a reask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._wire import encode
from chatpool._wire.request import reask_request
from chatpool._wire.response import CONTENT_FILTER, STOP, TOOL_CALLS, FinishReason, finish_reason_of
from chatpool.types import ChatCompletion, ChatRequest, ToolCall


def completion(text="", reason=None, **facts):
    facts.setdefault("message", {"role": "assistant", "content": text})
    return ChatCompletion(text=text, finish_reason=reason, **facts)


def test_a_reason_that_nobody_knows_is_itself():
    assert finish_reason_of(completion("x", "Abort")) == FinishReason("Abort")


def test_a_missing_reason_is_a_stop_or_a_tool_call():
    assert finish_reason_of(completion("x")) == FinishReason(STOP)
    assert finish_reason_of(completion(tool_calls=(ToolCall("1", "f", ""),))) == FinishReason(TOOL_CALLS)


@pytest.mark.parametrize(
    "raw",
    [None, [], "x", {}, {"output": 3}, {"output": [3, {}, {"content": 3}, {"content": [3, {}, {"refusal": 3}]}]}],
)
def test_an_empty_answer_of_any_shape_is_no_refusal(raw):
    assert finish_reason_of(completion(raw=raw)) == FinishReason(STOP)


def test_a_refusal_with_a_text_beside_it_is_none():
    message = {"content": "x", "refusal": "no"}
    assert finish_reason_of(completion("x", "stop", message=message)) == FinishReason(STOP)
    assert finish_reason_of(completion("", "stop", message=message)) == FinishReason(CONTENT_FILTER, "no")


@pytest.mark.parametrize("path", ["/completions", "/embeddings", "/moderations", "/other"])
def test_a_path_without_conversations_is_not_asked_again(path):
    assert reask_request(ChatRequest({"prompt": "x"}, path), completion("x"), "no") is None


def test_a_deployments_path_is_one_with_conversations():
    request = ChatRequest({"messages": []}, "/openai/deployments/d/chat/completions")
    again = reask_request(request, completion("x"), "no")
    assert (again.path, len(again.body["messages"])) == (request.path, 2)


def test_a_stored_prompt_of_the_responses_api_gets_an_input():
    again = reask_request(ChatRequest({"prompt": {"id": "p"}}, "/responses"), completion("x"), "no")
    assert [item["role"] for item in again.body["input"]] == ["assistant", "user"]


def test_input_items_stay_as_they_are():
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}]
    again = reask_request(ChatRequest({"input": items}, "/responses"), completion("x"), "no")
    assert again.body["input"][0] is items[0]
    assert len(items) == 1


@given(st.text(st.characters(), max_size=30), st.text(st.characters(), max_size=30))
def test_whatever_was_said_can_be_sent_back(text, reason):
    request = ChatRequest({"messages": [{"role": "user", "content": "x"}]})
    again = reask_request(request, completion(text), reason)
    assert encode(again.body)
    assert len(request.body["messages"]) == 1


@pytest.mark.parametrize(
    "said",
    [
        "SAFETY",
        "RECITATION",
        "PROHIBITED_CONTENT",
        "BLOCKLIST",
        "SPII",
        "IMAGE_SAFETY",
        "content_filter: RECITATION",
        "Content_Filter:PROHIBITED_CONTENT",
        "FinishReason.SAFETY",
        "FINISH_REASON_RECITATION",
        " spii ",
        "guardrail_intervened",
    ],
)
def test_filters_are_known_by_the_names_of_others(said):
    assert finish_reason_of(completion("", said)) == FinishReason(CONTENT_FILTER)
    assert finish_reason_of(completion("half an ans", said)) == FinishReason(CONTENT_FILTER)


@pytest.mark.parametrize("said", ["OTHER", "MALFORMED_FUNCTION_CALL", "error: content_filter", "finish_reason_", ":"])
def test_a_reason_that_only_looks_like_one_is_itself(said):
    assert finish_reason_of(completion("x", said)) == FinishReason(said)


@pytest.mark.parametrize(("said", "meaning"), [("FinishReason.STOP", STOP), ("FINISH_REASON_MAX_TOKENS", "length")])
def test_other_reasons_may_name_their_type_too(said, meaning):
    assert finish_reason_of(completion("x", said)) == FinishReason(meaning)
