"""Settings: shorthands become values once; what cannot work is refused by name."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from chatpool import Budget, ConfigurationError, RetryPolicy, Timeout, config
from chatpool.config import choice, positive_int, positive_seconds

SECONDS = st.floats(min_value=0.001, max_value=1_000_000)


def test_a_timeout_has_the_documented_defaults():
    assert Timeout() == Timeout(connect=5.0, read=None, attempt=600.0, total=1800.0)


def test_a_number_limits_one_attempt():
    assert Timeout.of(10) == Timeout(attempt=10)


def test_a_pair_is_connect_and_read():
    assert Timeout.of((2, 30)) == Timeout(connect=2, read=30)


def test_none_in_a_pair_means_the_default():
    assert Timeout.of((None, None)) == Timeout()


@given(connect=SECONDS, read=SECONDS, attempt=SECONDS, total=SECONDS)
def test_a_shorthand_keeps_what_it_does_not_say(connect, read, attempt, total):
    base = Timeout(connect=connect, read=read, attempt=attempt, total=total)
    assert Timeout.of(7, base) == Timeout(connect=connect, read=read, attempt=7, total=total)
    assert Timeout.of((1, 2), base) == Timeout(connect=1, read=2, attempt=attempt, total=total)
    assert Timeout.of(base) is base


@pytest.mark.parametrize("name", ["connect", "read", "attempt", "total"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 5_000_000])
def test_a_time_limit_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=rf"timeout\.{name} must be more than 0 .* got {value!r}"):
        Timeout(**{name: value})


@pytest.mark.parametrize("name", ["connect", "attempt", "total"])
@pytest.mark.parametrize("value", ["5", True, [5], None])
def test_a_time_limit_of_a_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=rf"timeout\.{name} must be a number of seconds"):
        Timeout(**{name: value})


@pytest.mark.parametrize("value", ["10", None, True, (1, 2, 3), [1, 2], {"read": 1}])
def test_what_is_no_timeout_is_refused_with_what_would_be_one(value):
    with pytest.raises(TypeError, match=r"timeout must be a number of seconds .* or a chatpool\.Timeout"):
        Timeout.of(value)


def test_an_unknown_limit_is_a_type_error():
    with pytest.raises(TypeError, match="write"):
        Timeout(write=1)


def test_a_timeout_cannot_be_changed():
    with pytest.raises(AttributeError):
        Timeout().total = 3


def test_a_retry_policy_has_the_documented_defaults():
    policy = RetryPolicy()
    assert (policy.max_retries, policy.max_timeout_retries) == (8, 2)
    assert (policy.wait_initial, policy.wait_max, policy.retry_after_max) == (0.25, 60.0, 120.0)
    assert (policy.retry_if, policy.stop, policy.wait) == (None, None, None)
    assert policy.patience == 30.0


def test_an_int_is_the_number_of_retries():
    assert RetryPolicy.of(3) == RetryPolicy(max_retries=3)


@pytest.mark.parametrize("policy", [RetryPolicy(max_retries=8), RetryPolicy.of(8), RetryPolicy(max_retries=0)])
def test_who_gives_a_number_of_retries_is_not_patient_beyond_it(policy):
    assert policy.patience == 0.0


def test_patience_may_be_given_beside_a_number_of_retries():
    policy = RetryPolicy(max_retries=3, patience=5)
    assert (policy.max_retries, policy.patience) == (3, 5.0)


def test_other_settings_leave_patience_as_it_is():
    assert RetryPolicy(wait_initial=1, max_timeout_retries=0).patience == 30.0


@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(max_retries=3), RetryPolicy(max_retries=3, patience=5)])
def test_a_copy_of_a_policy_keeps_its_patience(policy):
    assert dataclasses.replace(policy) == policy
    assert dataclasses.replace(policy, wait_initial=1).patience == policy.patience
    assert pickle.loads(pickle.dumps(policy)).patience == policy.patience


def test_a_policy_is_taken_as_it_is():
    policy = RetryPolicy(max_retries=1)
    assert RetryPolicy.of(policy) is policy


def test_tenacitys_strategies_are_taken():
    stop, wait = tenacity.stop_after_attempt(20), tenacity.wait_random_exponential(min=1, max=60)
    policy = RetryPolicy(stop=stop, wait=wait)
    assert (policy.stop, policy.wait) == (stop, wait)


@pytest.mark.parametrize("name", ["max_retries", "max_timeout_retries"])
def test_a_negative_number_of_retries_is_refused_by_name(name):
    with pytest.raises(ConfigurationError, match=f"{name} must be 0 or more, got -1"):
        RetryPolicy(**{name: -1})


@pytest.mark.parametrize("value", ["30", True, [30]])
def test_patience_of_a_wrong_type_is_refused_by_name(value):
    with pytest.raises(TypeError, match="patience must be a number of seconds"):
        RetryPolicy(patience=value)


@pytest.mark.parametrize("name", ["max_retries", "max_timeout_retries"])
@pytest.mark.parametrize("value", [1.5, "3", True, (3,)])
def test_a_number_of_retries_of_a_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a whole number"):
        RetryPolicy(**{name: value})


def test_no_number_of_retries_means_the_default_and_of_timeouts_is_none():
    assert RetryPolicy(max_retries=None) == RetryPolicy()
    with pytest.raises(TypeError, match="max_timeout_retries must be a whole number"):
        RetryPolicy(max_timeout_retries=None)


@pytest.mark.parametrize("name", ["patience", "wait_initial", "wait_max", "retry_after_max"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_wait_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} must be at least 0"):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize("name", ["patience", "wait_initial", "wait_max", "retry_after_max"])
def test_a_wait_may_be_zero(name):
    assert getattr(RetryPolicy(**{name: 0}), name) == 0.0


@pytest.mark.parametrize("name", ["retry_if", "stop", "wait"])
def test_a_strategy_has_to_be_callable(name):
    with pytest.raises(TypeError, match=f"{name} must be callable"):
        RetryPolicy(**{name: 20})


@pytest.mark.parametrize("value", [1.5, "3", True, None])
def test_what_is_no_retry_policy_is_refused_with_what_would_be_one(value):
    with pytest.raises(TypeError, match=r"retry must be an int \(max_retries\) or a chatpool\.RetryPolicy"):
        RetryPolicy.of(value)


@pytest.mark.parametrize("settings", [Timeout(total=3), RetryPolicy(max_retries=1)])
def test_settings_pickle(settings):
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_choice_names_the_choices():
    assert choice("on_error", "raise", ("none", "raise")) == "raise"
    with pytest.raises(ConfigurationError, match="on_error must be one of 'none', 'raise', got 'ignore'"):
        choice("on_error", "ignore", ("none", "raise"))


@pytest.mark.parametrize(("value", "error"), [(0, ConfigurationError), (1.5, TypeError), (True, TypeError)])
def test_a_count_is_a_whole_number_from_one(value, error):
    assert positive_int("max_workers", 1) == 1
    with pytest.raises(error, match="max_workers must be"):
        positive_int("max_workers", value)


def test_seconds_are_positive():
    assert positive_seconds("run_timeout", 3) == 3.0
    with pytest.raises(ConfigurationError, match="run_timeout must be more than 0"):
        positive_seconds("run_timeout", 0)


class BudgetOf010:
    """Pickles as a budget of version 0.1.0 did."""

    def __reduce__(self):
        return config._restore_budget, (None, 5.0, {"m": (1.0, 2.0)})


def test_a_budget_that_0_1_0_has_pickled_comes_back():
    assert pickle.loads(pickle.dumps(BudgetOf010())) == Budget(cost=5, prices={"m": (1, 2)})
