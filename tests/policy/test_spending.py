"""What a pool spends of its budget."""

from __future__ import annotations

import pytest

from chatpool._policy.budget import BudgetTracker, TokenEstimate
from chatpool.config import Budget
from chatpool.errors import BudgetExceededError, ConfigurationError
from chatpool.types import Usage

CALL = TokenEstimate(100, 100)


def send(spending, model="m", expected=CALL):
    reservation = spending.reservation(model, expected)
    spending.sent(reservation)
    return reservation


def used(spending, prompt, completion, model="m"):
    reservation = send(spending, model, TokenEstimate(prompt, completion))
    spending.returned(reservation, Usage(prompt, completion, prompt + completion), answered=True)


class TestTokens:
    def test_what_fits_may_be_sent(self):
        assert BudgetTracker(Budget(tokens=200)).refusal("m", CALL) is None

    def test_what_does_not_is_refused_and_the_reason_says_how_much_was_spent(self):
        spending = BudgetTracker(Budget(tokens=1000))
        used(spending, 500, 400)
        refusal = spending.refusal("m", CALL)
        assert isinstance(refusal, BudgetExceededError)
        assert "900 of 1,000 tokens are spent, the next call takes about 200" in str(refusal)

    def test_what_is_in_flight_is_counted_as_expected(self):
        spending = BudgetTracker(Budget(tokens=350))
        send(spending)
        assert spending.must_wait("m", CALL)

    def test_what_is_in_flight_may_take_less_than_expected(self):
        spending = BudgetTracker(Budget(tokens=350))
        spending.returned(send(spending), Usage(50, 50, 100), answered=True)
        assert not spending.must_wait("m", CALL)
        assert spending.refusal("m", CALL) is None

    def test_when_it_is_used_up_nothing_waits(self):
        spending = BudgetTracker(Budget(tokens=150))
        send(spending)
        used(spending, 100, 100)
        assert not spending.must_wait("m", CALL)
        assert isinstance(spending.refusal("m", CALL), BudgetExceededError)


class TestCost:
    BUDGET = Budget(cost=1.0, prices={"m": (1000.0, 4000.0), "cheap": (10, 40)})

    def test_tokens_are_priced_per_million_read_and_written(self):
        spending = BudgetTracker(self.BUDGET)
        used(spending, 100, 50)
        assert spending.cost == pytest.approx(0.1 + 0.2)

    def test_each_model_has_its_price(self):
        spending = BudgetTracker(self.BUDGET)
        used(spending, 300, 100)
        assert spending.refusal("m", TokenEstimate(100, 100)) is not None
        assert spending.refusal("cheap", TokenEstimate(100, 100)) is None

    def test_a_model_without_a_price_is_not_sent(self):
        refusal = BudgetTracker(self.BUDGET).refusal("other", CALL)
        assert isinstance(refusal, ConfigurationError)
        assert "no price for the model 'other'" in str(refusal)
        assert BudgetTracker(self.BUDGET).refusal(None, CALL) is not None


class TestReturning:
    def test_the_servers_word_counts(self):
        spending = BudgetTracker(Budget(tokens=1000))
        spending.returned(send(spending), Usage(10, 5, 15), answered=True)
        assert spending.tokens == 15

    def test_an_answer_without_usage_counts_as_expected(self):
        spending = BudgetTracker(Budget(tokens=1000))
        spending.returned(send(spending), None, answered=True)
        assert spending.tokens == 200

    def test_what_was_refused_costs_nothing(self):
        spending = BudgetTracker(Budget(tokens=200))
        spending.returned(send(spending), None, answered=False)
        assert spending.tokens == 0
        assert spending.refusal("m", CALL) is None

    def test_a_forked_child_has_nothing_in_flight(self):
        spending = BudgetTracker(Budget(tokens=300))
        send(spending)
        spending.forget_in_flight()
        assert spending.refusal("m", CALL) is None

    def test_it_is_exceeded_at_most_by_what_was_in_flight(self):
        spending, sent = BudgetTracker(Budget(tokens=10_000)), []
        while spending.refusal("m", CALL) is None:
            sent.append(send(spending))
        for reservation in sent:  # each takes twice what was expected
            spending.returned(reservation, Usage(200, 200, 400), answered=True)
        assert spending.tokens <= 10_000 + len(sent) * 200
        assert isinstance(spending.refusal("m", CALL), BudgetExceededError)


class TestMoneyAsItIsBilled:
    def test_a_stated_cost_counts_before_prices(self):
        spending = BudgetTracker(TestCost.BUDGET)
        spending.returned(send(spending), Usage(100, 50, 150, cost=0.75), answered=True)
        assert spending.cost == 0.75

    def test_cached_tokens_have_their_own_price(self):
        spending = BudgetTracker(Budget(cost=1.0, prices={"m": (1000.0, 4000.0, 100.0)}))
        spending.returned(send(spending), Usage(100, 0, 100, cached_tokens=80), answered=True)
        assert spending.cost == pytest.approx(0.02 + 0.008)

    def test_an_embedding_has_one_price(self):
        spending = BudgetTracker(Budget(cost=1.0, prices={"e": 1000.0}))
        used(spending, 100, 0, "e")
        assert spending.cost == pytest.approx(0.1)

    def test_one_price_may_be_that_of_every_model(self):
        spending = BudgetTracker(Budget(cost=1.0, prices=(1000.0, 4000.0)))
        assert spending.refusal("any", CALL) is None

    def test_nothing_read_or_nothing_written_beside_text_counts_as_expected(self):
        spending = BudgetTracker(Budget(tokens=10_000))
        spending.returned(send(spending), Usage(0, 7, 7), answered=True, wrote=True)
        assert spending.tokens == 107
        spending.returned(send(spending), Usage(7, 0, 7), answered=True, wrote=True)
        assert spending.tokens == 107 + 107
        spending.returned(send(spending), Usage(7, 0, 7), answered=True)
        assert spending.tokens == 107 + 107 + 7
