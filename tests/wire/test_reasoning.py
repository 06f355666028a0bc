"""The model's reasoning, wherever a server has it."""

from __future__ import annotations

import pickle

import pytest

from chatpool.types import ChatCompletion, ChatRequest
from chatpool.wire.answers import decode
from chatpool.wire.chunks import StreamReader

CHAT = ChatRequest({"model": "m"}, "/chat/completions")
RESPONSES = ChatRequest({"model": "m"}, "/responses")


def chat(**message):
    return decode(CHAT, {"choices": [{"message": {"role": "assistant", "content": "42", **message}}]}, None)


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "so"},
        {"reasoning": "so"},
        {"thinking": "so"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "s"}, {"type": "reasoning.summary", "summary": "o"}]},
        {"reasoning": None, "reasoning_details": [{"type": "reasoning.text", "text": "so"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "so", "signature": "x"}]},
        {"reasoning": {"content": "so"}},
        {"content": "<think>so</think>42"},
        {"content": "\n<think>\nso\n</think>\n\n42"},
        {"content": "so</think>42"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "so"}]},
                {"type": "text", "text": "42"},
            ]
        },
        {"content": [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "42"}]},
    ],
)
def test_it_is_found_under_every_name(message):
    completion = chat(**message)
    assert completion.reasoning == "so"
    assert completion.text.endswith("42")


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"reasoning_content": None},
        {"reasoning_content": ""},
        {"reasoning": 7},
        {"reasoning_details": []},
        {"reasoning_details": [None, 3, {}]},
        {"thinking": {}},
        {"content": "an answer about <think>tags</think>"},
        {"content": "<think></think>42"},
        {"content": None},
    ],
)
def test_there_is_none(message):
    assert chat(**message).reasoning is None


def test_the_responses_api_tells_its_text_or_else_a_summary():
    def response(*items):
        answer = {"type": "message", "content": [{"type": "output_text", "text": "42"}]}
        return decode(RESPONSES, {"status": "completed", "output": [*items, answer]}, None)

    summary = [{"type": "summary_text", "text": "first"}, {"type": "summary_text", "text": "second"}]
    text = [{"type": "reasoning_text", "text": "all of it"}]
    assert response({"type": "reasoning", "summary": summary}).reasoning == "first\n\nsecond"
    assert response({"type": "reasoning", "summary": summary, "content": text}).reasoning == "all of it"
    assert response({"type": "reasoning", "summary": []}).reasoning is None
    assert response({"type": "reasoning", "summary": "odd", "content": 7}).reasoning is None
    assert response().reasoning is None


def lines(*events):
    return "".join(f"data: {event}\n\n" for event in events).encode()


def test_chunks_bring_it_in_pieces():
    reader = StreamReader(CHAT)
    chunks = reader.feed(
        lines(
            '{"choices": [{"delta": {"role": "assistant", "content": "", "reasoning_content": "s"}}]}',
            '{"choices": [{"delta": {"reasoning": "o"}}]}',
            '{"choices": [{"delta": {"content": "42"}, "finish_reason": "stop"}]}',
            "[DONE]",
        )
    )
    assert [(chunk.reasoning, chunk.text) for chunk in chunks] == [("s", ""), ("o", ""), ("", "42")]


def test_a_joined_answer_has_it_whole():
    reader = StreamReader(CHAT)
    reader.feed(
        lines(
            '{"choices": [{"delta": {"reasoning_content": "s"}}]}',
            '{"choices": [{"delta": {"reasoning_content": "o"}}]}',
            '{"choices": [{"delta": {"content": "42"}, "finish_reason": "stop"}]}',
            "[DONE]",
        )
    )
    assert reader.completion().reasoning == "so"


def test_what_was_pickled_without_it_has_none():
    completion = chat()
    del completion._reasoning, completion._choices
    again = pickle.loads(pickle.dumps(completion))
    assert again.reasoning is None
    assert [choice.text for choice in again.choices] == ["42"]
    assert again == completion


class TestChoices:
    def test_there_is_one_as_a_rule(self):
        completion = chat(content="only")
        assert [(choice.index, choice.text) for choice in completion.choices] == [(0, "only")]

    def test_each_has_what_the_first_has(self):
        payload = {
            "choices": [
                {"message": {"content": "one"}, "finish_reason": "stop"},
                {"message": {"content": "two", "reasoning": "so"}, "finish_reason": "length"},
                {
                    "message": {
                        "content": None,
                        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}],
                    }
                },
            ]
        }
        choices = decode(CHAT, payload, None).choices
        assert [choice.text for choice in choices] == ["one", "two", ""]
        assert [choice.finish_reason for choice in choices] == ["stop", "length", None]
        assert choices[1].reasoning == "so"
        assert choices[2].tool_calls[0].name == "f"
        assert str(choices[1]) == "two"
        assert choices == decode(CHAT, payload, None).choices

    def test_text_completions_have_them_too(self):
        request = ChatRequest({"model": "m", "prompt": "x"}, "/completions")
        completion = decode(request, {"choices": [{"text": "one"}, {"text": "two"}]}, None)
        assert [choice.text for choice in completion.choices] == ["one", "two"]

    @pytest.mark.parametrize("further", [None, 7, {"message": 3}, {}])
    def test_one_that_is_odd_harms_none(self, further):
        payload = {"choices": [{"message": {"content": "one"}}, further]}
        completion: ChatCompletion = decode(CHAT, payload, None)
        assert completion.text == "one"
        assert all(choice.text == "" for choice in completion.choices[1:])
