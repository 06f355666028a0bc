"""Prices as users have them, and the one count of tokens and money."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal

import pytest

from chatpool import ConfigurationError, Usage
from chatpool.prices import Bill, Price, dollars, prices_of

LITELLM = {
    "sample_spec": {"max_tokens": "LEGACY", "input_cost_per_token": 0.0, "mode": "one of: chat, embedding"},
    "gpt-4o-mini": {
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "litellm_provider": "openai",
        "mode": "chat",
    },
    "text-embedding-3-small": {"input_cost_per_token": 2e-08, "output_cost_per_token": 0.0, "mode": "embedding"},
    "dall-e-3": {"input_cost_per_pixel": 2e-08, "mode": "image_generation"},
}


@pytest.mark.parametrize(
    ("given", "price"),
    [
        (2, Price(2)),
        (0.02, Price(0.02, 0.0)),
        ((2,), Price(2)),
        ((2, 8), Price(2, 8)),
        ([2, 8, 0.5], Price(2, 8, 0.5)),
        ((Decimal("0.15"), Decimal("0.6")), Price(0.15, 0.6)),
    ],
)
def test_one_two_or_three_numbers_are_the_price_of_every_model(given, price):
    assert prices_of(given).of_model("any") == prices_of({"m": given}).of_model("m") == price
    assert prices_of({"m": given}).of_model("other") is None


def test_a_file_in_the_form_of_litellm_is_read(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(LITELLM), encoding="utf-8")
    for given in (path, str(path), LITELLM):
        prices = prices_of(given)
        assert prices["gpt-4o-mini"] == Price(0.15, 0.6, 0.075)
        assert prices["text-embedding-3-small"] == Price(0.02)
        assert prices.of_model("dall-e-3") is None


def test_a_file_of_plain_figures_is_read_too(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text('\ufeff{"m": [0.15, 0.6], "e": 0.02}', encoding="utf-8")
    assert dict(prices_of(path)) == {"m": Price(0.15, 0.6), "e": Price(0.02)}


@pytest.mark.parametrize("text", ["[]", "{", "", '{"m": {"mode": "chat"}}'])
def test_a_file_that_has_no_prices_says_so(tmp_path, text):
    path = tmp_path / "prices.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="prices"):
        prices_of(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"prices cannot be read from .*none\.json"):
        prices_of(tmp_path / "none.json")


@pytest.mark.parametrize("given", [(), (1, 2, 3, 4), None, True, ("1", "2"), {"m": "1"}, {5: 1}, {"m": (True, 1)}])
def test_what_are_no_prices_is_a_type_error_that_names_them(given):
    with pytest.raises(TypeError, match="prices"):
        prices_of(given)


@pytest.mark.parametrize("figure", [-1, float("nan"), float("inf")])
def test_figures_have_to_be_possible(figure):
    for given in ((figure, 1), {"m": (1, figure)}, {"m": {"input_cost_per_token": figure}}):
        with pytest.raises(ConfigurationError, match="must not be negative"):
            prices_of(given)


def test_a_model_that_answers_under_its_dated_name_has_the_price_of_the_one_that_was_asked():
    prices = prices_of({"gpt-4o": (1, 2), "gpt-4o-2024-05-13": (3, 4)})
    assert prices.of_answer("gpt-4o", "gpt-4o-2024-08-06") == Price(1, 2)
    assert prices.of_answer(None, "gpt-4o-2024-08-06") == Price(1, 2)
    assert prices.of_answer(None, "gpt-4o-2024-05-13") == Price(3, 4)
    assert prices.of_answer(None, "openai/gpt-4o") == Price(1, 2)
    assert prices.of_model("gpt-4o-2024-08-06") is None  # what is asked for is not guessed


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-2024-05-13",
        "gpt-4o-2024-08-06",
        "openai/gpt-4o",
        "openai/gpt-4o-2024-05-13",
        "openrouter/openai/gpt-4o-2024-08-06",
        "gpt-4o@20240806",
    ],
)
def test_asked_or_answered_a_name_with_provider_and_date_has_one_price(name):
    given = {"gpt-4o": (1, 2), "gpt-4o-2024-05-13": (3, 4)}
    prices = prices_of(given)
    price = Price(3, 4) if "05-13" in name else Price(1, 2)
    assert prices.of_answer(name) == prices.of_answer(name, name) == prices.of_answer(None, name) == price
    assert prices.of_answer(name, "something-else") == prices.of_answer("something-else", name) == price
    assert prices_of({**given, name: (5, 6)}).of_answer(name, "gpt-4o") == Price(5, 6)


def test_cached_tokens_have_their_own_price_where_one_is_given():
    usage = Usage(1000, 100, 1100, cached_tokens=800)
    assert Price(2, 8).of(usage) == pytest.approx((1000 * 2 + 100 * 8) / 1e6)
    assert Price(2, 8, 0.5).of(usage) == pytest.approx((200 * 2 + 800 * 0.5 + 100 * 8) / 1e6)


def test_prices_are_values():
    prices = prices_of(LITELLM)
    assert pickle.loads(pickle.dumps(prices)) == prices
    assert hash(pickle.loads(pickle.dumps(prices))) == hash(prices)
    assert prices != prices_of((1, 2))
    assert "models" in repr(prices)


def test_a_bill_counts_what_servers_state_before_prices():
    bill = Bill(prices_of((1_000_000, 0)))
    bill.add(Usage(2, 5, 7))
    bill.add(Usage(2, 5, 7, cost=0.5))
    bill.add(None)
    assert (bill.usage, bill.cost, bill.note()) == (Usage(4, 10, 14), 2.5, "")


def test_a_bill_without_prices_knows_the_cost_if_servers_state_it():
    bill = Bill()
    assert bill.cost is None
    bill.add(Usage(1, 1, 2, cost=0.5))
    assert (bill.cost, bill.usage.cost) == (0.5, 0.5)
    bill.add(Usage(1, 1, 2), "m")
    assert (bill.cost, bill.usage.cost, bill.note()) == (0.5, None, "no price for m")


def test_a_name_of_the_model_that_is_none_spoils_no_bill():
    bill = Bill(prices_of({"m": (1, 1)}))
    for odd in (None, 7, {"name": "m"}, ["m"], ""):
        bill.add(Usage(1, 1, 2), "m", odd)
        bill.add(Usage(1, 1, 2), None, odd)
    assert bill.cost == pytest.approx(5 * 2e-6)
    assert bill.unpriced == {"": 5}


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "$0.00"),
        (0.00001, "less than $0.0001"),
        (0.0001, "$0.0001"),
        (0.00421, "$0.0042"),
        (0.01, "$0.01"),
        (1234.5, "$1,234.50"),
    ],
)
def test_sums_below_a_cent_show_four_digits(amount, shown):
    assert dollars(amount) == shown
