"""Tokens, estimated before a request is sent."""

from __future__ import annotations

import pytest

from chatpool._policy.budget import TokenEstimator
from chatpool._values import RequestSize
from chatpool.types import Usage


def usage(prompt, completion):
    return Usage(prompt, completion, prompt + completion)


def test_four_bytes_are_a_token_and_max_tokens_are_counted():
    estimate = TokenEstimator().estimate(RequestSize(400, completion_limit=50))
    assert (estimate.prompt, estimate.completion, estimate.total) == (100, 50, 150)


def test_each_answer_that_is_asked_for_counts():
    assert TokenEstimator().estimate(RequestSize(0, completion_limit=50, choices=3)).completion == 150


def test_images_count_beside_the_text():
    assert TokenEstimator().estimate(RequestSize(400, other_tokens=800, completion_limit=1)).prompt == 900


def test_an_embedding_writes_nothing():
    assert TokenEstimator().estimate(RequestSize(400, choices=0)).total == 100


def test_the_ratio_and_the_length_of_answers_are_learned():
    estimator = TokenEstimator()
    for _ in range(5):
        estimator.learn(RequestSize(1000), usage(900, 40))  # Chinese, say
    estimate = estimator.estimate(RequestSize(100))
    assert estimate.prompt == pytest.approx(90)
    assert estimate.completion == pytest.approx(40)


def test_images_are_not_taken_for_text():
    estimator = TokenEstimator()
    estimator.learn(RequestSize(400, other_tokens=800), usage(900, 10))
    assert estimator.estimate(RequestSize(400)).prompt == pytest.approx(100)


def test_what_is_expected_is_less_than_what_is_allowed_where_answers_are_short():
    estimator = TokenEstimator()
    estimator.learn(RequestSize(400), usage(100, 30))
    size = RequestSize(400, completion_limit=4000)
    assert estimator.estimate(size).completion == 4000
    assert estimator.expected(size).completion == pytest.approx(30)


def test_an_answer_without_numbers_teaches_nothing():
    estimator = TokenEstimator()
    estimator.learn(RequestSize(0, choices=0), usage(0, 0))
    assert estimator.estimate(RequestSize(400, completion_limit=1)).prompt == 100


def test_one_absurd_answer_moves_what_is_usual_at_most_tenfold():
    estimator = TokenEstimator()
    estimator.learn(RequestSize(100), usage(10**9, 10**9))
    assert estimator.estimate(RequestSize(100)) == (250, 2560)


def test_many_long_answers_are_believed():
    estimator = TokenEstimator()
    for _ in range(20):
        estimator.learn(RequestSize(1000), usage(250, 20_000))
    assert 15_000 < estimator.estimate(RequestSize(100)).completion <= 20_000


def test_nothing_is_too_large_for_a_limit_because_other_answers_were_long():
    estimator = TokenEstimator(1000)
    for _ in range(20):
        estimator.learn(RequestSize(100), usage(10**6, 10**6))
    assert estimator.total(RequestSize(100)) == 1000
    assert estimator.total(RequestSize(100, completion_limit=950)) == 1050  # it says so itself
    assert estimator.total(RequestSize(2000)) > 2000
