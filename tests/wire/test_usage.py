"""Usage as answers state it, counted as it is billed."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._wire.accumulate import ChoiceAccumulator
from chatpool._wire.embeddings import split_response
from chatpool._wire.response import usage_of
from chatpool.types import Usage


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, Usage(1, 2, 3)),
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(1, 2, 3)),
        ({"prompt_tokens": 4, "total_tokens": 4}, Usage(4, 0, 4)),
        ({"input_tokens": 1, "output_tokens": 2}, Usage(1, 2, 3)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}, Usage(9, 0, 9, 8)),
        ({"prompt_tokens": 9, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 7}, Usage(9, 0, 9, 7)),
        ({"prompt_tokens": "many", "completion_tokens": -1, "total_tokens": True}, None),
        ({"prompt_tokens": 10**9, "completion_tokens": 0, "total_tokens": 10**9}, Usage(10**9, 0, 10**9)),
        ({"prompt_tokens": 5, "completion_tokens": 10**9 + 1, "total_tokens": 7}, None),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 10**400}, None),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 10**400}}, Usage(9, 0, 9)),
        ({"bytes": 7}, None),
        ({}, None),
        (None, None),
        ("x", None),
    ],
)
def test_usage_is_read_in_every_dialect(usage, tokens):
    assert usage_of({"usage": usage}) == tokens


@pytest.mark.parametrize("payload", [None, [], "x", {}])
def test_without_usage_there_is_none(payload):
    assert usage_of(payload) is None


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 1030}
            | {"completion_tokens_details": {"reasoning_tokens": 1000}},
            Usage(20, 1010, 1030, 0, 1000),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 1030}, Usage(20, 1010, 1030)),
        ({"input_tokens": 20, "output_tokens": 10, "total_tokens": 1030}, Usage(20, 1010, 1030)),
        (
            {"prompt_tokens": 20, "completion_tokens": 400, "total_tokens": 720}
            | {"completion_tokens_details": {"reasoning_tokens": 300}},
            Usage(20, 700, 720, 0, 300),
        ),
        ({"prompt_tokens": 20, "total_tokens": 50}, Usage(20, 30, 50)),
        ({"completion_tokens": 10, "total_tokens": 50}, Usage(40, 10, 50)),
        ({"total_tokens": 50}, Usage(0, 50, 50)),
    ],
)
def test_tokens_in_total_that_no_part_names_are_written_ones(usage, tokens):
    assert usage_of({"choices": [], "usage": usage}) == tokens


def test_reasoning_that_is_more_than_what_was_written_was_written_besides():
    usage = {"prompt_tokens": 12, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 317}}
    assert usage_of({"usage": usage}) == Usage(12, 319, 331, 0, 317)


def test_reasoning_that_is_a_part_of_what_was_written_is_not_counted_twice():
    usage = {"input_tokens": 5, "output_tokens": 50, "total_tokens": 55}
    usage["output_tokens_details"] = {"reasoning_tokens": 40}
    assert usage_of({"usage": usage}) == Usage(5, 50, 55, 0, 40)


def test_an_embedding_has_nothing_written_whatever_its_total_is():
    assert usage_of({"data": [], "usage": {"total_tokens": 9}}) == Usage(9, 0, 9)
    assert usage_of({"results": [], "usage": {"prompt_tokens": 2, "total_tokens": 9}}) == Usage(9, 0, 9)


@pytest.mark.parametrize("read", [20, 20.0, "20", " 20 ", "20.0", 19.25, "2e1"])
@pytest.mark.parametrize("written", [1010, 1010.0, "1010", "1,010", 1009.5])
def test_floats_and_digits_count_and_part_of_a_token_is_one(read, written):
    assert usage_of({"usage": {"prompt_tokens": read, "completion_tokens": written}}) == Usage(20, 1010, 1030)


@pytest.mark.parametrize("none", [None, "", "many", -1, True, math.nan, [20], {"tokens": 20}, "NaN", "Infinity"])
def test_what_is_no_number_is_not_said(none):
    assert usage_of({"usage": {"prompt_tokens": none, "completion_tokens": none, "total_tokens": none}}) is None
    assert usage_of({"usage": {"prompt_tokens": none, "input_tokens": 4, "completion_tokens": 1}}) == Usage(4, 1, 5)


@pytest.mark.parametrize("absurd", [10**10, 10**400, 1e300, math.inf, "9" * 25, "1e99"])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_a_number_that_cannot_be_makes_the_whole_usage_unknown(name, absurd):
    assert usage_of({"usage": {"prompt_tokens": 4, "completion_tokens": 1, name: absurd}}) is None


@pytest.mark.parametrize("zero", [0, 0.0, "0"])
def test_zeros_are_no_usage(zero):
    usage = {"prompt_tokens": zero, "completion_tokens": zero, "total_tokens": zero}
    assert usage_of({"usage": usage}) is None
    inside = {"prompt_tokens": 3, "completion_tokens": 2}
    assert usage_of({"usage": usage, "choices": [{"usage": inside}]}) == Usage(3, 2, 5)


def test_zeros_in_the_last_chunk_of_a_stream_do_not_take_the_place_of_a_count():
    accumulator = ChoiceAccumulator(True, 1)
    accumulator.add("", {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert accumulator.add("", {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}).usage is None
    assert usage_of(accumulator.payload()) == Usage(3, 2, 5)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 1, "cached_tokens": 8}, Usage(10, 1, 11, 8)),  # Moonshot
        ({"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 90}, Usage(100, 1, 101, 90)),  # Anthropic
        ({"prompt_tokens": 100, "completion_tokens": 1, "cache_read_input_tokens": 90}, Usage(100, 1, 101, 90)),
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 101}
            | {"prompt_tokens_details": {"cached_tokens": 90}},
            Usage(100, 1, 101, 90),
        ),
    ],
)
def test_tokens_from_the_cache_are_a_part_of_those_read(usage, tokens):
    assert usage_of({"usage": usage}) == tokens


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ({"cost": 0.95}, 0.95),  # OpenRouter
        ({"cost": "0.95"}, 0.95),
        ({"cost": 0}, 0.0),
        ({"cost": {"total_cost": 0.006}}, 0.006),  # Perplexity
        ({"estimated_cost": 0.5}, 0.5),  # DeepInfra
        ({"cost_in_usd_ticks": 94_000}, 0.0000094),  # xAI
        ({"cost": -1}, None),
        ({"cost": math.nan}, None),
        ({"cost": math.inf}, None),
        ({"cost": 10**400}, None),
        ({"cost_in_usd_ticks": 10**400}, None),
        ({"cost": "dear"}, None),
    ],
)
def test_money_that_is_stated_is_kept(said, cost):
    usage = usage_of({"usage": {"prompt_tokens": 1, "completion_tokens": 1, **said}})
    assert usage == Usage(1, 1, 2, cost=None if cost is None else pytest.approx(cost))


def test_the_provider_takes_its_money_besides_where_the_key_is_ones_own():
    said = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.05, "is_byok": True}
    both = {**said, "cost_details": {"upstream_inference_cost": 0.95}}
    assert usage_of({"usage": both}).cost == pytest.approx(1.0)
    assert usage_of({"usage": {**both, "is_byok": False}}).cost == 0.05  # there it says the same twice
    assert usage_of({"usage": said}).cost is None  # prices are nearer to the truth than the fee alone
    assert usage_of({"usage": {**said, "cost_details": {"upstream_inference_cost": None}}}).cost is None


def test_tokens_from_the_cache_that_are_more_than_those_read_were_read_besides():
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "cache_read_input_tokens": 100}
    assert usage_of({"usage": usage}) == Usage(110, 20, 130, 100)


def test_groq_has_it_in_a_place_of_its_own_in_streams():
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    accumulator = ChoiceAccumulator(is_chat=True, expected=1)
    accumulator.add("", {"choices": [{"delta": {"content": "yes"}}], "x_groq": {"id": "req_1"}})
    last = accumulator.add("", {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": usage}})
    assert last.usage == usage_of(accumulator.payload()) == Usage(20, 10, 30)
    assert usage_of({"x_groq": "odd"}) is None


@pytest.mark.parametrize(
    ("chunks", "tokens"),
    [
        ([{"prompt_tokens": 25}, {"completion_tokens": 50}], Usage(25, 50, 75)),
        (
            [
                {"prompt_tokens": 25, "completion_tokens": 1, "total_tokens": 26},
                {"prompt_tokens": 0, "completion_tokens": 50, "total_tokens": 50},
            ],
            Usage(25, 50, 75),
        ),
        ([{"input_tokens": 5, "cache_read_input_tokens": 20}, {"output_tokens": 50}], Usage(25, 50, 75, 20)),
        ([{"prompt_tokens": 25, "completion_tokens": 50}, {"cost": 0.5}], Usage(25, 50, 75, cost=0.5)),
        ([{"prompt_tokens": 25, "completion_tokens": count} for count in range(51)], Usage(25, 50, 75)),
        ([{"prompt_tokens": 25, "completion_tokens": 50}, None, [], "x", 7], Usage(25, 50, 75)),
    ],
)
def test_a_stream_may_say_in_several_chunks_what_it_used(chunks, tokens):
    accumulator = ChoiceAccumulator(is_chat=True, expected=1)
    for usage in chunks:
        accumulator.add("", {"choices": [{"delta": {"content": "yes"}}], "usage": usage})
    accumulator.add("", {"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert usage_of(accumulator.payload()) == tokens


def test_the_usage_of_a_pack_is_shared_out_without_loss():
    usage = {"prompt_tokens": 37.25, "total_tokens": "38", "cost": 0.004}
    answer = {"data": [{"index": place, "embedding": [1.0]} for place in range(3)], "usage": usage}
    parts = [usage_of(part) for part in split_response(answer, [1, 5, 2])]
    assert sum(part.prompt_tokens for part in parts) == sum(part.total_tokens for part in parts) == 38
    assert sum(part.cost for part in parts) == pytest.approx(0.004)


NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.integers().map(str))
NAMES = ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens", "cost"]


@given(
    st.dictionaries(st.sampled_from(NAMES), NUMBERS),
    st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), NUMBERS),
)
def test_whatever_is_said_the_parts_add_up_and_are_parts(usage, details):
    said = {**usage, "prompt_tokens_details": details, "completion_tokens_details": details}
    found = usage_of({"choices": [], "usage": said})
    if found is None:
        return
    assert found.total_tokens == found.prompt_tokens + found.completion_tokens
    assert 0 <= found.reasoning_tokens <= found.completion_tokens
    assert 0 <= found.cached_tokens <= found.prompt_tokens
    assert found.cost is None or 0 <= found.cost < math.inf
    json.dumps(vars(found), allow_nan=False)
