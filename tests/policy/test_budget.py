"""Budgets, and the tokens that a request is expected to take."""

from __future__ import annotations

import pytest

from chatpool._measures import RequestSize
from chatpool._policy.budget import BudgetTracker, TokenEstimate, TokenEstimator
from chatpool.config import Budget
from chatpool.errors import BudgetExceededError, ConfigurationError
from chatpool.types import Usage

CALL = TokenEstimate(100, 100)


def send(tracker, model="m", expected=CALL):
    reservation = tracker.reservation(model, expected)
    tracker.sent(reservation)
    return reservation


def used(tracker, prompt, completion, model="m"):
    reservation = send(tracker, model, TokenEstimate(prompt, completion))
    tracker.returned(reservation, Usage(prompt, completion, prompt + completion), answered=True)


class TestTokens:
    def test_what_fits_may_be_sent(self):
        assert BudgetTracker(Budget(tokens=200)).rejection("m", CALL) is None

    def test_what_does_not_is_rejected_and_the_reason_says_how_much_was_spent(self):
        tracker = BudgetTracker(Budget(tokens=1000))
        used(tracker, 500, 400)
        rejection = tracker.rejection("m", CALL)
        assert isinstance(rejection, BudgetExceededError)
        assert "900 of 1,000 tokens are spent, the next call takes about 200" in str(rejection)

    def test_what_is_in_flight_is_counted_as_expected(self):
        tracker = BudgetTracker(Budget(tokens=350))
        send(tracker)
        assert tracker.would_exceed("m", CALL)

    def test_what_is_in_flight_may_take_less_than_expected(self):
        tracker = BudgetTracker(Budget(tokens=350))
        tracker.returned(send(tracker), Usage(50, 50, 100), answered=True)
        assert not tracker.would_exceed("m", CALL)
        assert tracker.rejection("m", CALL) is None

    def test_when_it_is_used_up_nothing_waits(self):
        tracker = BudgetTracker(Budget(tokens=150))
        send(tracker)
        used(tracker, 100, 100)
        assert not tracker.would_exceed("m", CALL)
        assert isinstance(tracker.rejection("m", CALL), BudgetExceededError)


class TestCost:
    BUDGET = Budget(cost=1.0, prices={"m": (1000.0, 4000.0), "cheap": (10, 40)})

    def test_tokens_are_priced_per_million_read_and_written(self):
        tracker = BudgetTracker(self.BUDGET)
        used(tracker, 100, 50)
        assert tracker.cost == pytest.approx(0.1 + 0.2)

    def test_each_model_has_its_price(self):
        tracker = BudgetTracker(self.BUDGET)
        used(tracker, 300, 100)
        assert tracker.rejection("m", TokenEstimate(100, 100)) is not None
        assert tracker.rejection("cheap", TokenEstimate(100, 100)) is None

    def test_a_model_without_a_price_is_not_sent(self):
        rejection = BudgetTracker(self.BUDGET).rejection("other", CALL)
        assert isinstance(rejection, ConfigurationError)
        assert "no price for the model 'other'" in str(rejection)
        assert BudgetTracker(self.BUDGET).rejection(None, CALL) is not None


class TestReturning:
    def test_the_servers_word_counts(self):
        tracker = BudgetTracker(Budget(tokens=1000))
        tracker.returned(send(tracker), Usage(10, 5, 15), answered=True)
        assert tracker.tokens == 15

    def test_an_answer_without_usage_counts_as_expected(self):
        tracker = BudgetTracker(Budget(tokens=1000))
        tracker.returned(send(tracker), None, answered=True)
        assert tracker.tokens == 200

    def test_what_was_rejected_costs_nothing(self):
        tracker = BudgetTracker(Budget(tokens=200))
        tracker.returned(send(tracker), None, answered=False)
        assert tracker.tokens == 0
        assert tracker.rejection("m", CALL) is None

    def test_a_forked_child_has_nothing_in_flight(self):
        tracker = BudgetTracker(Budget(tokens=300))
        send(tracker)
        tracker.forget_in_flight()
        assert tracker.rejection("m", CALL) is None

    def test_it_is_exceeded_at_most_by_what_was_in_flight(self):
        tracker, sent = BudgetTracker(Budget(tokens=10_000)), []
        while tracker.rejection("m", CALL) is None:
            sent.append(send(tracker))
        for reservation in sent:  # each takes twice what was expected
            tracker.returned(reservation, Usage(200, 200, 400), answered=True)
        assert tracker.tokens <= 10_000 + len(sent) * 200
        assert isinstance(tracker.rejection("m", CALL), BudgetExceededError)


class TestMoneyAsItIsBilled:
    def test_a_stated_cost_counts_before_prices(self):
        tracker = BudgetTracker(TestCost.BUDGET)
        tracker.returned(send(tracker), Usage(100, 50, 150, cost=0.75), answered=True)
        assert tracker.cost == 0.75

    def test_cached_tokens_have_their_own_price(self):
        tracker = BudgetTracker(Budget(cost=1.0, prices={"m": (1000.0, 4000.0, 100.0)}))
        tracker.returned(send(tracker), Usage(100, 0, 100, cached_tokens=80), answered=True)
        assert tracker.cost == pytest.approx(0.02 + 0.008)

    def test_an_embedding_has_one_price(self):
        tracker = BudgetTracker(Budget(cost=1.0, prices={"e": 1000.0}))
        used(tracker, 100, 0, "e")
        assert tracker.cost == pytest.approx(0.1)

    def test_one_price_may_be_that_of_every_model(self):
        tracker = BudgetTracker(Budget(cost=1.0, prices=(1000.0, 4000.0)))
        assert tracker.rejection("any", CALL) is None

    def test_nothing_read_or_nothing_written_beside_text_counts_as_expected(self):
        tracker = BudgetTracker(Budget(tokens=10_000))
        tracker.returned(send(tracker), Usage(0, 7, 7), answered=True, wrote=True)
        assert tracker.tokens == 107
        tracker.returned(send(tracker), Usage(7, 0, 7), answered=True, wrote=True)
        assert tracker.tokens == 107 + 107
        tracker.returned(send(tracker), Usage(7, 0, 7), answered=True)
        assert tracker.tokens == 107 + 107 + 7


def usage(prompt, completion):
    return Usage(prompt, completion, prompt + completion)


class TestTokenEstimator:
    def test_four_bytes_are_a_token_and_max_tokens_are_counted(self):
        estimate = TokenEstimator().estimate(RequestSize(400, completion_limit=50))
        assert (estimate.prompt, estimate.completion, estimate.total) == (100, 50, 150)

    def test_each_answer_that_is_asked_for_counts(self):
        assert TokenEstimator().estimate(RequestSize(0, completion_limit=50, choices=3)).completion == 150

    def test_images_count_beside_the_text(self):
        assert TokenEstimator().estimate(RequestSize(400, other_tokens=800, completion_limit=1)).prompt == 900

    def test_an_embedding_writes_nothing(self):
        assert TokenEstimator().estimate(RequestSize(400, choices=0)).total == 100

    def test_the_ratio_and_the_length_of_answers_are_learned(self):
        estimator = TokenEstimator()
        for _ in range(5):
            estimator.learn(RequestSize(1000), usage(900, 40))  # Chinese, say
        estimate = estimator.estimate(RequestSize(100))
        assert estimate.prompt == pytest.approx(90)
        assert estimate.completion == pytest.approx(40)

    def test_images_are_not_taken_for_text(self):
        estimator = TokenEstimator()
        estimator.learn(RequestSize(400, other_tokens=800), usage(900, 10))
        assert estimator.estimate(RequestSize(400)).prompt == pytest.approx(100)

    def test_what_is_expected_is_less_than_what_is_allowed_where_answers_are_short(self):
        estimator = TokenEstimator()
        estimator.learn(RequestSize(400), usage(100, 30))
        size = RequestSize(400, completion_limit=4000)
        assert estimator.estimate(size).completion == 4000
        assert estimator.expected(size).completion == pytest.approx(30)

    def test_an_answer_without_numbers_teaches_nothing(self):
        estimator = TokenEstimator()
        estimator.learn(RequestSize(0, choices=0), usage(0, 0))
        assert estimator.estimate(RequestSize(400, completion_limit=1)).prompt == 100

    def test_one_absurd_answer_moves_what_is_usual_at_most_tenfold(self):
        estimator = TokenEstimator()
        estimator.learn(RequestSize(100), usage(10**9, 10**9))
        assert estimator.estimate(RequestSize(100)) == (250, 2560)

    def test_many_long_answers_are_believed(self):
        estimator = TokenEstimator()
        for _ in range(20):
            estimator.learn(RequestSize(1000), usage(250, 20_000))
        assert 15_000 < estimator.estimate(RequestSize(100)).completion <= 20_000

    def test_nothing_is_too_large_for_a_limit_because_other_answers_were_long(self):
        estimator = TokenEstimator(1000)
        for _ in range(20):
            estimator.learn(RequestSize(100), usage(10**6, 10**6))
        assert estimator.total(RequestSize(100)) == 1000
        assert estimator.total(RequestSize(100, completion_limit=950)) == 1050  # it says so itself
        assert estimator.total(RequestSize(2000)) > 2000
