"""Values: requests, answers, outcomes, results."""

from __future__ import annotations

import pickle
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import (
    Attempt,
    BadRequestError,
    ChatChunk,
    ChatCompletion,
    ChatPool,
    ChatRequest,
    ConfigurationError,
    InternalServerError,
    Outcome,
    Results,
    ToolCall,
    ToolCallDelta,
    Usage,
)

COUNTS = st.integers(min_value=0, max_value=10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS)


def completion(text="pong", **facts):
    return ChatCompletion(text=text, message={"role": "assistant", "content": text}, **facts)


def succeeded(index, text="pong", usage=None):
    history = (Attempt("ok", 200, None, 0.5, "req_1"),)
    return Outcome(index, f"prompt {index}", value=completion(text, usage=usage), history=history, elapsed=0.5)


def failed(index, error):
    history = (Attempt("bad request", 400, None, 0.25, None),)
    return Outcome(index, f"prompt {index}", error=error, history=history, elapsed=0.25)


def results(*outcomes):
    return Results([outcome.value for outcome in outcomes], outcomes, 2.0)


def test_a_request_knows_its_model():
    assert ChatRequest({"model": "m"}).model == "m"
    assert ChatRequest({}).model is None
    assert ChatRequest({"model": 7}).model is None


def test_a_completion_reads_as_its_text():
    assert str(completion("Paris")) == "Paris"
    assert "Paris" in repr(completion("Paris"))


def test_completions_are_equal_when_all_they_say_is():
    assert completion("a", id="1") == completion("a", id="1")
    assert completion("a", id="1") != completion("a", id="2")
    assert completion("a") != "a"


def test_a_completion_is_not_hashable():
    with pytest.raises(TypeError, match="unhashable"):
        hash(completion())


def test_a_tool_call_decodes_its_arguments():
    assert ToolCall("1", "weather", '{"city": "Paris"}').arguments == {"city": "Paris"}
    assert ToolCall("1", "now", "").arguments == {}


@pytest.mark.usefixtures("no_collection")
def test_arguments_that_are_no_json_are_a_value_error():
    with pytest.raises(ValueError, match="Expecting"):
        _ = ToolCall("1", "weather", "{city").arguments
    for text in ("[" * 100_000, "9" * 5000):
        with pytest.raises(ValueError, match="weather"):
            _ = ToolCall("1", "weather", text).arguments


def test_a_chunk_of_nothing_is_empty():
    chunk = ChatChunk()
    assert (str(chunk), chunk.finish_reason, chunk.tool_calls, chunk.usage, chunk.raw, chunk.index) == (
        "",
        None,
        (),
        None,
        {},
        0,
    )


def test_a_chunk_reads_as_its_text_and_shows_what_else_it_brings():
    assert str(ChatChunk("Pa")) == "Pa"
    assert repr(ChatChunk("Pa")) == "ChatChunk('Pa')"
    assert "finish_reason='stop'" in repr(ChatChunk("", "stop"))
    assert "arguments='{'" in repr(ChatChunk(tool_calls=(ToolCallDelta(0, arguments="{"),)))


def test_chunks_are_equal_when_all_they_say_is_and_pickle_as_they_are():
    chunk = ChatChunk("Pa", "stop", (ToolCallDelta(0, "a", "f", "{}"),), Usage(1, 2, 3), {"id": "c"}, 1)
    assert pickle.loads(pickle.dumps(chunk)) == chunk
    assert chunk != ChatChunk("Pa")
    assert chunk != "Pa"
    with pytest.raises(TypeError, match="unhashable"):
        hash(chunk)


@given(USAGES, USAGES)
def test_usage_adds_up_field_by_field(one, other):
    total = one + other
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"):
        assert getattr(total, name) == getattr(one, name) + getattr(other, name)


def test_the_cost_of_a_sum_is_known_where_that_of_all_is():
    dear, cheap, silent = Usage(1, 1, 2, cost=0.5), Usage(1, 1, 2, cost=0.25), Usage(1, 1, 2)
    assert (dear + cheap).cost == 0.75
    assert (Usage() + dear + Usage()).cost == 0.5
    assert (dear + silent + cheap).cost is None
    assert (Usage() + Usage()).cost is None


def test_usage_adds_up_with_nothing_else():
    with pytest.raises(TypeError):
        Usage() + 1


def test_an_outcome_gives_its_value_or_raises_its_error():
    assert succeeded(0).result().text == "pong"
    with pytest.raises(BadRequestError, match="too long"):
        failed(1, BadRequestError("too long")).result()


def test_an_outcome_counts_its_attempts():
    assert succeeded(0).attempts == 1
    assert Outcome(0, "unsent").attempts == 0


def test_an_outcome_shows_how_it_ended():
    assert "value=" in repr(succeeded(0))
    assert "BadRequestError" in repr(failed(0, BadRequestError("no")))


def test_results_are_a_list_in_input_order():
    got = results(succeeded(0, "a"), failed(1, BadRequestError("no")), succeeded(2, "c"))
    assert [str(value) for value in got] == ["a", "None", "c"]
    assert [outcome.index for outcome in got.failures] == [1]


def test_results_add_up_the_tokens_of_all_answers():
    got = results(
        succeeded(0, usage=Usage(1, 2, 3)), failed(1, BadRequestError("no")), succeeded(2, usage=Usage(4, 5, 9))
    )
    assert got.usage == Usage(5, 7, 12)


def test_the_first_failure_in_input_order_is_raised_with_the_results():
    got = results(succeeded(0), failed(1, BadRequestError("first")), failed(2, InternalServerError("second")))
    with pytest.raises(BadRequestError, match="first") as raised:
        got.raise_on_failure()
    assert raised.value.results is got


def test_without_failures_nothing_is_raised():
    assert results(succeeded(0)).raise_on_failure() is None


def test_an_explanation_groups_failures_by_cause_and_says_what_to_do():
    text = results(
        failed(0, InternalServerError("down", status_code=503)),
        failed(1, BadRequestError("too long", status_code=400, code="context_length_exceeded")),
        failed(2, BadRequestError("too long too", status_code=400, code="context_length_exceeded")),
        succeeded(3),
    ).explain()
    assert text.startswith("3 of 4 failed:")
    assert text.index("2 x BadRequestError (400, context_length_exceeded)") < text.index(
        "1 x InternalServerError (503)"
    )
    assert "item 1, after 1 attempt(s): too long" in text
    assert BadRequestError.advice in text


def test_an_explanation_of_success_is_short():
    assert results(succeeded(0)).explain() == "All 1 succeeded."


def test_results_make_rows_for_a_table():
    rows = results(succeeded(0, usage=Usage(1, 2, 3)), failed(1, BadRequestError("no"))).to_dicts()
    assert rows[0] == {
        "index": 0,
        "ok": True,
        "text": "pong",
        "error": None,
        "status": 200,
        "attempts": 1,
        "elapsed": 0.5,
        "prompt_tokens": 1,
        "completion_tokens": 2,
    }
    assert (rows[1]["ok"], rows[1]["text"], rows[1]["error"], rows[1]["status"]) == (
        False,
        None,
        "BadRequestError: no",
        400,
    )


def test_results_pickle_with_their_outcomes():
    got = pickle.loads(pickle.dumps(results(succeeded(0, "a"), failed(1, BadRequestError("no", status_code=400)))))
    assert (str(got[0]), got[1], got.elapsed, got.fatal) == ("a", None, 2.0, None)
    assert got.failures[0].error.status_code == 400


class TestCost:
    def priced(self, model, usage):
        return Outcome(0, "row", request=ChatRequest({"model": model}), value=completion("a", usage=usage))

    def test_each_answer_is_priced_by_the_model_that_was_asked(self):
        got = results(self.priced("m", Usage(10, 20, 30)), self.priced("e", Usage(10, 0, 10)))
        assert got.cost({"m": (1, 2), "e": 0.5}) == pytest.approx(55e-6)
        assert got.cost((1, 2)) == pytest.approx(60e-6)

    def test_what_a_server_states_goes_before(self):
        got = results(self.priced("m", Usage(10, 20, 30, cost=0.5)), self.priced("m", Usage(10, 20, 30)))
        assert got.cost({"m": (1_000_000, 0)}) == 10.5
        assert results(self.priced("m", Usage(1, 1, 2, cost=0.5))).cost() == 0.5

    def test_a_model_without_a_price_is_named(self):
        got = results(self.priced("m", Usage(10, 20, 30)))
        for prices in ({"other": (1, 2)}, None):
            with pytest.raises(ConfigurationError, match="no price for the model 'm'"):
                got.cost(prices)

    def test_what_failed_without_an_answer_costs_nothing(self):
        assert results(failed(0, BadRequestError("no"))).cost((1, 2)) == 0


def test_types_take_their_arguments_at_run_time_on_every_python():
    """Annotations that name them are evaluated by dataclasses, pydantic and the like."""
    for named in (Results[ChatCompletion], Results[ChatCompletion, None], Outcome[int], ChatCompletion[int]):
        assert typing.get_args(named)
    assert typing.get_origin(Results[ChatCompletion]) is Results


@pytest.mark.parametrize("method", ["chat", "responses", "submit", "map", "imap", "as_completed", "retry", "embed"])
def test_annotations_of_methods_can_be_evaluated(method):
    hints = typing.get_type_hints(getattr(ChatPool, method))
    assert {"return", "timeout"} <= set(hints)


def test_types_may_be_written_at_run_time_with_one_argument_or_two():
    assert Results[ChatCompletion].__origin__ is Results
    assert Results[ChatCompletion, ChatCompletion].__args__ == (ChatCompletion, ChatCompletion)
