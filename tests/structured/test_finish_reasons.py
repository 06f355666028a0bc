"""``accept=``: which answers are taken, by the reason for which the model stopped."""

from __future__ import annotations

import pickle

import pytest

from chatpool import APIResponseError, ChatRequest, ContentFilterError, LengthError
from chatpool.testing import Answer
from chatpool.testing.model import chat_completion, response_object

CUT = Answer(body=chat_completion("Once upon a", finish_reason="length"))
FILTERED = Answer(body=chat_completion("Once", finish_reason="content_filter"))
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def ended(reason, text="7", **message):
    """An answer that ends with ``reason``."""
    body = chat_completion(text, finish_reason=reason)
    body["choices"][0]["message"].update(message)
    return Answer(body=body)


def responses(**changes):
    return Answer(body={**response_object("7", id="resp_1", model="m"), **changes})


def test_without_a_word_every_answer_is_taken(always):
    _, pool = always(CUT)
    assert pool.chat("x").finish_reason == "length"


def test_an_answer_that_was_cut_is_not_parsed_nor_sent_again(always):
    server, pool = always(CUT)
    with pytest.raises(LengthError, match="cut at the token limit; raise max_tokens") as raised:
        pool.chat("x", parse=str)
    assert len(server.requests) == 1
    error = raised.value
    assert (error.text, error.completion.finish_reason, error.attempts) == ("Once upon a", "length", 1)
    assert error.request_id == "req_0"
    assert pickle.loads(pickle.dumps(error)).completion == error.completion


def test_nor_one_that_was_filtered(always):
    server, pool = always(FILTERED)
    with pytest.raises(ContentFilterError, match="a content filter cut the answer") as raised:
        pool.chat("x", parse=str)
    assert raised.value.text == "Once"
    assert len(server.requests) == 1


def test_accept_works_without_parse(always):
    _, pool = always(CUT)
    with pytest.raises(LengthError):
        pool.chat("x", accept=("stop",))
    assert pool.chat("x", accept=("stop", "length")).text == "Once upon a"
    assert pool.chat("x", accept="length").text == "Once upon a"
    assert pool.chat("x", accept={"length"}).text == "Once upon a"


def test_what_accept_takes_is_parsed(always):
    _, pool = always(CUT)
    assert pool.chat("x", parse=str.upper, accept=("stop", "length")).parsed == "ONCE UPON A"


def test_in_a_run_it_is_one_items_failure(serve):
    _, pool = serve(None, CUT, FILTERED, None, max_workers=1)
    results = pool.map(["a", "b", "c", "d"], accept=("stop",), on_error="return", progress=False)
    assert [type(slot).__name__ for slot in results] == [
        "ChatCompletion",
        "LengthError",
        "ContentFilterError",
        "ChatCompletion",
    ]
    assert results.outcomes[1].history[0].reason == "ended by length"
    assert results.usage == pool.stats().usage


@pytest.mark.parametrize("reason", ["stop", "eos", "eos_token", "end_turn", "STOP", "stop_sequence", None, ""])
def test_these_are_a_stop(always, reason):
    _, pool = always(ended(reason))
    assert pool.chat("x", parse=int).parsed == 7
    assert pool.chat("x", accept="stop").text == "7"


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_these_are_a_cut(always, reason):
    _, pool = always(ended(reason))
    with pytest.raises(LengthError):
        pool.chat("x", parse=int)


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "refusal"])
def test_these_are_a_filter(always, reason):
    _, pool = always(ended(reason))
    with pytest.raises(ContentFilterError):
        pool.chat("x", parse=int)


@pytest.mark.parametrize("reason", ["tool_calls", "function_call", "tool_use"])
def test_answers_that_call_tools_are_taken_and_not_parsed(always, reason):
    server, pool = always(ended(reason, text=None, tool_calls=[CALL]))
    reply = pool.chat("x", parse=int)
    assert reply.tool_calls[0].name == "look_up"
    assert reply.parsed is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("reason", ["stop", None])
def test_tool_calls_tell_more_than_the_reason(always, reason):
    _, pool = always(ended(reason, text="Let me see.", tool_calls=[CALL]))
    assert pool.chat("x", parse=int).parsed is None
    assert pool.chat("x", accept="tool_calls").tool_calls


def test_an_unknown_reason_is_named(always):
    server, pool = always(ended("insufficient_system_resource"))
    with pytest.raises(APIResponseError, match=r"'insufficient_system_resource'; accept= takes 'stop', 'tool_calls'"):
        pool.chat("x", parse=int)
    assert len(server.requests) == 1
    assert pool.chat("x", parse=int, accept=("stop", "insufficient_system_resource")).parsed == 7


def test_tool_calls_may_be_unwanted(always):
    _, pool = always(ended("tool_calls", text=None, tool_calls=[CALL]))
    with pytest.raises(APIResponseError, match="'tool_calls'; accept= takes 'stop'"):
        pool.chat("x", accept="stop")


def test_a_missing_reason_can_be_told_from_a_stop(always):
    _, pool = always(ended(None))
    assert pool.chat("x", accept=("tool_calls", None)).text == "7"
    with pytest.raises(APIResponseError, match="finish_reason None"):
        pool.chat("x", accept="tool_calls")


def test_a_refusal_is_a_filters_although_its_reason_is_stop(always):
    server, pool = always(ended("stop", text=None, refusal="I cannot help with that."))
    with pytest.raises(ContentFilterError, match="the model refused to answer") as raised:
        pool.chat("x", parse=int)
    assert raised.value.text == "I cannot help with that."
    assert "cannot help" not in str(raised.value)
    assert len(server.requests) == 1
    assert pool.chat("x").text == ""
    assert pool.chat("x", accept=("stop", "content_filter")).text == ""


def test_so_is_one_of_the_responses_api(always):
    message = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    _, pool = always(responses(output=[message]))
    with pytest.raises(ContentFilterError) as raised:
        pool.responses("x", accept="stop")
    assert raised.value.text == "No."


def test_the_responses_api_speaks_of_incomplete_answers(always):
    _, pool = always(responses(status="incomplete", incomplete_details={"reason": "max_output_tokens"}))
    with pytest.raises(LengthError):
        pool.responses("x", parse=int)
    _, pool = always(responses(status="incomplete", incomplete_details={"reason": "content_filter"}))
    with pytest.raises(ContentFilterError):
        pool.responses("x", parse=int)


def test_answers_that_are_no_text_are_taken(serve):
    _, pool = serve()
    request = ChatRequest({"input": ["a", "b"]}, "/embeddings")
    assert pool.map([request], parse=int, progress=False)[0]["object"] == "list"


@pytest.mark.parametrize("accept", [(), [], 7, ("stop", 7), b"stop"])
def test_accept_must_be_finish_reasons(serve, accept):
    server, pool = serve()
    with pytest.raises(TypeError, match="accept must be finish reasons such as"):
        pool.chat("x", accept=accept)
    assert not server.requests
