"""Limits and budgets as settings."""

from __future__ import annotations

import pickle

import pytest

from chatpool import Budget, ConfigurationError, Limits


class TestLimits:
    def test_without_arguments_nothing_is_limited(self):
        limits = Limits()
        assert (limits.requests_per_minute, limits.tokens_per_minute, limits.burst) == (None, None, 1.0)
        assert not limits.any

    def test_they_are_values(self):
        assert Limits(requests_per_minute=5) == Limits(requests_per_minute=5)
        assert pickle.loads(pickle.dumps(Limits(tokens_per_minute=5))) == Limits(tokens_per_minute=5)
        with pytest.raises(AttributeError):
            Limits().burst = 2  # type: ignore[misc]

    @pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute"])
    @pytest.mark.parametrize("value", [0, 0.5, -1, float("nan"), float("inf")])
    def test_a_limit_is_at_least_one(self, name, value):
        with pytest.raises(ConfigurationError, match=name):
            Limits(**{name: value})

    @pytest.mark.parametrize("value", ["60", True, [60]])
    def test_a_limit_is_a_number(self, value):
        with pytest.raises(TypeError, match="requests_per_minute must be a number"):
            Limits(requests_per_minute=value)

    @pytest.mark.parametrize("value", [0, -1, 31])
    def test_a_burst_is_a_part_of_a_minute(self, value):
        with pytest.raises(ConfigurationError, match="burst"):
            Limits(burst=value)


class TestBudget:
    PRICES = {"m": (0.15, 0.6)}

    def test_it_is_a_value(self):
        budget = Budget(cost=5, prices=self.PRICES)
        assert budget == pickle.loads(pickle.dumps(budget))
        assert hash(budget) == hash(Budget(cost=5.0, prices={"m": [0.15, 0.6]}))
        with pytest.raises(TypeError):
            budget.prices["m"] = (0, 0)  # type: ignore[index]

    def test_a_budget_without_a_limit_is_none(self):
        with pytest.raises(ConfigurationError, match="tokens= or cost="):
            Budget(prices=self.PRICES)

    def test_a_cost_needs_prices(self):
        with pytest.raises(ConfigurationError, match="per million tokens"):
            Budget(cost=1.0)

    @pytest.mark.parametrize("prices", [{"m": ()}, {"m": (1, 2, 3, 4)}, {5: (1, 2)}, {"m": "12"}, [("m", (1, 2))]])
    def test_prices_are_one_to_three_numbers_by_model(self, prices):
        with pytest.raises(TypeError, match=r"budget\.prices"):
            Budget(cost=1.0, prices=prices)

    @pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
    def test_amounts_are_not_negative(self, value):
        with pytest.raises(ConfigurationError, match=r"budget\.tokens"):
            Budget(tokens=value)
        with pytest.raises(ConfigurationError, match=r"budget\.prices\['m'\]"):
            Budget(cost=1.0, prices={"m": (value, 1)})
