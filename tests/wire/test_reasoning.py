"""The model's reasoning, in whichever field a server sends it."""

from __future__ import annotations

import json
import pickle

import pytest

from chatpool._wire.classification import chunk_of
from chatpool._wire.response import decode_response
from chatpool._wire.stream import StreamReader
from chatpool.types import ChatCompletion, ChatRequest

CHAT = ChatRequest({"model": "m"}, "/chat/completions")
RESPONSES = ChatRequest({"model": "m"}, "/responses")


def chat(**message):
    return decode_response(CHAT, {"choices": [{"message": {"role": "assistant", "content": "42", **message}}]}, None)


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
        {"content": "<thought>so</thought>42"},
        {"content": "[THINK]so[/THINK]42"},
        {"content": "<seed:think>so</seed:think>42"},
        {"content": "<Thinking>so</Thinking> <think> </think> 42"},
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
        {"content": '{"text": "</think>", "value": 42}'},
        {"content": None},
    ],
)
def test_there_is_none(message):
    assert chat(**message).reasoning is None


def test_the_responses_api_tells_its_text_or_else_a_summary():
    def response(*items):
        answer = {"type": "message", "content": [{"type": "output_text", "text": "42"}]}
        return decode_response(RESPONSES, {"status": "completed", "output": [*items, answer]}, None)

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


def test_thoughts_that_are_parts_of_the_content_are_reasoning_in_a_stream_too():
    reader = StreamReader(CHAT)
    thoughts = '{"type": "thinking", "thinking": [{"type": "text", "text": "%s"}]}'
    head = reader.feed(lines('{"choices": [{"delta": {"role": "assistant", "content": [%s]}}]}' % (thoughts % "s")))
    assert not reader.answering
    chunks = head + reader.feed(
        lines(
            '{"choices": [{"delta": {"content": [%s, {"type": "text", "text": "4"}]}}]}' % (thoughts % "o"),
            '{"choices": [{"delta": {"content": "2"}, "finish_reason": "stop"}]}',
            "[DONE]",
        )
    )
    assert [(chunk.reasoning, chunk.text) for chunk in chunks] == [("s", ""), ("o", "4"), ("", "2")]
    completion = reader.completion()
    assert (completion.reasoning, completion.text) == ("so", "42")
    assert chat(content=completion.message["content"]) == chat(  # as in an answer that is no stream
        content=[{"type": "thinking", "thinking": [{"type": "text", "text": "so"}]}, {"type": "text", "text": "42"}]
    )


def test_thoughts_that_were_cut_are_reasoning():
    assert chat(content="<think>\nso it g").reasoning == "so it g"
    assert chat(content="[THINK]").reasoning is None


def test_an_answer_that_comes_whole_in_place_of_a_stream_has_it_too():
    for message in ({"reasoning": "so"}, {"content": [{"type": "thinking", "thinking": "so"}]}):
        assert chunk_of(chat(**message)).reasoning == "so"
    assert chunk_of(chat(content="<think>so</think>42")).reasoning == ""  # it is in the text
    item = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]}
    assert chunk_of(decode_response(RESPONSES, {"status": "completed", "output": [item]}, None)).reasoning == "so"
    reader = StreamReader(CHAT)
    whole = '{"choices": [{"message": {"content": "42", "reasoning": "so"}, "finish_reason": "stop"}]}'
    assert reader.feed(lines(whole, "[DONE]"))[0].reasoning == reader.completion().reasoning == "so"


def test_the_pieces_of_a_response_make_what_the_whole_says():
    texts = ["first", "second", "third"]
    items = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": text} for text in texts[:2]]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": texts[2]}]},
    ]
    places = [(0, 0), (0, 1), (1, 0)]
    reader = StreamReader(RESPONSES)
    events = [
        {"type": "response.reasoning_summary_text.delta", "output_index": item, "summary_index": part, "delta": piece}
        for (item, part), text in zip(places, texts)
        for piece in (text[:2], text[2:])
    ]
    whole = {"type": "response.completed", "response": {"status": "completed", "output": items}}
    chunks = reader.feed(lines(*map(json.dumps, [*events, whole])))
    assert "".join(chunk.reasoning for chunk in chunks) == reader.completion().reasoning == "first\n\nsecond\n\nthird"


def test_text_completions_have_it_in_their_first_choice_as_well():
    choices = [{"text": "<think>so</think>42"}, {"text": "<think>so</think>42"}]
    completion = decode_response(ChatRequest({"prompt": "x"}, "/completions"), {"choices": choices}, None)
    assert [choice.reasoning for choice in completion.choices] == ["so", "so"]


def test_what_was_pickled_without_it_has_none():
    completion = chat()
    del completion._reasoning, completion._choices
    again = pickle.loads(pickle.dumps(completion))
    assert again.reasoning is None
    assert [choice.text for choice in again.choices] == ["42"]
    assert again == completion
    chunk = chunk_of(completion)
    del chunk.reasoning
    assert pickle.loads(pickle.dumps(chunk)) == chunk_of(completion)


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
        choices = decode_response(CHAT, payload, None).choices
        assert [choice.text for choice in choices] == ["one", "two", ""]
        assert [choice.finish_reason for choice in choices] == ["stop", "length", None]
        assert choices[1].reasoning == "so"
        assert choices[2].tool_calls[0].name == "f"
        assert str(choices[1]) == "two"
        assert choices == decode_response(CHAT, payload, None).choices

    def test_text_completions_have_them_too(self):
        request = ChatRequest({"model": "m", "prompt": "x"}, "/completions")
        completion = decode_response(request, {"choices": [{"text": "one"}, {"text": "two"}]}, None)
        assert [choice.text for choice in completion.choices] == ["one", "two"]

    @pytest.mark.parametrize("further", [None, 7, {"message": 3}, {}])
    def test_one_that_is_odd_harms_none(self, further):
        payload = {"choices": [{"message": {"content": "one"}}, further]}
        completion: ChatCompletion = decode_response(CHAT, payload, None)
        assert completion.text == "one"
        assert all(choice.text == "" for choice in completion.choices[1:])
