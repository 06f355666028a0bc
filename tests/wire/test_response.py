"""The value that the caller gets for the JSON of an answer."""

from __future__ import annotations

import base64
import struct
import sys

import pytest

from chatpool import ChatCompletion, ChatRequest, ToolCall, Usage
from chatpool._wire.response import UnusableAnswer, decode_response

CHAT = ChatRequest({"messages": []})
COMPLETION = ChatRequest({"prompt": "x"}, "/completions")
RESPONSES = ChatRequest({"input": "x"}, "/responses")
EMBEDDING = ChatRequest({"input": "x"}, "/embeddings")


def chat(message, **choice):
    return decode_response(CHAT, {"choices": [{"message": message, **choice}]}, "req_1")


class TestChat:
    """/chat/completions."""

    def test_everything_the_answer_says_is_kept(self):
        payload = {
            "id": "chatcmpl-1",
            "model": "gpt-4o-mini-2024",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }
        assert decode_response(CHAT, payload, "req_1") == ChatCompletion(
            text="pong",
            message={"role": "assistant", "content": "pong"},
            finish_reason="stop",
            usage=Usage(9, 1, 10),
            model="gpt-4o-mini-2024",
            id="chatcmpl-1",
            request_id="req_1",
            raw=payload,
        )

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ("pong", "pong"),
            ("", ""),
            (None, ""),
            ([{"type": "text", "text": "po"}, {"type": "image"}, {"type": "text", "text": "ng"}, "x"], "pong"),
            (7, ""),
        ],
    )
    def test_the_text_is_always_a_str(self, content, text):
        assert str(chat({"content": content})) == text

    def test_an_answer_without_content_has_no_text(self):
        assert chat({"role": "assistant"}, finish_reason="content_filter").text == ""

    def test_tool_calls_are_read_and_half_ones_are_survived(self):
        whole = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        calls = chat({"content": None, "tool_calls": [whole, {"function": {"name": None}}, {}, "x"]}).tool_calls
        assert calls == (ToolCall("call_1", "add", '{"a": 1}'), ToolCall("", "", ""))
        assert calls[0].arguments == {"a": 1}

    def test_the_message_can_be_sent_back_as_it_is(self):
        message = {"content": None, "refusal": None, "annotations": [], "tool_calls": [{"id": "1"}], "audio": None}
        completion = chat(message)
        assert completion.message == {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
        assert completion.raw["choices"][0]["message"] is message

    @pytest.mark.parametrize(
        ("payload", "problem"),
        [
            ([], "is not a JSON object but a list"),
            (None, "is not a JSON object but a NoneType"),
            ({}, "has no 'choices'"),
            ({"choices": None}, "has no 'choices'"),
            ({"choices": []}, "has no 'choices'"),
            ({"choices": ["x"]}, "a first choice that is not an object"),
            ({"choices": [{}]}, "a first choice without 'message'"),
            ({"choices": [{"message": {}, "finish_reason": "error"}]}, "finish_reason 'error'"),
        ],
    )
    def test_an_answer_without_what_it_must_have_is_unusable(self, payload, problem):
        with pytest.raises(UnusableAnswer, match=problem):
            decode_response(CHAT, payload, None)

    def test_the_error_in_a_failed_choice_is_handed_on(self):
        choice = {"finish_reason": "error", "error": {"code": 502, "message": "provider failed"}}
        with pytest.raises(UnusableAnswer) as caught:
            decode_response(CHAT, {"choices": [choice]}, None)
        assert caught.value.error == choice["error"]


class TestCompletions:
    """/completions."""

    def test_the_text_stands_in_the_choice(self):
        completion = decode_response(COMPLETION, {"choices": [{"text": "pong", "finish_reason": "length"}]}, None)
        assert (completion.text, completion.finish_reason) == ("pong", "length")
        assert completion.message == {"role": "assistant", "content": "pong"}

    def test_a_choice_without_text_is_unusable(self):
        with pytest.raises(UnusableAnswer, match="without 'text'"):
            decode_response(COMPLETION, {"choices": [{"message": {"content": "x"}}]}, None)


class TestResponses:
    """/responses."""

    def test_text_and_calls_are_gathered_from_the_output(self):
        payload = {
            "id": "resp_1",
            "status": "completed",
            "error": None,
            "model": "m",
            "output": [
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "po"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "ng"}, {"type": "refusal"}]},
                {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
                "x",
            ],
            "usage": {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}},
        }
        completion = decode_response(RESPONSES, payload, "req_1")
        assert (completion.text, completion.finish_reason, completion.id) == ("pong", "tool_calls", "resp_1")
        assert completion.tool_calls == (ToolCall("call_1", "add", "{}"),)
        assert completion.usage == Usage(3, 2, 5, 1)
        assert completion.raw is payload

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            ({"status": "completed"}, "stop"),
            ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
            ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
            ({"status": "incomplete"}, None),
            ({}, None),
        ],
    )
    def test_the_status_is_told_in_the_words_of_chat(self, payload, reason):
        assert decode_response(RESPONSES, {"output": [], **payload}, None).finish_reason == reason

    @pytest.mark.parametrize(
        ("payload", "problem", "cure"),
        [
            ({"status": "queued", "output": []}, "status 'queued'", "background"),
            ({"status": "in_progress"}, "status 'in_progress'", "background"),
            (
                {"status": "completed", "output": [{"type": "mcp_approval_request", "name": "delete"}]},
                "asks for an approval",
                "require_approval",
            ),
        ],
    )
    def test_what_waits_for_somebody_is_no_answer(self, payload, problem, cure):
        with pytest.raises(UnusableAnswer, match=problem) as caught:
            decode_response(RESPONSES, payload, None)
        assert caught.value.error["code"] == "not_supported"
        assert cure in caught.value.error["message"]

    @pytest.mark.parametrize(
        ("payload", "problem"),
        [
            ({"status": "completed"}, "has no 'output'"),
            ({"status": "failed", "output": []}, "status 'failed'"),
            ({"status": "cancelled", "output": []}, "status 'cancelled'"),
        ],
    )
    def test_a_response_that_failed_is_unusable(self, payload, problem):
        with pytest.raises(UnusableAnswer, match=problem):
            decode_response(RESPONSES, payload, None)


class TestEmbeddings:
    """/embeddings."""

    @pytest.mark.parametrize(
        "vector", [[0.5, -1, 0], base64.b64encode(struct.pack("<3f", 0.5, -1, 0)).decode()], ids=["floats", "base64"]
    )
    @pytest.mark.parametrize("asked", ["a text", [17, 4]], ids=["text", "tokens"])
    def test_one_text_gives_a_list_of_floats(self, vector, asked):
        request = ChatRequest({"input": asked}, "/embeddings")
        value = decode_response(request, {"data": [{"embedding": vector}]}, None)
        assert value == [0.5, -1.0, 0.0]
        assert all(type(number) is float for number in value)

    def test_base64_is_little_endian_on_every_machine(self, monkeypatch):
        monkeypatch.setattr(sys, "byteorder", {"little": "big", "big": "little"}[sys.byteorder])
        vector = base64.b64encode(struct.pack(">f", 0.5)).decode()
        assert decode_response(EMBEDDING, {"data": [{"embedding": vector}]}, None) == [0.5]

    def test_several_texts_give_the_json_as_it_is(self):
        payload = {"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}
        assert decode_response(ChatRequest({"input": ["a", "b"]}, "/embeddings"), payload, None) is payload

    @pytest.mark.parametrize(
        "data",
        [
            None,
            [],
            [None],
            [{}],
            [{"embedding": []}],
            [{"embedding": [None]}],
            [{"embedding": "*"}],
            [{"embedding": "AAA="}],
        ],
    )
    def test_anything_but_numbers_is_unusable(self, data):
        with pytest.raises(UnusableAnswer):
            decode_response(EMBEDDING, {"data": data}, None)


class TestOtherPaths:
    """Everything else is the caller's."""

    def test_moderations_must_have_results(self):
        request = ChatRequest({"input": "x"}, "/moderations")
        assert decode_response(request, {"results": [1]}, None) == {"results": [1]}
        with pytest.raises(UnusableAnswer, match="has no 'results'"):
            decode_response(request, {}, None)

    @pytest.mark.parametrize("payload", [{"data": []}, [], "text", 7, None])
    def test_an_unknown_path_gives_the_json_as_it_is(self, payload):
        assert decode_response(ChatRequest({}, "/models", "GET"), payload, None) == payload

    def test_a_list_of_stored_answers_is_no_answer(self):
        request = ChatRequest({}, "/chat/completions", "GET")
        assert decode_response(request, {"object": "list", "data": []}, None) == {"object": "list", "data": []}
