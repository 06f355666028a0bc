"""The rules of a shared limit, on a clock that is set by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quota_agreement import SECOND

from chatpool._quota import gcra
from chatpool._quota.gcra import Rates, State
from chatpool._values import LATENESS_SECONDS

MINUTE = 60.0


def ask(state, now, rates, tokens=0.0, max_wait=1e9, sharer=1.0):
    return gcra.reserve(state, now, rates, requests=1.0, tokens=tokens, max_wait=max_wait, sharer=sharer)


def most_in_a_minute(taken):
    """The most that falls into any minute of ``[(time, amount)]``."""
    return max(
        (sum(amount for at, amount in taken if start <= at < start + MINUTE - 1e-6) for start, _ in taken), default=0.0
    )


def test_callers_are_served_in_the_order_in_which_they_asked_each_at_its_own_moment():
    rates, state = Rates.of(60, None, 1.0), State()
    assert [ask(state, 100.0, rates).wait for _ in range(4)] == pytest.approx([0, SECOND, 2 * SECOND, 3 * SECOND])


def test_a_burst_goes_out_at_once_after_a_quiet_time():
    rates, state = Rates.of(600, None, 1.0), State()
    waits = [ask(state, 100.0, rates).wait for _ in range(12)]
    assert waits[:10] == pytest.approx([0] * 10, abs=1e-6)
    assert waits[10] > 0.05
    quiet = 100.0 + MINUTE
    assert [ask(state, quiet, rates).wait for _ in range(10)] == pytest.approx([0] * 10, abs=1e-6)


def test_the_scarcer_resource_decides():
    rates = Rates.of(60, 600, 1.0)
    state = State()
    waits = [ask(state, 0.0, rates, tokens=30).wait for _ in range(3)]
    assert waits[1] == pytest.approx(30 * rates.tokens.emission)
    assert waits[2] == pytest.approx(60 * rates.tokens.emission)


def test_a_small_call_does_not_overtake_a_large_one():
    rates, state = Rates.of(None, 600, 1.0), State()
    large = ask(state, 0.0, rates, tokens=300)
    larger = ask(state, 0.0, rates, tokens=300)
    small = ask(state, 0.0, rates, tokens=1)
    assert large.at <= larger.at <= small.at


def test_nothing_is_reserved_for_who_has_no_time_to_wait():
    rates, state = Rates.of(60, None, 1.0), State()
    ask(state, 0.0, rates)
    refused = ask(state, 0.0, rates, max_wait=0.5)
    assert (refused.granted, refused.wait) == (False, pytest.approx(SECOND))
    assert ask(state, 0.0, rates).wait == pytest.approx(SECOND)


def test_tokens_that_were_not_needed_are_given_back():
    rates, state = Rates.of(None, 600, 1.0), State()
    first = ask(state, 0.0, rates, tokens=300)
    gcra.correct(state, 0.0, rates, at=first.at, tokens=-300.0)
    assert ask(state, 0.0, rates, tokens=10).wait == 0


def test_tokens_that_were_needed_besides_are_paid_for():
    rates, state = Rates.of(None, 600, 1.0), State()
    first = ask(state, 0.0, rates, tokens=10)
    gcra.correct(state, 0.0, rates, at=first.at, tokens=100.0)
    assert ask(state, 0.0, rates, tokens=10).wait == pytest.approx(110 * rates.tokens.emission)


def test_however_much_many_calls_took_it_is_paid_for_within_about_a_minute():
    rates, state = Rates.of(None, 600, 1.0), State()
    given = [ask(state, 0.0, rates, tokens=1) for _ in range(10)]
    for each in given:
        gcra.correct(state, 0.0, rates, at=each.at, tokens=599.0)
    assert ask(state, 0.0, rates, tokens=10).wait <= 65


def test_a_pause_holds_everybody_and_ends_without_a_burst():
    rates, state = Rates.of(600, None, 1.0), State()
    ask(state, 0.0, rates)
    gcra.pause(state, 0.0, rates, seconds=5.0)
    waits = [ask(state, 0.0, rates).wait for _ in range(3)]
    emission = rates.requests.emission
    assert waits == pytest.approx([5 + emission, 5 + 2 * emission, 5 + 3 * emission])
    assert gcra.status(state, 1.0, rates).paused_for == 4.0


def test_without_limits_only_a_pause_holds_anybody():
    rates, state = Rates.of(None, None, 1.0), State()
    assert [ask(state, 10.0, rates, tokens=1e6).wait for _ in range(3)] == [0, 0, 0]
    gcra.pause(state, 10.0, rates, seconds=2.0)
    assert ask(state, 10.0, rates).wait == 2.0


def test_who_has_not_asked_for_long_is_no_sharer_any_more():
    rates, state = Rates.of(60, None, 1.0), State()
    assert ask(state, 0.0, rates, sharer=1.0).sharers == 1
    assert ask(state, 1.0, rates, sharer=2.0).sharers == 2
    assert ask(state, 1000.0, rates, sharer=2.0).sharers == 1


def test_the_state_stays_small():
    rates, state = Rates.of(60_000, 60_000_000, 1.0), State()
    for number in range(3000):
        ask(state, number * 0.2, rates, tokens=1, sharer=float(number))
    assert len(state.window) <= 62
    assert len(state.seen) <= 256


def test_a_clock_that_begins_anew_holds_nobody_up():
    rates, state = Rates.of(60, None, 1.0), State()
    ask(state, 1e6, rates)
    assert ask(state, 5.0, rates).wait <= 1.0 + 1.0  # its turn, and what is left of a second of the old clock


def test_on_a_clock_that_begins_anew_a_minutes_tokens_are_there_again_after_a_minute():
    rates, state = Rates.of(None, 600, 1.0), State()
    ask(state, 1e6, rates, tokens=600)
    assert 50 < ask(state, 5.0, rates, tokens=600).wait <= 63


def test_nobody_can_give_back_more_than_was_reserved():
    rates, state = Rates.of(None, 600, 30.0), State()
    first = ask(state, 0.0, rates, tokens=300)
    gcra.correct(state, 0.0, rates, at=first.at, tokens=-3000.0)
    assert ask(state, 0.0, rates, tokens=600).wait == 0
    assert ask(state, 0.0, rates, tokens=100).wait >= 60


steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve"] * 6 + ["refund", "pause", "back"]),
        st.floats(0.0, 20.0),  # seconds that pass before it
        st.floats(0.0, 1.0),  # a share: of the limit for an amount, of an amount for a refund
    ),
    max_size=60,
)


class Sharers:
    """Plays steps; remembers in true time what was given."""

    def __init__(self, rates):
        self.rates, self.state = rates, State()
        self.true = self.clock = 1e4
        self.given = []  # [true moment, tokens, its moment on the clock]

    def play(self, step, seconds, share):
        self.true += seconds
        self.clock += seconds
        if step == "reserve":
            tokens = round(share * share * self.rates.tokens.limit)
            found = ask(self.state, self.clock, self.rates, tokens=tokens, max_wait=120.0)
            if found.granted:
                self.given.append([self.true + found.wait, tokens, found.at])
        elif step == "refund" and self.given:
            last = self.given[-1]
            less = last[1] * share
            last[1] -= less
            gcra.correct(self.state, self.clock, self.rates, at=last[2], tokens=-less)
        elif step == "pause":
            gcra.pause(self.state, self.clock, self.rates, seconds=share)
        elif step == "back":
            self.clock -= 1e4 * share
            self.given = [[at, tokens, None] for at, tokens, _ in self.given]


@given(steps, st.integers(1, 200), st.integers(10, 10_000), st.floats(0.05, 30.0))
def test_no_minute_ever_holds_more_than_the_limit(played, per_minute, tokens_per_minute, burst):
    sharers = Sharers(Rates.of(per_minute, tokens_per_minute, burst))
    for step, seconds, share in played:
        if step == "refund" and sharers.given and sharers.given[-1][2] is None:
            continue  # of a moment on the clock before it was set back
        sharers.play(step, seconds, share)
    late = random.Random(0)
    sent = [(at + late.uniform(0, LATENESS_SECONDS), tokens) for at, tokens, _ in sharers.given]  # as they may be sent
    if burst <= 29:  # with a burst of more than half a minute's worth some is emitted all the same
        assert most_in_a_minute([(at, 1.0) for at, _ in sent]) <= per_minute + 1e-6
    assert most_in_a_minute(sent) <= tokens_per_minute + 1e-3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.1, 5))
def test_giving_everything_back_never_gives_more_than_there_was(shares, burst):
    rates = Rates.of(None, 1000, burst)
    state = State()
    for share in shares:
        found = ask(state, 50.0, rates, tokens=1000 * share)
        gcra.correct(state, 50.0, rates, at=found.at, tokens=-1000.0 * share)
    fresh = [ask(State(), 2000.0, rates, tokens=10).wait]
    assert ask(state, 2000.0, rates, tokens=10).wait >= fresh[0]
    assert state.tokens_due >= 0


@given(st.lists(st.floats(0, 3), min_size=50, max_size=200), st.integers(30, 3000))
def test_who_asks_all_the_time_is_given_the_whole_limit(gaps, per_minute):
    rates, state, now = Rates.of(per_minute, None, 1.0), State(), 0.0
    found = [ask(state, now, rates) for _ in range(per_minute * 3)]
    assert found[-1].at <= 3 * (MINUTE + LATENESS_SECONDS) * per_minute / (per_minute - rates.requests.burst + 1) + 1e-6
