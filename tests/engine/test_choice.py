"""Which endpoint a call goes to: no threads, no sockets, no time but the one the test passes."""

from __future__ import annotations

import pytest

from chatpool import APIError, AuthenticationError, ConfigurationError
from chatpool._engine.endpoints import EndpointSpec
from chatpool._values import Verdict
from chatpool.config import Limits, RetryPolicy

OK, DOWN = Verdict("success", value="x"), Verdict("unavailable", error=APIError("down"))
WRONG_KEY = Verdict("fatal", "run", AuthenticationError("wrong key"))


def busy(wait):
    return Verdict("throttled", error=APIError("busy"), retry_after=wait)


def steady(seconds, verdict=OK):
    return lambda now: (seconds, verdict)


def limited(rate, seconds=0.05):
    """A server that takes ``rate`` calls a second and refuses the others with the exact wait."""
    free_at = [0.0]

    def answer(now):
        free_at[0] = max(free_at[0], now - 0.2)
        if free_at[0] > now:
            return 0.01, busy(free_at[0] - now)
        free_at[0] += 1 / rate
        return seconds, OK

    return answer


def test_equal_endpoints_share_the_calls(simulate):
    simulation = simulate({"a": steady(0.1), "b": steady(0.1)}, 10).submit(1000).run()
    assert 450 < simulation.sent_to("a") < 550
    assert len(simulation.succeeded) == 1000


def test_who_answers_sooner_gets_more_and_the_run_is_as_fast_as_it_can_be(simulate):
    simulation = simulate({"a": steady(0.1), "b": steady(1.0)}, 22).submit(2000).run()
    assert simulation.sent_to("a") > 8 * simulation.sent_to("b") > 0
    assert simulation.clock.time < 1.15 * 2000 * 0.1 / 20


def test_configured_limits_are_each_used_to_the_full(simulate):
    specs = [
        EndpointSpec(name, Limits(requests_per_minute=rate * 60)) for name, rate in (("a", 10), ("b", 20), ("c", 30))
    ]
    simulation = simulate(dict.fromkeys("abc", steady(0.05)), 30, specs).submit(1200).run()
    assert simulation.clock.time < 1.25 * 1200 / 60


@pytest.mark.slow
def test_found_limits_are_each_used_to_the_full(simulate):
    servers = {"a": limited(20), "b": limited(40), "c": limited(80)}
    simulation = simulate(servers, 40).submit(2800).run()
    assert len(simulation.succeeded) == 2800
    assert simulation.clock.time < 1.25 * 2800 / 140


def test_a_call_that_fails_is_sent_elsewhere_at_once_and_none_is_lost(simulate):
    simulation = simulate({"a": steady(0.1, DOWN), "b": steady(0.1)}, 8).submit(400).run()
    assert len(simulation.succeeded) == 400
    assert not simulation.failed
    # All that it costs: the attempts until the gate closes, and a probe now and then.
    assert simulation.sent_to("a") < 60
    assert simulation.clock.time < 1.3 * 400 * 0.1 / 8


def test_an_endpoint_that_comes_back_is_used_again(simulate):
    simulation = simulate({"a": lambda now: (0.1, DOWN if 2 <= now < 6 else OK), "b": steady(0.1)}, 10)
    simulation.submit(1200).run()
    assert len(simulation.succeeded) == 1200
    assert simulation.sent_to("a", 2, 6) < 60
    assert simulation.sent_to("a", 7.5, 9) > 40


def test_when_all_are_down_calls_wait_as_for_a_single_one(simulate):
    down = lambda now: (0.1, DOWN if now < 5 else OK)  # noqa: E731
    simulation = simulate({"a": down, "b": down}, 4, policy=RetryPolicy(max_retries=20)).submit(40).run()
    assert len(simulation.succeeded) == 40
    assert simulation.sent_to("a", 2, 5) + simulation.sent_to("b", 2, 5) < 20


def test_a_refused_key_costs_as_many_attempts_as_were_under_way(simulate):
    simulation = simulate({"a": steady(0.1, WRONG_KEY), "b": steady(0.1)}, 8).submit(400).run()
    assert len(simulation.succeeded) == 400
    assert simulation.sent_to("a") <= 8


def test_all_keys_refused_end_the_call_with_all_reasons(simulate):
    simulation = simulate({"a": steady(0.1, WRONG_KEY), "b": steady(0.1, WRONG_KEY)}, 1).submit(1).run()
    assert simulation.fatal[0] == "run"
    assert str(simulation.failed[0].error).count("wrong key") == 2


@pytest.mark.slow
def test_an_endpoint_that_hangs_gathers_hardly_any_calls(simulate):
    simulation = simulate({"a": lambda now: (0.1 if now < 2 else 600, OK), "b": steady(0.1)}, 16).submit(3000).run()
    hung = simulation.sent_to("a", 2, 30)
    assert hung <= 9  # half of the workers have a call there at that moment; then next to none
    assert sorted(simulation.succeeded)[-hung - 1] < 36


def test_a_call_that_only_one_has_room_for_is_not_lost_when_that_one_refuses_it(simulate):
    specs = [EndpointSpec("a"), EndpointSpec("b", Limits(tokens_per_minute=10))]
    simulation = simulate({"a": steady(0.1, WRONG_KEY), "b": steady(0.1)}, 1, specs).submit(1).run()
    assert [name for _, name in simulation.sends] == ["a"]
    ((_, call, outcome),) = simulation.outcomes
    assert call.upstream_key[0] == "b"
    assert isinstance(outcome.error, ConfigurationError)  # where it is too large


def test_a_rate_limit_of_one_does_not_hold_up_what_waits_behind_it(simulate):
    first = iter([(0.01, busy(30.0))])
    simulation = simulate({"a": lambda now: next(first, (0.1, OK)), "b": steady(0.1)}, 4).submit(100).run()
    assert simulation.clock.time < 5
