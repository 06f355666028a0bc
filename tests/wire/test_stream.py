"""Streamed answers: chunks as they arrive, the whole answer in the end, and everything that is not one."""

from __future__ import annotations

import contextlib
import json

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import ChatChunk, ChatRequest, ToolCallDelta, Usage
from chatpool._wire import StreamReader
from chatpool._wire.response import UnusableAnswer, decode_response

CHAT = ChatRequest({"model": "m", "messages": [{"role": "user", "content": "x"}]})
TEXT = ChatRequest({"model": "m", "prompt": "x"}, "/completions")
RESPONSES = ChatRequest({"model": "m", "input": "x"}, "/responses")

DONE = b"data: [DONE]\n\n"
HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 17, "model": "m-1", "system_fingerprint": "fp"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(payload, name=None):
    start = f"event: {name}\n" if name else ""
    return f"{start}data: {json.dumps(payload)}\n\n".encode()


def chunk(delta=None, reason=None, index=0, **more):
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": reason}
    return event({**HEAD, "choices": [choice], **more})


def text_chunk(text, reason=None, index=0, **more):
    head = {**HEAD, "object": "text_completion"}
    return event({**head, "choices": [{"index": index, "text": text, "finish_reason": reason, **more}]})


def tool_call(index=0, id=None, name=None, arguments=None, **more):  # noqa: A002 - the API's own name for it
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    start = {} if id is None else {"id": id, "type": "function"}
    return chunk({"tool_calls": [{"index": index, **start, "function": function, **more}]})


def step(kind, **fields):
    return event({"type": kind, **fields}, kind)


ROLE = chunk({"role": "assistant", "content": "", "refusal": None})
HELLO = [ROLE, chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk(reason="stop")]


def read(*pieces, request=CHAT, ends=True, **options):
    """A reader that was fed, and the chunks it gave."""
    reader = StreamReader(request, **options)
    chunks = [found for piece in pieces for found in reader.feed(piece)]
    return reader, chunks + (reader.end() if ends else [])


def whole(*pieces, request=CHAT):
    reader, _ = read(*pieces, request=request)
    assert reader.fault is None
    assert reader.done
    return reader.completion("req_1")


def fault(*pieces, request=CHAT, ends=True):
    reader, _ = read(*pieces, request=request, ends=ends)
    assert reader.ended
    assert not reader.done
    return reader.fault


class TestChat:
    """/chat/completions."""

    def test_texts_and_the_reason_come_as_chunks(self):
        reader, chunks = read(*HELLO, DONE)
        assert [str(found) for found in chunks] == ["", "Hel", "lo", ""]
        assert [found.finish_reason for found in chunks] == [None, None, None, "stop"]
        assert reader.text == "Hello"
        assert chunks[1].raw["id"] == "c-1"

    def test_the_whole_answer_has_the_shape_of_one_that_was_not_streamed(self):
        last = event({**HEAD, "choices": [], "usage": USAGE})
        completion = whole(*HELLO, last, DONE)
        assert completion.raw == {
            "id": "c-1",
            "object": "chat.completion",
            "created": 17,
            "model": "m-1",
            "system_fingerprint": "fp",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
        }
        assert (completion.text, completion.usage, completion.request_id) == ("Hello", Usage(3, 2, 5), "req_1")

    def test_usage_comes_in_a_chunk_without_choices(self):
        _, chunks = read(*HELLO, event({**HEAD, "choices": [], "usage": USAGE}), DONE)
        assert [found.usage for found in chunks[-2:]] == [None, Usage(3, 2, 5)]

    def test_the_last_usage_counts_where_every_chunk_has_one(self):
        pieces = [
            chunk({"content": word}, usage={**USAGE, "total_tokens": total}) for word, total in (("a", 4), ("b", 5))
        ]
        assert whole(*pieces, chunk(reason="stop")).usage == Usage(3, 2, 5)

    def test_tool_calls_are_joined_by_their_index(self):
        pieces = [
            chunk({"role": "assistant", "content": None}),
            tool_call(0, "a", "weather", ""),
            tool_call(0, arguments='{"city": '),
            tool_call(1, "b", "time", ""),
            tool_call(0, arguments='"Paris"}'),
            tool_call(1, arguments="{}"),
            chunk(reason="tool_calls"),
        ]
        _, chunks = read(*pieces)
        deltas = [delta for found in chunks for delta in found.tool_calls]
        assert deltas[:2] == [ToolCallDelta(0, "a", "weather", ""), ToolCallDelta(0, arguments='{"city": ')]
        assert [delta.index for delta in deltas] == [0, 0, 1, 0, 1]
        completion = whole(*pieces)
        assert [(call.id, call.name, call.arguments) for call in completion.tool_calls] == [
            ("a", "weather", {"city": "Paris"}),
            ("b", "time", {}),
        ]
        assert completion.message["content"] is None
        assert completion.raw["choices"][0]["message"]["tool_calls"][0] == {
            "id": "a",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
        }

    def test_calls_that_all_say_index_0_are_told_apart_by_id_and_name(self):
        completion = whole(tool_call(0, "a", "f", "{}"), tool_call(0, "b", "g", "[]"), chunk(reason="stop"))
        assert [(call.id, call.arguments_json) for call in completion.tool_calls] == [("a", "{}"), ("b", "[]")]

    def test_a_number_of_choices_that_is_numpys_is_one(self):
        request = ChatRequest({"messages": [], "n": numpy.int64(2)})
        reader = StreamReader(request)
        reader.feed(b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n')
        assert not reader.done  # the second one is still to come

    def test_a_call_whose_pieces_have_ids_of_their_own_is_one_call(self):
        completion = whole(tool_call(0, "a", "f", "{"), tool_call(0, "b", arguments="}"), chunk(reason="stop"))
        assert [(call.id, call.name, call.arguments) for call in completion.tool_calls] == [("a", "f", {})]

    def test_a_call_whose_pieces_all_have_id_and_name_is_one_call(self):
        completion = whole(tool_call(0, "a", "f", "{"), tool_call(0, "a", "f", "}"), chunk(reason="stop"))
        assert [(call.id, call.name, call.arguments) for call in completion.tool_calls] == [("a", "f", {})]

    def test_calls_without_an_index_follow_each_other(self):
        pieces = [tool_call(None, "a", "f", "{"), tool_call(None, arguments="}"), tool_call(None, "b", "g", "{}")]
        completion = whole(*pieces, chunk(reason="stop"))
        assert [(call.id, call.arguments) for call in completion.tool_calls] == [("a", {}), ("b", {})]

    def test_a_piece_without_an_index_goes_on_with_the_last_call(self):
        pieces = [tool_call(0, "a", "f", "{}"), tool_call(1, "b", "g", "{"), tool_call(None, arguments="}")]
        completion = whole(*pieces, chunk(reason="stop"))
        assert [(call.id, call.arguments_json) for call in completion.tool_calls] == [("a", "{}"), ("b", "{}")]

    def test_what_else_a_call_says_is_kept(self):
        call = tool_call(0, "a", "f", "{}", extra_content={"google": {"thought_signature": "s"}})
        message = whole(call, chunk(reason="stop")).message
        assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}

    def test_other_texts_of_the_message_are_joined_too(self):
        pieces = [chunk({"reasoning_content": "hm"}), chunk({"reasoning_content": "m"}), chunk({"refusal": "no"})]
        message = whole(*pieces, chunk({"refusal": "!"}), chunk(reason="stop")).raw["choices"][0]["message"]
        assert message == {"role": "assistant", "content": None, "reasoning_content": "hmm", "refusal": "no!"}

    def test_lists_are_joined_and_the_old_function_call_too(self):
        pieces = [
            chunk({"annotations": [1], "function_call": {"name": "f", "arguments": "{"}}),
            chunk({"annotations": [2], "function_call": {"arguments": "}"}}, "function_call"),
        ]
        message = whole(*pieces).raw["choices"][0]["message"]
        assert message["annotations"] == [1, 2]
        assert message["function_call"] == {"name": "f", "arguments": "{}"}

    def test_log_probabilities_are_joined(self):
        def with_logprobs(*tokens):
            logprobs = {"content": [{"token": token} for token in tokens], "refusal": None}
            return event({**HEAD, "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": logprobs}]})

        reader, chunks = read(with_logprobs("a"), with_logprobs("b", "c"), chunk(reason="stop"))
        joined = reader.completion().raw["choices"][0]["logprobs"]
        assert joined == {"content": [{"token": "a"}, {"token": "b"}, {"token": "c"}], "refusal": None}
        assert len(chunks[0].raw["choices"][0]["logprobs"]["content"]) == 1  # what was handed out is left alone

    def test_content_in_parts_is_read_as_text(self):
        parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hel"}]
        assert whole(chunk({"content": parts}), chunk({"content": "lo"}, "stop")).text == "Hello"

    def test_a_whole_answer_sent_as_a_chunk_is_taken(self):
        choice = {"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}
        assert whole(event({**HEAD, "choices": [choice]}), DONE).text == "pong"

    def test_azure_says_filter_results_first_and_what_it_is_later(self):
        first = event({"choices": [], "created": 0, "id": "", "model": "", "prompt_filter_results": [{"index": 0}]})
        completion = whole(first, *HELLO, DONE)
        assert (completion.id, completion.model, completion.raw["created"]) == ("c-1", "m-1", 17)
        assert completion.raw["prompt_filter_results"] == [{"index": 0}]

    def test_the_last_word_counts_for_fields_that_grow(self):
        completion = whole(chunk({"content": "a"}, timings={"n": 1}), chunk(reason="stop", timings={"n": 2}))
        assert completion.raw["timings"] == {"n": 2}

    def test_what_is_null_is_kept_as_that_and_takes_nothing_back(self):
        pieces = [chunk({"content": "a"}, service_tier=None, extra={"a": 1}), chunk(reason="stop", extra=None)]
        raw = whole(*pieces).raw
        assert (raw["service_tier"], raw["extra"]) == (None, {"a": 1})

    def test_what_else_a_choice_says_is_kept(self):
        first = {"index": 0, "delta": {"content": "a"}, "content_filter_results": {"hate": {"filtered": False}}}
        last = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 7, "content_filter_results": None}
        choice = whole(event({**HEAD, "choices": [first]}), event({**HEAD, "choices": [last]})).raw["choices"][0]
        assert (choice["content_filter_results"], choice["stop_reason"]) == ({"hate": {"filtered": False}}, 7)

    @pytest.mark.parametrize("index", [{}, {"index": None}, {"index": "0"}])
    def test_a_choice_without_an_index_is_the_first(self, index):
        choice = {**index, "delta": {"content": "a"}, "finish_reason": "stop"}
        reader, chunks = read(event({**HEAD, "choices": [choice]}))
        assert (chunks[0].index, chunks[0].text, reader.completion().text) == (0, "a", "a")

    @pytest.mark.parametrize("reason", ["", 7, None])
    def test_only_a_text_is_a_finish_reason(self, reason):
        assert fault(chunk({"content": "a"}, reason)).kind == "truncated"

    def test_comments_empty_data_and_padding_do_no_harm(self):
        padded = chunk({"content": "a"}, obfuscation="xyz")
        completion = whole(
            b": PROCESSING\n\n", b"data:\n\ndata: null\n\n", padded, chunk(reason="stop"), b": bye\n\n", DONE
        )
        assert completion.text == "a"
        assert "obfuscation" not in completion.raw


class TestChoices:
    """Several choices in one stream."""

    REQUEST = ChatRequest({**CHAT.body, "n": 2})
    PIECES = (
        chunk({"role": "assistant", "content": "a"}, index=0),
        chunk({"role": "assistant", "content": "x"}, index=1),
        chunk({"content": "b"}, "stop", index=0),
        chunk({"content": "y"}, "length", index=1),
    )

    def test_each_is_joined_for_itself_and_the_first_is_the_text(self):
        completion = whole(*self.PIECES, request=self.REQUEST)
        assert [choice["message"]["content"] for choice in completion.raw["choices"]] == ["ab", "xy"]
        assert [choice["finish_reason"] for choice in completion.raw["choices"]] == ["stop", "length"]
        assert (completion.text, completion.finish_reason) == ("ab", "stop")

    def test_chunks_show_the_first_choice_and_say_whose_they_are(self):
        _, chunks = read(*self.PIECES, request=self.REQUEST)
        assert [(found.index, found.text, found.finish_reason) for found in chunks] == [
            (0, "a", None),
            (1, "", None),
            (0, "b", "stop"),
            (1, "", None),
        ]

    def test_a_chunk_may_hold_all_choices(self):
        both = [{"index": index, "delta": {"content": text}} for index, text in ((1, "x"), (0, "a"))]
        _, chunks = read(event({**HEAD, "choices": both}), request=self.REQUEST)
        assert [(found.index, found.text) for found in chunks] == [(1, "a")]

    @pytest.mark.parametrize("missing", [2, 3])
    def test_one_that_has_not_ended_makes_it_truncated(self, missing):
        pieces = [piece for place, piece in enumerate(self.PIECES) if place != missing]
        assert fault(*pieces, request=self.REQUEST).kind == "truncated"

    def test_one_that_never_came_makes_it_truncated(self):
        assert fault(self.PIECES[0], self.PIECES[2], request=self.REQUEST).kind == "truncated"

    def test_two_prompts_have_two_choices_and_a_list_of_tokens_has_one(self):
        two = ChatRequest({"prompt": ["a", "b"]}, "/completions")
        tokens = ChatRequest({"prompt": [1, 2, 3]}, "/completions")
        assert fault(text_chunk("a", "stop"), request=two).kind == "truncated"
        assert whole(text_chunk("a", "stop"), text_chunk("b", "stop", 1), request=two).text == "a"
        assert whole(text_chunk("a", "stop"), request=tokens).text == "a"


class TestCompletions:
    """/completions."""

    def test_texts_are_joined(self):
        reader, chunks = read(text_chunk("Hel"), text_chunk("lo"), text_chunk("", "length"), DONE, request=TEXT)
        assert [found.text for found in chunks] == ["Hel", "lo", ""]
        completion = reader.completion()
        assert (completion.text, completion.finish_reason) == ("Hello", "length")
        assert completion.raw["object"] == "text_completion"
        assert completion.raw["choices"] == [{"index": 0, "text": "Hello", "finish_reason": "length"}]

    def test_log_probabilities_are_joined(self):
        pieces = [
            text_chunk(word, logprobs={"tokens": [word], "text_offset": [place]}) for place, word in enumerate("ab")
        ]
        completion = whole(*pieces, text_chunk("", "stop"), request=TEXT)
        assert completion.raw["choices"][0]["logprobs"] == {"tokens": ["a", "b"], "text_offset": [0, 1]}


MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m-1",
    "output": [{"type": "reasoning", "id": "rs_1"}, MESSAGE, CALL],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
}
BEGUN = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
STEPS = [
    step("response.created", response=BEGUN),
    step("response.in_progress", response=BEGUN),
    step("response.output_item.added", output_index=0, item={"type": "reasoning"}),
    step("response.output_item.added", output_index=1, item={**MESSAGE, "content": []}),
    step("response.output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta="Hel"),
    step("response.output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta="lo"),
    step("response.output_text.done", output_index=1, item_id="msg_1", content_index=0, text="Hello"),
    step("response.output_item.added", output_index=2, item={**CALL, "arguments": ""}),
    step("response.function_call_arguments.delta", output_index=2, item_id="fc_1", delta='{"a"'),
    step("response.function_call_arguments.delta", output_index=2, item_id="fc_1", delta=": 1}"),
]
COMPLETED = step("response.completed", response=RESPONSE)


class TestResponses:
    """The Responses API."""

    def test_texts_and_tool_calls_come_as_chunks(self):
        reader, chunks = read(*STEPS, COMPLETED, request=RESPONSES)
        assert "".join(found.text for found in chunks) == reader.text == "Hello"
        assert [delta for found in chunks for delta in found.tool_calls] == [
            ToolCallDelta(0, "call_1", "f", ""),
            ToolCallDelta(0, arguments='{"a"'),
            ToolCallDelta(0, arguments=": 1}"),
        ]
        assert (chunks[-1].finish_reason, chunks[-1].usage) == ("tool_calls", Usage(3, 2, 5))
        assert chunks[0].raw["type"] == "response.created"

    def test_the_last_event_holds_the_whole_answer(self):
        completion = whole(*STEPS, COMPLETED, request=RESPONSES)
        assert completion.raw == RESPONSE
        assert (completion.text, completion.id, completion.tool_calls[0].arguments) == ("Hello", "resp_1", {"a": 1})

    def test_nothing_is_read_after_it(self):
        reader, _ = read(*STEPS, COMPLETED, request=RESPONSES, ends=False)
        assert reader.ended
        assert reader.feed(event({"error": "too late"})) == []
        assert reader.fault is None

    def test_an_incomplete_one_says_why(self):
        cut = {
            **RESPONSE,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [MESSAGE],
        }
        reader, chunks = read(*STEPS, step("response.incomplete", response=cut), request=RESPONSES)
        assert reader.done
        assert chunks[-1].finish_reason == reader.completion().finish_reason == "length"

    def test_items_that_the_last_event_lacks_are_filled_in(self):
        items = [
            step("response.output_item.done", output_index=place, item=item)
            for place, item in ((1, CALL), (0, MESSAGE))
        ]
        last = step("response.completed", response={**RESPONSE, "output": []})
        completion = whole(*items, last, request=RESPONSES)
        assert completion.text == "Hello"
        assert completion.raw["output"] == [MESSAGE, CALL]

    def test_the_type_is_taken_from_the_event_where_the_data_lack_it(self):
        pieces = [
            event({"delta": "a"}, "response.output_text.delta"),
            event({"response": RESPONSE}, "response.completed"),
        ]
        reader, _ = read(*pieces, request=RESPONSES)
        assert reader.text == "a"
        assert reader.done

    def test_a_failed_one_is_an_error(self):
        error = {"code": "server_error", "message": "sorry"}
        failed = step("response.failed", response={**BEGUN, "status": "failed", "error": error})
        found = fault(*STEPS, failed, request=RESPONSES)
        assert (found.kind, found.error) == ("error", {"error": error})

    def test_a_failed_one_without_an_error_is_no_answer(self):
        assert fault(step("response.failed", response=BEGUN), request=RESPONSES).kind == "garbage"

    def test_an_error_event_is_an_error(self):
        found = fault(*STEPS, step("error", code="rate_limit_exceeded", message="slow down"), request=RESPONSES)
        assert found.error["error"]["code"] == "rate_limit_exceeded"

    @pytest.mark.parametrize("rest", [b"", DONE, STEPS[0][:-1]])
    def test_without_the_last_event_it_is_truncated(self, rest):
        assert fault(*STEPS, rest, request=RESPONSES).kind == "truncated"

    @pytest.mark.parametrize("last", [{}, {"response": None}, {"response": {"status": "completed"}}])
    def test_a_last_event_without_an_answer_is_no_answer(self, last):
        assert fault(*STEPS, step("response.completed", **last), request=RESPONSES).kind == "garbage"


class TestWhole:
    """When an answer is whole: every choice has its finish_reason, or [DONE] has come."""

    def test_done_alone_will_do(self):
        completion = whole(ROLE, chunk({"content": "a"}), DONE)
        assert (completion.text, completion.finish_reason) == ("a", None)

    def test_a_finish_reason_alone_will_do(self):
        assert whole(*HELLO).finish_reason == "stop"

    @pytest.mark.parametrize("mark", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE] \n\n"])
    def test_the_mark_may_come_without_its_blank_line(self, mark):
        assert whole(chunk({"content": "a"}), mark).text == "a"

    def test_nothing_is_read_after_done(self):
        reader, chunks = read(*HELLO, DONE + chunk({"content": "more"}), ends=False)
        assert reader.ended
        assert reader.text == "Hello"
        assert [found.text for found in chunks] == ["", "Hel", "lo", ""]

    def test_a_finish_reason_ends_nothing_yet_for_usage_may_follow(self):
        reader, _ = read(*HELLO, ends=False)
        assert reader.done
        assert not reader.ended

    @pytest.mark.parametrize("rest", [event({"error": "late"}), b"data: {no json\n\n", b'data: {"cut', chunk()[:-1]])
    def test_what_comes_after_a_whole_answer_does_no_harm(self, rest):
        assert whole(*HELLO, rest).text == "Hello"

    def test_done_and_no_choice_at_all_is_no_answer(self):
        reader, _ = read(DONE)
        with pytest.raises(UnusableAnswer, match="'choices'"):
            reader.completion()


class TestFaults:
    """Everything else is no answer; what had come is kept."""

    @pytest.mark.parametrize("cut", range(len(HELLO)))
    def test_a_clean_end_before_the_finish_reason_is_truncated(self, cut):
        assert fault(*HELLO[:cut]).kind == "truncated"

    def test_it_is_told_how_it_ended(self):
        assert fault().problem == "ended without a single event"
        assert fault(b": only\n\n: comments\n\n").problem == "ended without a single event"
        assert fault(ROLE).problem == "ended without a finish_reason or [DONE]"
        assert fault(ROLE, HELLO[1][:-1]).problem == "ended in the middle of an event"

    @pytest.mark.parametrize(
        "error",
        [
            {"error": {"message": "overloaded", "code": "server_is_overloaded"}},
            {"error": "overloaded"},
            {"object": "error", "message": "overloaded", "code": 503},
            {
                **HEAD,
                "error": {"code": 502},
                "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
            },
        ],
    )
    def test_an_error_where_a_chunk_should_be_is_kept(self, error):
        found = fault(*HELLO[:2], event(error), *HELLO[2:], ends=False)
        assert (found.kind, found.error) == ("error", error)

    def test_an_event_called_error_is_one_whatever_it_holds(self):
        assert fault(event({"message": "no"}, "error"), ends=False).error == {"error": {"message": "no"}}
        assert fault(event([{"error": {"message": "no"}}]), ends=False).error == [{"error": {"message": "no"}}]
        assert read(chunk({"content": "a"}), event({"message": "no"}, "error"), ends=False)[1][1:] == []

    def test_a_choice_that_failed_is_an_error(self):
        choice = {"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 429}}
        assert fault(event({**HEAD, "choices": [choice]}), ends=False).error == {"error": {"code": 429}}
        assert fault(chunk(reason="error"), ends=False).kind == "garbage"

    @pytest.mark.parametrize(
        "data", ["{no json", "7", "[]", "[DONE] or not", '{"a": NaN', "<html>", '{"choices": ["x"]}']
    )
    def test_what_is_no_chunk_ends_the_stream(self, data):
        reader, chunks = read(*HELLO[:2], f"data: {data}\n\n".encode(), *HELLO[2:], ends=False)
        assert reader.ended
        assert reader.fault.kind == "garbage"
        assert [found.text for found in chunks] == ["", "Hel"]
        assert reader.text == "Hel"

    def test_chunks_before_a_fault_in_the_same_read_are_handed_out(self):
        reader, chunks = read(b"".join(HELLO[:3]) + event({"error": "x"}), ends=False)
        assert [found.text for found in chunks] == ["", "Hel", "lo"]
        assert reader.fault.kind == "error"

    def test_no_problem_quotes_what_the_model_said(self):
        secret = "a secret that the model said"
        for last in (b"data: {" + secret.encode() + b"\n\n", b"data: " + secret.encode(), b""):
            assert secret not in fault(chunk({"content": secret}), last).problem

    def test_an_event_that_is_too_long_is_told(self):
        reader, _ = read(*HELLO[:2], chunk({"content": "x" * 2000}), ends=False, max_event_bytes=1000)
        assert reader.fault == ("overflow", "has an event of more than 1,000 bytes", None)
        assert reader.text == "Hel"

    def test_nesting_without_end_is_no_chunk(self):
        deep = b'{"choices": [{"index": 0, "delta": {"x": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}]}"
        assert fault(b"data: " + deep + b"\n\n").kind in ("garbage", "truncated")

    def test_a_path_that_does_not_stream_is_refused(self):
        with pytest.raises(TypeError, match="/embeddings does not stream"):
            StreamReader(ChatRequest({}, "/embeddings"))


class TestHeldBack:
    """Chunks that bring nothing wait for the first that does, so that a call can still be sent again."""

    def test_a_role_waits_for_the_first_text(self):
        reader, chunks = read(ROLE, event({**HEAD, "choices": []}), ends=False)
        assert (chunks, reader.begun, reader.events) == ([], False, 2)
        assert [found.text for found in reader.feed(HELLO[1])] == ["", "", "Hel"]
        assert reader.begun

    @pytest.mark.parametrize(
        "first",
        [
            chunk({"content": "a"}),
            chunk({"reasoning_content": "a"}),
            tool_call(0, "a", "f"),
            chunk(reason="stop"),
            DONE,
        ],
    )
    def test_they_are_handed_out_with_whatever_comes_first(self, first):
        _, chunks = read(ROLE, first, ends=False)
        assert chunks[0].text == ""
        assert chunks[0].raw["choices"][0]["delta"]["role"] == "assistant"

    def test_they_are_not_handed_out_before_a_fault(self):
        reader, chunks = read(ROLE, event({"error": "busy"}), ends=False)
        assert (chunks, reader.begun) == ([], False)

    def test_of_a_response_everything_before_the_first_piece_waits(self):
        assert read(*STEPS[:4], request=RESPONSES, ends=False)[1] == []
        assert len(read(*STEPS[:5], request=RESPONSES, ends=False)[1]) == 5

    def test_not_for_ever(self):
        assert len(read(*[ROLE] * 100, ends=False)[1]) == 100


# --- any split, any answer, any nonsense ----------------------------------------------------------------------

WORDS = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=6)
CALLS = st.lists(st.tuples(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=4)), max_size=3)
REASONS = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
USAGES = st.one_of(
    st.none(), st.builds(lambda a, b: {"prompt_tokens": a, "completion_tokens": b}, *[st.integers(1, 99)] * 2)
)
CHOICES = st.lists(st.tuples(WORDS, CALLS, REASONS), min_size=1, max_size=3)
PLACES = st.lists(st.integers(min_value=0, max_value=10**6), max_size=10)


def body_of(choices, usage):
    """A whole answer."""
    made = []
    for index, (words, calls, reason) in enumerate(choices):
        message = {"role": "assistant", "content": "".join(words) or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = [
                {
                    "id": f"id-{place}",
                    "type": "function",
                    "function": {"name": name or "f", "arguments": "".join(pieces)},
                }
                for place, (name, pieces) in enumerate(calls)
            ]
        made.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    body = {**HEAD, "object": "chat.completion", "choices": made}
    return body if usage is None else {**body, "usage": usage}


def events_of(choices, usage):
    """The same answer as a stream."""
    for index, (words, calls, reason) in enumerate(choices):
        yield chunk({"role": "assistant", "content": None if calls else "", "refusal": None}, index=index)
        for word in words:
            yield chunk({"content": word}, index=index)
        for place, (name, pieces) in enumerate(calls):
            start = {"id": f"id-{place}", "type": "function", "function": {"name": name or "f", "arguments": ""}}
            yield chunk({"tool_calls": [{"index": place, **start}]}, index=index)
            for piece in pieces:
                yield chunk({"tool_calls": [{"index": place, "function": {"arguments": piece}}]}, index=index)
        yield chunk(reason=reason, index=index)
    if usage is not None:
        yield event({**HEAD, "choices": [], "usage": usage})


@given(CHOICES, USAGES)
def test_an_answer_taken_apart_and_joined_is_the_same_answer(choices, usage):
    request = ChatRequest({**CHAT.body, "n": len(choices)})
    body = body_of(choices, usage)
    assert whole(*events_of(choices, usage), DONE, request=request) == decode_response(request, body, "req_1")


@given(CHOICES, USAGES, PLACES)
def test_any_split_gives_the_same_chunks(choices, usage, places):
    request = ChatRequest({**CHAT.body, "n": len(choices)})
    stream = b"".join(events_of(choices, usage)) + DONE
    edges = [0, *sorted(place % len(stream) for place in places), len(stream)]
    pieces = [stream[start:end] for start, end in zip(edges, edges[1:])]
    reader, chunks = read(stream, request=request)
    again, parts = read(*pieces, request=request)
    assert parts == chunks
    assert again.completion() == reader.completion()


@given(CHOICES, st.integers(min_value=0, max_value=10**6))
def test_wherever_it_breaks_off_it_is_whole_or_truncated_and_keeps_the_text(choices, place):
    request = ChatRequest({**CHAT.body, "n": len(choices)})
    stream = b"".join(events_of(choices, None))
    stream = stream[: place % len(stream)]
    reader, chunks = read(stream, request=request)
    finished = stream.count(b'"finish_reason": "')
    assert reader.done == (reader.fault is None)
    assert not reader.done or finished == len(choices)
    assert "".join(choices[0][0]).startswith(reader.text)
    assert reader.text == "".join(found.text for found in chunks)


FIELDS = ["choices", "delta", "index", "content", "tool_calls", "function", "id", "name", "arguments", "finish_reason"]
OTHERS = ["usage", "role", "text", "message", "logprobs", "error", "object", "type", "response", "output", "item"]
NAMES = st.sampled_from([*FIELDS, *OTHERS, "output_index"])
KINDS = st.sampled_from(
    ["response.completed", "response.output_item.added", "response.output_text.delta", "error", "stop"]
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.just(0.5), st.text(max_size=3), KINDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=8,
)
NONSENSE = st.lists(
    st.one_of(
        st.dictionaries(NAMES, VALUES, max_size=5),
        st.builds(lambda choice: {"choices": [choice]}, st.dictionaries(NAMES, VALUES, max_size=5)),
        st.builds(lambda call: {"choices": [{"delta": {"tool_calls": [call, call]}}]}, st.dictionaries(NAMES, VALUES)),
        st.builds(lambda kind, rest: {**rest, "type": kind}, KINDS, st.dictionaries(NAMES, VALUES, max_size=4)),
    ),
    max_size=6,
)


@given(NONSENSE, st.sampled_from([CHAT, TEXT, RESPONSES]))
def test_no_nonsense_raises(payloads, request):
    reader, chunks = read(*map(event, payloads), request=request)
    assert reader.ended
    assert all(isinstance(found, ChatChunk) and isinstance(found.text, str) for found in chunks)
    assert isinstance(reader.text, str)
    if reader.fault is None:
        with contextlib.suppress(UnusableAnswer):  # it ended well and holds nothing
            assert isinstance(reader.completion().text, str)


class TestBelieved:
    """When a finish_reason is believed."""

    def reader(self, *pieces, request=CHAT):
        return read(*pieces, request=request, ends=False)[0]

    def test_with_content_it_is_settled_and_without_it_only_whole(self):
        with_content = self.reader(chunk({"content": "a"}), chunk(reason="stop"))
        assert (with_content.done, with_content.settled) == (True, True)
        for delta in ({}, {"content": ""}, {"reasoning_content": "hm"}, {"role": "assistant"}):
            reader = self.reader(chunk(delta, "stop"))
            assert (reader.done, reader.settled) == (True, False)

    @pytest.mark.parametrize(
        "delta",
        [
            {"content": "b"},
            {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
            {"refusal": "no"},
            {"reasoning": "hm"},
            {"reasoning_content": "hm"},
            {"thinking": "hm"},
            {"function_call": {"name": "f"}},
        ],
    )
    def test_what_comes_after_it_takes_it_back(self, delta):
        reader = self.reader(chunk({"content": "a"}, "stop"), chunk(delta))
        assert (reader.done, reader.settled) == (False, False)
        reader.end()
        assert reader.fault.kind == "truncated"
        assert whole(chunk({"content": "a"}, "stop"), chunk(delta, "length")).finish_reason == "length"
        assert whole(chunk({"content": "a"}, "stop"), chunk(delta), DONE).finish_reason == "stop"

    @pytest.mark.parametrize("delta", [{}, {"content": ""}, {"content": None}, {"role": "assistant"}, {"x": "y"}])
    def test_what_brings_nothing_takes_nothing_back(self, delta):
        assert self.reader(chunk({"content": "a"}, "stop"), chunk(delta)).settled

    def test_each_chunk_that_ends_a_choice_says_so(self):
        pieces = [chunk({"reasoning": "hm"}, "stop"), chunk({"content": "a"}), chunk({}, "stop"), chunk({}, "stop")]
        assert [found.finish_reason for found in read(*pieces)[1]] == ["stop", None, "stop", None]

    def test_an_error_counts_until_it_is_settled(self):
        error = event({"error": {"message": "no"}})
        assert self.reader(chunk({"reasoning": "hm"}, "stop"), error).fault.kind == "error"
        assert self.reader(chunk({"content": "a"}, "stop"), error).fault is None

    def test_a_choice_that_failed_is_never_settled(self):
        assert self.reader(chunk({"content": "a"}), chunk({}, "error")).fault.kind == "garbage"

    def test_every_choice_has_to_be_settled(self):
        two = ChatRequest({**CHAT.body, "n": 2})
        first, second = chunk({"content": "a"}, "stop"), chunk({}, "stop", index=1)
        assert not self.reader(first, request=two).done
        assert self.reader(first, second, request=two).done
        assert not self.reader(first, second, request=two).settled
        assert self.reader(first, chunk({"content": "b"}, index=1), second, request=two).settled

    def test_a_response_is_settled_by_its_last_event_alone(self):
        reader = self.reader(step("response.output_text.delta", delta="a"), request=RESPONSES)
        assert (reader.begun, reader.answering, reader.settled) == (True, True, False)

    def test_reasoning_begins_an_answer_and_is_none(self):
        for reader in (
            self.reader(chunk({"reasoning_content": "hm"})),
            self.reader(step("response.reasoning_summary_text.delta", delta="hm"), request=RESPONSES),
        ):
            assert (reader.begun, reader.answering) == (True, False)


class TestDialects:
    """What servers do in ways of their own."""

    FACE = "\U0001f600"

    def test_halves_of_a_character_in_two_chunks_are_one(self):
        pieces = [chunk({"content": "a\ud83d"}), chunk({"content": "\ude00b"}), chunk(reason="stop")]
        reader, chunks = read(*pieces)
        assert [found.text for found in chunks] == ["a", f"{self.FACE}b", ""]
        assert reader.completion().text == reader.text == f"a{self.FACE}b"

    def test_those_of_a_completion_and_of_a_response_too(self):
        assert whole(text_chunk("\ud83d"), text_chunk("\ude00", "stop"), request=TEXT).text == self.FACE
        kind = "response.output_text.delta"
        _, chunks = read(step(kind, delta="\ud83d"), step(kind, delta="\ude00"), request=RESPONSES, ends=False)
        assert [found.text for found in chunks] == ["", self.FACE]
        kind = "response.function_call_arguments.delta"
        _, chunks = read(step(kind, delta="\ud83d"), step(kind, delta="\ude00"), request=RESPONSES, ends=False)
        assert [found.tool_calls[0].arguments for found in chunks] == ["", self.FACE]

    def test_usage_inside_a_choice_is_the_answers(self):
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "usage": USAGE}
        completion = whole(event({**HEAD, "choices": [choice]}), DONE)
        assert completion.usage == Usage(3, 2, 5)
        assert completion.raw["usage"] == USAGE
        assert "usage" not in completion.raw["choices"][0]

    def test_usage_beside_the_choices_counts_more(self):
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "usage": {"prompt_tokens": 1}}
        assert whole(event({**HEAD, "choices": [choice], "usage": USAGE})).usage == Usage(3, 2, 5)

    @pytest.mark.parametrize("before", [b"", chunk({"content": "a"})])
    @pytest.mark.parametrize(
        "said",
        [
            b'error: {"code": 400, "message": "too long"}\n\n',
            b'error:{"error": {"code": 400, "message": "too long"}}\n\n',
            b'event: error\ndata: {"code": 400, "message": "too long"}\n\n',
            b": hello\n\n" + b'{"error": {"code": 400, "message": "too long"}}\n\n',
        ],
    )
    def test_an_error_in_any_form_has_the_servers_words(self, before, said):
        found = fault(before, said, ends=False)
        assert found.kind == "error"
        assert found.error["error"] == {"code": 400, "message": "too long"}

    @pytest.mark.parametrize("said", [b"error: too long\n\n", b"event: error\ndata: too long\n\n"])
    def test_an_error_in_words_has_them(self, said):
        assert fault(said, ends=False).error == {"error": {"message": "too long"}}

    @pytest.mark.parametrize("end", [b"", b"\n"])
    def test_one_that_the_end_cuts_off_has_them_too(self, end):
        for said in (
            b'error: {"message": "no"}',
            b'data: {"error": {"message": "no"}}',
            b'{"error": {"message": "no"}}',
        ):
            assert fault(b": hello\n\n" + said + end).error["error"] == {"message": "no"}

    def test_json_without_a_field_that_is_no_error_is_passed_over(self):
        assert whole(*HELLO[:2], b'{"ping": 1}\n\n', *HELLO[2:], DONE).text == "Hello"
