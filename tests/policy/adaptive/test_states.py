"""The rules by which a limit of rate and a limit of calls in flight are told apart."""

from __future__ import annotations

import pytest

from chatpool._policy.adaptive.send_log import Rejection, SendLog, SendRecord
from chatpool._policy.adaptive.states import LimitedByConcurrency, LimitedByRate, Probing


def refusal(in_flight, *, at=0.0, lately=50, accepted=100, hint=0.02):
    return Rejection(at, at, in_flight, accepted, lately, hint)


def tally(*, in_flight=0, finished=0, latency=0.0):
    made = SendLog()
    made.in_flight, made.finished, made.latency = in_flight, finished, latency
    return made


class Doubted:
    """A server in doubt, refused first with so many in flight."""

    def __init__(self, in_flight, *, pause=0.02):
        self.tally = tally(in_flight=in_flight)
        self.phase = Probing(self.tally, refusal(in_flight), pause)
        self.now = 0.0

    def finish(self, count):
        self.tally.finished += count

    def probe(self):
        """Wait until more than the limit may be sent."""
        before = self.phase.limit
        while self.phase.limit == before:
            self.tally.in_flight = self.phase.limit
            self.now += 0.01
            self.phase.wait(self.now)
        self.phase = self.phase.sent(self.now)
        return self

    def refuse(self, in_flight):
        self.phase = self.phase.refused(refusal(in_flight, at=self.now), 0.02)
        return self


class TestDoubt:
    def test_no_more_in_flight_than_was_accepted(self):
        doubted = Doubted(20)
        assert doubted.phase.limit == 20
        assert doubted.phase.wait(0.0) > 0

    def test_refusals_of_the_same_batch_correct_the_number(self):
        doubted = Doubted(20)
        doubted.phase.refused_too(refusal(14))
        assert doubted.phase.limit == 14

    def test_refused_with_nothing_in_flight_it_is_the_rate(self):
        assert isinstance(Doubted(3).refuse(0).phase, LimitedByRate)

    def test_refused_far_below_the_number_it_is_the_rate(self):
        assert isinstance(Doubted(20).refuse(14).phase, LimitedByRate)

    def test_refused_a_little_below_it_is_not_decided(self):
        assert isinstance(Doubted(20).refuse(16).phase, Probing)

    def test_accepted_clearly_beyond_the_number_it_is_the_rate(self):
        doubted = Doubted(20)
        for _ in range(3):
            assert isinstance(doubted.phase, Probing)
            doubted.probe()
        assert isinstance(doubted.phase, LimitedByRate)

    def test_refused_twice_below_what_was_accepted_it_is_the_rate(self):
        doubted = Doubted(10)
        for _ in range(2):
            doubted.phase.accepted(SendRecord(0.0, 9, 0), 0.0)
            doubted.refuse(8)
        assert isinstance(doubted.phase, LimitedByRate)

    def test_refused_twice_at_the_number_it_is_the_number(self):
        doubted = Doubted(20)
        doubted.finish(30)
        doubted.probe().refuse(20)
        assert isinstance(doubted.phase, Probing)
        doubted.probe().refuse(20)
        assert isinstance(doubted.phase, LimitedByConcurrency)
        assert doubted.phase.limit == 20

    def test_but_not_before_as_many_as_that_have_ended(self):
        doubted = Doubted(20)
        for _ in range(4):
            doubted.probe().refuse(20)
        assert isinstance(doubted.phase, Probing)

    def test_refusals_without_one_more_between_two_with_it_change_nothing(self):
        doubted = Doubted(20)
        doubted.finish(30)
        doubted.probe().refuse(20)
        doubted.refuse(19)
        doubted.probe().refuse(19)
        assert isinstance(doubted.phase, LimitedByConcurrency)

    def test_refused_at_the_number_now_and_then_after_very_many_answers_it_is_the_number(self):
        doubted = Doubted(20)
        for _ in range(2):
            assert isinstance(doubted.phase, Probing)
            doubted.finish(201)
            doubted.refuse(19)
        assert isinstance(doubted.phase, LimitedByConcurrency)

    def test_refused_at_the_number_without_one_more_nothing_is_decided(self):
        # With all places taken, whatever is refused is refused at that number.
        doubted = Doubted(20)
        doubted.finish(30)
        for _ in range(4):
            doubted.refuse(19)
            assert isinstance(doubted.phase, Probing)

    def test_a_rate_is_searched_for_from_what_was_accepted_lately(self):
        doubted = Doubted(20)
        found = doubted.phase.refused(refusal(0, lately=40), 0.02)
        assert found.rate == 40
        for hundredth in range(100):
            doubted.tally.send(hundredth / 100)
            found.wait(hundredth / 100)
        assert found.rate > 200


class TestByRate:
    def refused_at(self, phase, in_flight, times, *, crowd=2, of=10):
        """Refused so often at this number, with so many calls accepted before each."""
        for number in range(times):
            for _ in range(of):
                phase.accepted(SendRecord(0.0, crowd, 0), 0.0)
            phase = phase.refused(refusal(in_flight, at=10.0 * number), 0.02)
        return phase

    def test_it_paces(self):
        phase = LimitedByRate(tally(), 10.0, 0.0, 0.0)
        phase.sent(0.1)
        assert phase.wait(0.1) == pytest.approx(0.1)
        assert phase.limit is None

    def test_refused_three_times_with_more_in_flight_than_at_nearly_all_that_were_accepted_it_is_the_number(self):
        phase = LimitedByRate(tally(), 10.0, 0.0, 0.0)
        assert self.refused_at(phase, 8, 2) is phase
        assert isinstance(self.refused_at(phase, 8, 1), LimitedByConcurrency)

    def test_a_refusal_like_any_other_call_speaks_against_the_number(self):
        phase = LimitedByRate(tally(), 10.0, 0.0, 0.0)
        for _ in range(4):
            assert self.refused_at(phase, 8, 2) is phase
            assert self.refused_at(phase, 8, 1, crowd=8) is phase

    def test_too_few_accepted_calls_tell_nothing(self):
        phase = LimitedByRate(tally(), 10.0, 0.0, 0.0)
        assert self.refused_at(phase, 8, 10, of=4) is phase


class TestLeaping:
    """At a rate at which too much is refused, some calls are sent much faster now and then."""

    def after(self, refusals):
        """A limit of 10 a second that has been refused so often, with its tally and the time."""
        sends = SendLog()
        phase = LimitedByRate(sends, 10.0, 0.0, 0.0)
        return phase, sends, self.refuse_every_tenth(phase, sends, 0.0, refusals)

    def refuse_every_tenth(self, phase, sends, now, refusals):
        for _ in range(refusals):
            for _ in range(10):
                now += 0.1
                phase.wait(now)
                ticket = sends.send(now)
                phase.sent(now)
            told = sends.refuse(ticket, now, None)
            if not phase.expected(told, 0.02):
                phase.refused(told, 0.02)
        return now

    def leap(self, phase, sends, now, calls=24):
        """Send so many calls as soon as they may be sent; returns their tickets and the time."""
        tickets = []
        for _ in range(calls):
            now += phase.wait(now)
            phase = phase.sent(now)
            tickets.append(sends.send(now))
        return tickets, now

    def test_after_four_refusals_calls_follow_three_times_as_soon(self):
        for refusals, times in ((3, 1), (4, 3)):
            phase, sends, now = self.after(refusals)
            now += phase.wait(now)
            rate = phase.rate
            phase.sent(now)
            assert phase.wait(now) == pytest.approx(1 / rate / times, rel=0.1)

    def test_where_that_is_refused_nothing_follows_but_that_it_is_over(self):
        phase, sends, now = self.after(4)
        tickets, now = self.leap(phase, sends, now, 6)
        rate = phase.rate
        assert phase.expected(sends.refuse(tickets[2], now, None), 0.02)
        assert not phase.expected(sends.refuse(tickets[3], now, None), 0.02)
        assert phase.rate == rate
        assert phase.wait(now + 1.0) == 0
        phase.sent(now + 1.0)
        assert phase.wait(now + 1.0) == pytest.approx(1 / phase.rate, rel=0.1)

    def test_where_that_is_accepted_the_rate_was_not_the_reason(self):
        phase, sends, now = self.after(4)
        rate = phase.rate
        _, now = self.leap(phase, sends, now)
        phase.wait(now + 1.0)
        assert phase.rate >= 2.9 * rate

    def test_after_enough_refusals_far_below_it_they_are_known_to_be_chance(self):
        phase, sends, now = self.after(4)
        tickets, now = self.leap(phase, sends, now, 6)
        for ticket in tickets[2:4]:
            phase.expected(sends.refuse(ticket, now, None), 0.02)
        assert phase.chance == 0
        now = self.refuse_every_tenth(phase, sends, now, 16)
        _, now = self.leap(phase, sends, now)
        phase.wait(now + 1.0)
        assert phase.chance == pytest.approx(0.1, abs=0.01)


class TestByConcurrency:
    def at_limit(self, limit=20):
        counts = tally(in_flight=limit)
        return counts, LimitedByConcurrency(counts, limit)

    def test_it_pauses_nobody_and_has_no_rate(self):
        _, phase = self.at_limit()
        assert not phase.pauses_all
        assert phase.rate is None

    def test_a_probe_that_is_refused_changes_nothing(self):
        counts, phase = self.at_limit(4)
        for number in range(6):
            now = 10.0 * number
            while phase.limit == 4:
                phase.wait(now)
                now += 0.1
            phase.accepted(SendRecord(now, 3, 0), 0.0)
            assert phase.refused(refusal(4, at=now), 0.02) is phase
            assert phase.limit == 4

    def test_of_many_calls_some_are_held_back_for_a_moment_when_somebody_else_took_a_place(self):
        counts, phase = self.at_limit()
        phase.accepted(SendRecord(0.0, 19, 0), 0.1)
        assert phase.refused(refusal(19), 0.02) is phase
        assert phase.limit < 19

    def test_a_limit_that_fell_is_followed_down(self):
        counts, phase = self.at_limit(4)
        for in_flight in (3, 2, 1):
            phase = phase.refused(refusal(in_flight), 0.02)
        assert phase.limit == 1

    def test_refused_with_nothing_in_flight_it_is_the_rate(self):
        _, phase = self.at_limit()
        assert isinstance(phase.refused(refusal(0), 0.02), LimitedByRate)

    def test_refused_four_times_in_a_row_away_from_the_limit_it_is_the_rate(self):
        _, phase = self.at_limit()
        for in_flight in (15, 11, 8):
            phase = phase.refused(refusal(in_flight), 0.02)
            assert isinstance(phase, LimitedByConcurrency)
        assert isinstance(phase.refused(refusal(6), 0.02), LimitedByRate)

    def test_places_that_somebody_else_takes_are_no_sign_of_a_rate(self):
        counts, phase = self.at_limit(60)
        now = 0.0
        phase.accepted(SendRecord(0.0, 59, 0), 0.0)
        phase = phase.refused(refusal(59), 0.02)
        for _ in range(16):
            kept = phase.limit
            while phase.limit == kept:
                now += 0.1
                counts.in_flight = phase.limit
                phase.wait(now)
            assert phase.refused(refusal(kept), 0.02) is phase
        assert phase.limit < 20

    def test_a_refusal_after_many_answers_is_one_by_itself(self):
        counts, phase = self.at_limit(5)
        for _ in range(12):
            counts.finished += 30
            phase = phase.refused(refusal(4), 0.02)
        assert isinstance(phase, LimitedByConcurrency)

    def test_an_opinion_that_was_wrong_needs_more_votes_the_next_time(self):
        _, phase = self.at_limit()
        rate = phase.refused(refusal(0), 0.02)
        phase = TestByRate().refused_at(rate, 8, 5)
        assert isinstance(phase, LimitedByRate)
        assert isinstance(TestByRate().refused_at(phase, 8, 1), LimitedByConcurrency)
