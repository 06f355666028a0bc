"""States of the adaptive limiter: how a limit of rate and one of calls in flight are told apart."""

from __future__ import annotations

import pytest

from chatpool._policy.adaptive.send_log import Rejection, SendLog, SendRecord
from chatpool._policy.adaptive.states import LimitedByConcurrency, LimitedByRate, Probing


def rejection(in_flight, *, at=0.0, accept_rate=50, accepted=100, hint=0.02):
    return Rejection(at, at, in_flight, accepted, accept_rate, hint)


def send_log(*, in_flight=0, finished=0, latency=0.0):
    made = SendLog()
    made.in_flight, made.finished, made.latency = in_flight, finished, latency
    return made


class ProbedServer:
    """A server whose kind of limit is unknown, rejected first with so many in flight."""

    def __init__(self, in_flight, *, pause=0.02):
        self.send_log = send_log(in_flight=in_flight)
        self.state = Probing(self.send_log, rejection(in_flight), pause)
        self.now = 0.0

    def finish(self, count):
        self.send_log.finished += count

    def probe(self):
        """Wait until more than the limit may be sent."""
        before = self.state.limit
        while self.state.limit == before:
            self.send_log.in_flight = self.state.limit
            self.now += 0.01
            self.state.wait(self.now)
        self.state = self.state.sent(self.now)
        return self

    def reject(self, in_flight):
        self.state = self.state.rejected(rejection(in_flight, at=self.now), 0.02)
        return self


class TestProbing:
    def test_no_more_in_flight_than_was_accepted(self):
        doubted = ProbedServer(20)
        assert doubted.state.limit == 20
        assert doubted.state.wait(0.0) > 0

    def test_rejections_of_the_same_batch_correct_the_number(self):
        doubted = ProbedServer(20)
        doubted.state.also_rejected(rejection(14))
        assert doubted.state.limit == 14

    def test_rejected_with_nothing_in_flight_it_is_the_rate(self):
        assert isinstance(ProbedServer(3).reject(0).state, LimitedByRate)

    def test_rejected_far_below_the_number_it_is_the_rate(self):
        assert isinstance(ProbedServer(20).reject(14).state, LimitedByRate)

    def test_rejected_a_little_below_it_is_not_decided(self):
        assert isinstance(ProbedServer(20).reject(16).state, Probing)

    def test_accepted_clearly_beyond_the_number_it_is_the_rate(self):
        doubted = ProbedServer(20)
        for _ in range(3):
            assert isinstance(doubted.state, Probing)
            doubted.probe()
        assert isinstance(doubted.state, LimitedByRate)

    def test_rejected_twice_below_what_was_accepted_it_is_the_rate(self):
        doubted = ProbedServer(10)
        for _ in range(2):
            doubted.state.accepted(SendRecord(0.0, 9, 0), 0.0)
            doubted.reject(8)
        assert isinstance(doubted.state, LimitedByRate)

    def test_rejected_twice_at_the_number_it_is_the_number(self):
        doubted = ProbedServer(20)
        doubted.finish(30)
        doubted.probe().reject(20)
        assert isinstance(doubted.state, Probing)
        doubted.probe().reject(20)
        assert isinstance(doubted.state, LimitedByConcurrency)
        assert doubted.state.limit == 20

    def test_but_not_before_as_many_as_that_have_ended(self):
        doubted = ProbedServer(20)
        for _ in range(4):
            doubted.probe().reject(20)
        assert isinstance(doubted.state, Probing)

    def test_rejections_without_one_more_between_two_with_it_change_nothing(self):
        doubted = ProbedServer(20)
        doubted.finish(30)
        doubted.probe().reject(20)
        doubted.reject(19)
        doubted.probe().reject(19)
        assert isinstance(doubted.state, LimitedByConcurrency)

    def test_rejected_at_the_number_now_and_then_after_very_many_answers_it_is_the_number(self):
        doubted = ProbedServer(20)
        for _ in range(2):
            assert isinstance(doubted.state, Probing)
            doubted.finish(201)
            doubted.reject(19)
        assert isinstance(doubted.state, LimitedByConcurrency)

    def test_rejected_at_the_number_without_one_more_nothing_is_decided(self):
        # With all places taken, whatever is rejected is rejected at that number.
        doubted = ProbedServer(20)
        doubted.finish(30)
        for _ in range(4):
            doubted.reject(19)
            assert isinstance(doubted.state, Probing)

    def test_a_rate_is_searched_for_from_what_was_accepted_lately(self):
        doubted = ProbedServer(20)
        found = doubted.state.rejected(rejection(0, accept_rate=40), 0.02)
        assert found.rate == 40
        for hundredth in range(100):
            doubted.send_log.send(hundredth / 100)
            found.wait(hundredth / 100)
        assert found.rate > 200


class TestLimitedByRate:
    def rejected_at(self, state, in_flight, times, *, crowd=2, of=10):
        """Rejected so often at this number, with so many calls accepted before each."""
        for number in range(times):
            for _ in range(of):
                state.accepted(SendRecord(0.0, crowd, 0), 0.0)
            state = state.rejected(rejection(in_flight, at=10.0 * number), 0.02)
        return state

    def test_it_paces(self):
        state = LimitedByRate(send_log(), 10.0, 0.0, 0.0)
        state.sent(0.1)
        assert state.wait(0.1) == pytest.approx(0.1)
        assert state.limit is None

    def test_rejected_three_times_with_more_in_flight_than_at_nearly_all_that_were_accepted_it_is_the_number(self):
        state = LimitedByRate(send_log(), 10.0, 0.0, 0.0)
        assert self.rejected_at(state, 8, 2) is state
        assert isinstance(self.rejected_at(state, 8, 1), LimitedByConcurrency)

    def test_a_rejection_like_any_other_call_speaks_against_the_number(self):
        state = LimitedByRate(send_log(), 10.0, 0.0, 0.0)
        for _ in range(4):
            assert self.rejected_at(state, 8, 2) is state
            assert self.rejected_at(state, 8, 1, crowd=8) is state

    def test_too_few_accepted_calls_tell_nothing(self):
        state = LimitedByRate(send_log(), 10.0, 0.0, 0.0)
        assert self.rejected_at(state, 8, 10, of=4) is state


class TestRateProbe:
    """At a rate at which too much is rejected, some calls are sent much faster now and then."""

    def after(self, rejections):
        """A limit of 10 a second that has been rejected so often, with its send log and the time."""
        sends = SendLog()
        state = LimitedByRate(sends, 10.0, 0.0, 0.0)
        return state, sends, self.reject_every_tenth(state, sends, 0.0, rejections)

    def reject_every_tenth(self, state, sends, now, rejections):
        for _ in range(rejections):
            for _ in range(10):
                now += 0.1
                state.wait(now)
                record = sends.send(now)
                state.sent(now)
            told = sends.reject(record, now, None)
            if not state.ignores(told, 0.02):
                state.rejected(told, 0.02)
        return now

    def send_probe(self, state, sends, now, calls=24):
        """Send so many calls as soon as they may be sent; returns their records and the time."""
        records = []
        for _ in range(calls):
            now += state.wait(now)
            state = state.sent(now)
            records.append(sends.send(now))
        return records, now

    def test_after_four_rejections_calls_follow_three_times_as_soon(self):
        for rejections, times in ((3, 1), (4, 3)):
            state, sends, now = self.after(rejections)
            now += state.wait(now)
            rate = state.rate
            state.sent(now)
            assert state.wait(now) == pytest.approx(1 / rate / times, rel=0.1)

    def test_where_that_is_rejected_nothing_follows_but_that_it_is_over(self):
        state, sends, now = self.after(4)
        records, now = self.send_probe(state, sends, now, 6)
        rate = state.rate
        assert state.ignores(sends.reject(records[2], now, None), 0.02)
        assert not state.ignores(sends.reject(records[3], now, None), 0.02)
        assert state.rate == rate
        assert state.wait(now + 1.0) == 0
        state.sent(now + 1.0)
        assert state.wait(now + 1.0) == pytest.approx(1 / state.rate, rel=0.1)

    def test_where_that_is_accepted_the_rate_was_not_the_reason(self):
        state, sends, now = self.after(4)
        rate = state.rate
        _, now = self.send_probe(state, sends, now)
        state.wait(now + 1.0)
        assert state.rate >= 2.9 * rate

    def test_after_enough_rejections_far_below_it_they_are_known_to_be_chance(self):
        state, sends, now = self.after(4)
        records, now = self.send_probe(state, sends, now, 6)
        for record in records[2:4]:
            state.ignores(sends.reject(record, now, None), 0.02)
        assert state.random_share == 0
        now = self.reject_every_tenth(state, sends, now, 16)
        _, now = self.send_probe(state, sends, now)
        state.wait(now + 1.0)
        assert state.random_share == pytest.approx(0.1, abs=0.01)


class TestLimitedByConcurrency:
    def at_limit(self, limit=20):
        counts = send_log(in_flight=limit)
        return counts, LimitedByConcurrency(counts, limit)

    def test_it_pauses_nobody_and_has_no_rate(self):
        _, state = self.at_limit()
        assert not state.pauses_all
        assert state.rate is None

    def test_a_probe_that_is_rejected_changes_nothing(self):
        counts, state = self.at_limit(4)
        for number in range(6):
            now = 10.0 * number
            while state.limit == 4:
                state.wait(now)
                now += 0.1
            state.accepted(SendRecord(now, 3, 0), 0.0)
            assert state.rejected(rejection(4, at=now), 0.02) is state
            assert state.limit == 4

    def test_of_many_calls_some_are_held_back_for_a_moment_when_somebody_else_took_a_place(self):
        counts, state = self.at_limit()
        state.accepted(SendRecord(0.0, 19, 0), 0.1)
        assert state.rejected(rejection(19), 0.02) is state
        assert state.limit < 19

    def test_a_limit_that_fell_is_followed_down(self):
        counts, state = self.at_limit(4)
        for in_flight in (3, 2, 1):
            state = state.rejected(rejection(in_flight), 0.02)
        assert state.limit == 1

    def test_rejected_with_nothing_in_flight_it_is_the_rate(self):
        _, state = self.at_limit()
        assert isinstance(state.rejected(rejection(0), 0.02), LimitedByRate)

    def test_rejected_four_times_in_a_row_away_from_the_limit_it_is_the_rate(self):
        _, state = self.at_limit()
        for in_flight in (15, 11, 8):
            state = state.rejected(rejection(in_flight), 0.02)
            assert isinstance(state, LimitedByConcurrency)
        assert isinstance(state.rejected(rejection(6), 0.02), LimitedByRate)

    def test_places_that_somebody_else_takes_are_no_sign_of_a_rate(self):
        counts, state = self.at_limit(60)
        now = 0.0
        state.accepted(SendRecord(0.0, 59, 0), 0.0)
        state = state.rejected(rejection(59), 0.02)
        for _ in range(16):
            kept = state.limit
            while state.limit == kept:
                now += 0.1
                counts.in_flight = state.limit
                state.wait(now)
            assert state.rejected(rejection(kept), 0.02) is state
        assert state.limit < 20

    def test_a_rejection_after_many_answers_is_one_by_itself(self):
        counts, state = self.at_limit(5)
        for _ in range(12):
            counts.finished += 30
            state = state.rejected(rejection(4), 0.02)
        assert isinstance(state, LimitedByConcurrency)

    def test_an_opinion_that_was_wrong_needs_more_votes_the_next_time(self):
        _, state = self.at_limit()
        rate = state.rejected(rejection(0), 0.02)
        state = TestLimitedByRate().rejected_at(rate, 8, 5)
        assert isinstance(state, LimitedByRate)
        assert isinstance(TestLimitedByRate().rejected_at(state, 8, 1), LimitedByConcurrency)
