"""Refusals, failures and time-outs as news of what a server accepts, and the pauses after them."""

from __future__ import annotations

import heapq
import random

import pytest

from chatpool._policy.adaptive.controller import AdaptiveLimiter
from chatpool._policy.adaptive.overload import Backlog
from chatpool._policy.adaptive.random_rejections import LoadTrial, RandomRejections
from chatpool._policy.adaptive.slow_start import Unlimited
from chatpool._policy.adaptive.states import LimitedByConcurrency, LimitedByRate


def refused(admission, sent_at, now, hint):
    ticket = admission.sent(sent_at)
    admission.refused(ticket, now, hint)


def fail(admission, now, count, hint=None):
    """So many calls that were sent together fail one after the other."""
    for ticket in [admission.sent(now) for _ in range(count)]:
        admission.failed(ticket, now, hint)


def overloaded(phase=None):
    """One whose failures are refusals, as is known, at time 0."""
    admission = AdaptiveLimiter()
    fail(admission, 0.0, 20)
    assert admission.down is False
    if phase is not None:
        admission.phase = phase(admission.tally)
    return admission


def by_concurrency(tally):
    return LimitedByConcurrency(tally, 5)


def by_rate(tally):
    return LimitedByRate(tally, 10.0, 0.0, 0.0)


class Run:
    """Workers that call a server as fast as they may; ``says(ticket, accepted)`` is how it takes a call.

    ``accepted`` are the calls that it works on.  Answers take 0.2 s, all else 5 ms.
    """

    def __init__(self, says, workers=32):
        self.admission, self.now = AdaptiveLimiter(), 0.0
        self._says, self._workers = says, workers
        self._under_way = []
        self.endings = []

    def calls(self, count):
        """Make so many calls; returns how many of them ended as the others did not: refused or failed."""
        began, sent = len(self.endings), 0
        while len(self.endings) < began + count:
            wait = self.admission.wait(self.now)
            if wait <= 0 and sent < count and len(self._under_way) < self._workers:
                self._send()
                sent += 1
                continue
            due = [self.now + wait] if sent < count and len(self._under_way) < self._workers else []
            if self._under_way and self._under_way[0][0] <= min(due, default=float("inf")):
                self._return(*heapq.heappop(self._under_way))
            else:
                self.now = due[0]
        return sum(ending != "accepted" for ending in self.endings[began:])

    def _send(self):
        ticket = self.admission.sent(self.now)
        ending = self._says(ticket, sum(one[2] == "accepted" for one in self._under_way))
        due = self.now + (0.2 if ending == "accepted" else 0.005)
        heapq.heappush(self._under_way, (due, ticket, ending))

    def _return(self, due, ticket, ending):
        self.now = due
        self.endings.append(ending)
        if ending == "accepted":
            self.admission.accepted(ticket, due)
        elif ending == "refused":
            self.admission.refused(ticket, due, None)
        else:
            self.admission.failed(ticket, due, None)


def at_random(share, ending, seed=1):
    rng = random.Random(seed)
    return lambda ticket, accepted: ending if rng.random() < share else "accepted"


def beyond(limit, ending, chance=0.0, seed=1):
    rng = random.Random(seed)
    return lambda ticket, accepted: ending if accepted >= limit or rng.random() < chance else "accepted"


class TestPauses:
    def test_a_hint_pauses_everybody(self):
        admission = AdaptiveLimiter()
        refused(admission, 0.0, 0.1, 2.0)
        assert admission.wait(0.1) == pytest.approx(2.0)
        assert admission.paused_for(1.1) == pytest.approx(1.0)
        assert admission.paused_for(5.0) == 0

    def test_the_longest_hint_counts(self):
        admission = AdaptiveLimiter()
        tickets = [admission.sent(0.0) for _ in range(2)]
        admission.refused(tickets[0], 0.1, 3.0)
        admission.refused(tickets[1], 0.1, 1.0)
        assert admission.paused_for(0.1) == pytest.approx(3.0)

    def test_a_hint_for_hours_does_not_stop_the_line_for_hours(self):
        admission = AdaptiveLimiter()
        refused(admission, 0.0, 0.0, 86_400.0)
        assert admission.paused_for(0.0) == 120

    def test_where_the_calls_in_flight_are_limited_nobody_is_paused(self):
        admission = AdaptiveLimiter()
        admission.phase = by_concurrency(admission.tally)
        for _ in range(5):
            admission.sent(0.0)
        refused(admission, 0.0, 0.1, 2.0)
        assert admission.paused_for(0.1) == 0

    def test_without_hints_they_double_with_each_probe_that_is_refused(self):
        admission = AdaptiveLimiter()
        pauses, now = [], 0.0
        for _ in range(8):
            refused(admission, now, now, None)
            pauses.append(admission.paused_for(now))
            now += 1.0
        assert pauses == pytest.approx([0.03, 0.06, 0.12, 0.24, 0.48, 0.96, 1.0, 1.0])

    def test_what_was_refused_together_is_one_probe(self):
        admission = AdaptiveLimiter()
        admission.phase = by_rate(admission.tally)
        refused(admission, 0.0, 0.0, None)
        for now, pauses in ((1.0, 2), (2.0, 4)):
            pause = pauses / admission.phase.rate
            for ticket in [admission.sent(now) for _ in range(3)]:
                admission.refused(ticket, now, None)
            assert admission.paused_for(now) == pytest.approx(pause, rel=0.25)  # the rate has fallen

    def test_only_the_first_call_after_a_pause_is_one(self):
        admission = AdaptiveLimiter()
        refused(admission, 0.0, 0.0, None)
        admission.sent(1.0)
        for now in (1.0, 2.0, 3.0):
            refused(admission, now, now, None)
        admission.phase = by_rate(admission.tally)
        refused(admission, 5.0, 5.0, None)
        assert admission.paused_for(5.0) == pytest.approx(2 / 10)

    def test_something_accepted_in_between_makes_them_short_again(self):
        admission = AdaptiveLimiter()
        for now in (0.0, 1.0, 2.0, 3.0):
            refused(admission, now, now, None)
        admission.accepted(admission.sent(4.0), 4.1)
        admission.accepted(admission.sent(4.2), 4.3)
        admission.phase = by_rate(admission.tally)
        refused(admission, 5.0, 5.0, None)
        assert admission.paused_for(5.0) == pytest.approx(0.1)  # the time of one send


class TestNews:
    def test_what_was_on_its_way_when_a_refusal_came_is_none(self):
        admission = AdaptiveLimiter()
        first, second = admission.sent(0.0), admission.sent(0.0)
        admission.refused(first, 0.1, 0.01)
        phase = admission.phase
        assert isinstance(phase, LoadTrial)
        admission.refused(second, 0.2, 0.01)
        assert admission.phase is phase

    def test_calls_that_end_without_an_answer_are_only_counted_off(self):
        admission = AdaptiveLimiter()
        admission.sent(0.0)
        admission.ended()
        assert admission.tally.in_flight == 0
        assert not admission.limited

    @pytest.mark.parametrize("ending", ["refused", "failed"])
    def test_a_limit_in_flight_is_found_whatever_it_is_called(self, ending):
        run = Run(beyond(8, ending))
        run.calls(1000)
        assert isinstance(run.admission.phase, LimitedByConcurrency)
        assert 7 <= run.admission.phase.limit <= 9
        assert run.calls(500) < 30

    @pytest.mark.parametrize("ending", ["refused", "failed"])
    def test_a_limit_of_rate_is_found_whatever_it_is_called(self, ending):
        accepted = []

        def ten_a_second(ticket, under_way):
            if sum(at > ticket.sent_at - 1 for at in accepted[-20:]) >= 20:
                return ending
            accepted.append(ticket.sent_at)
            return "accepted"

        run = Run(ten_a_second)
        run.calls(600)
        assert run.admission.phase.why == "the server limits the rate"
        assert run.calls(300) < 40


class TestChance:
    @pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
    def test_random_refusals_slow_nothing_down(self, share):
        run = Run(at_random(share, "refused"))
        run.calls(6000)
        assert run.admission.phase.why == "the server refuses some calls whatever their pace"
        began = run.now
        run.calls(3000)
        ideal = 3000 * (1 - share) * 0.2 / 32
        assert run.now - began < 1.3 * ideal

    def test_a_limit_is_found_among_random_refusals(self):
        run = Run(beyond(8, "refused", chance=0.15))
        run.calls(4000)
        began = run.now
        run.calls(1000)
        assert run.now - began < 1.6 * 1000 * 0.85 * 0.2 / 8

    def test_it_tells_how_many_refusals_of_one_call_are_chance(self):
        admission = AdaptiveLimiter()
        assert admission.chance == 0
        admission.phase = RandomRejections(admission.tally, 0.3)
        refused(admission, 0.0, 0.1, None)
        assert admission.chance == 7  # the longest series of a thousand calls

    def test_a_refusal_that_it_explains_neither_pauses_nor_changes_anything_where_there_is_a_limit(self):
        admission = AdaptiveLimiter()
        admission.phase = RandomRejections(admission.tally, 0.3)
        refused(admission, 0.0, 0.0, None)
        limit = admission.phase = by_rate(admission.tally)
        for _ in range(9):
            admission.accepted(admission.sent(1.0), 1.1)
        refused(admission, 2.0, 2.0, 5.0)
        assert admission.paused_for(2.0) == 0
        assert (admission.phase, limit.rate) == (limit, 10.0)

    def test_what_goes_beyond_it_is_the_limits(self):
        admission = AdaptiveLimiter()
        admission.phase = RandomRejections(admission.tally, 0.3)
        refused(admission, 0.0, 0.0, None)
        limit = admission.phase = by_rate(admission.tally)
        for number in range(20):
            refused(admission, 2.0 + number, 2.0 + number, 0.1)
        assert limit.rate < 10.0

    def test_without_a_limit_each_refusal_is_news(self):
        admission = AdaptiveLimiter()
        admission.phase = RandomRejections(admission.tally, 0.3)
        refused(admission, 0.0, 0.0, None)
        admission.phase = Unlimited(admission.tally)
        refused(admission, 1.0, 1.0, None)
        assert isinstance(admission.phase, LoadTrial)


class TestFailures:
    def test_a_few_are_chance(self):
        run = Run(at_random(0.1, "failed"))
        run.calls(2000)
        assert isinstance(run.admission.phase, Unlimited)
        assert not run.admission.explained
        assert run.admission.down is None

    def test_when_most_calls_fail_they_are_refusals(self):
        admission = AdaptiveLimiter()
        explained = []
        for ticket in [admission.sent(0.0) for _ in range(20)]:
            admission.failed(ticket, 0.1, None)
            explained.append(admission.explained)
        assert explained == sorted(explained)
        assert explained[-1]
        assert not isinstance(admission.phase, Unlimited)
        assert admission.paused_for(0.1) == pytest.approx(0.03)

    def test_where_a_limit_is_known_they_say_something_about_it_then(self):
        admission = overloaded(by_rate)
        fail(admission, 1.0, 1)
        assert admission.explained
        assert admission.phase.rate < 10.0

    def test_a_few_say_nothing_about_a_limit_that_is_known(self):
        admission = AdaptiveLimiter()
        limit = admission.phase = by_rate(admission.tally)
        fail(admission, 1.0, 1)
        assert not admission.explained
        assert limit.rate == 10.0
        assert admission.paused_for(1.0) == 0

    @pytest.mark.parametrize("share", [0.3, 0.4])
    def test_many_at_random_are_found_to_be_chance(self, share):
        run = Run(at_random(share, "failed"))
        run.calls(4000)
        began = run.now
        run.calls(4000)
        assert run.now - began < 1.5 * 4000 * (1 - share) * 0.2 / 32

    def test_once_they_are_they_are_no_refusals_any_more(self):
        seen, unlucky = [], at_random(0.4, "failed")

        def says(ticket, accepted):
            seen.append((isinstance(run.admission.phase, RandomRejections), run.admission.down))
            return unlucky(ticket, accepted)

        run = Run(says)
        run.calls(2000)
        assert (False, False) in seen  # they were refusals at first
        assert any(erratic for erratic, _ in seen)

    def test_what_ends_otherwise_is_not_explained_by_the_load(self):
        admission = overloaded()
        assert admission.explained
        admission.sent(1.0)
        admission.ended()
        assert not admission.explained

    def test_a_call_that_fails_whenever_it_is_alone_does_so_for_another_reason_than_the_load(self):
        admission = AdaptiveLimiter()
        for now in range(20):
            fail(admission, float(now), 1)
        assert not admission.explained
        assert admission.down is None
        assert admission.wait(20.0) == 0

    def test_a_long_hint_does_not_keep_it_from_finding_out_whether_the_server_is_down(self):
        admission = AdaptiveLimiter()
        fail(admission, 0.0, 20, hint=30.0)
        assert admission.paused_for(0.0) == 1.0

    def test_where_a_limit_is_known_a_long_hint_is_obeyed(self):
        admission = overloaded(by_rate)
        fail(admission, 5.0, 1, hint=30.0)
        assert admission.paused_for(5.0) == 30.0


class TestOutages:
    def probe_in_vain(self, admission, count):
        """So many probes fail, each after the pause of the one before; returns when the last one did."""
        now = 1.0
        for _ in range(count):
            now += admission.wait(now)
            fail(admission, now, 1)
        return now

    def test_as_long_as_failures_are_no_refusals_nothing_is_said(self):
        admission = AdaptiveLimiter()
        fail(admission, 0.0, 2)
        assert admission.down is None

    def test_it_is_one_when_five_probes_in_a_row_fail(self):
        admission = overloaded()
        self.probe_in_vain(admission, 4)
        assert admission.down is False
        self.probe_in_vain(admission, 1)
        assert admission.down is True

    def test_it_takes_more_where_some_calls_may_yet_be_answered(self):
        admission = AdaptiveLimiter()
        admission.sent(0.0)
        fail(admission, 0.0, 20)
        self.probe_in_vain(admission, 11)
        assert admission.down is False
        self.probe_in_vain(admission, 1)
        assert admission.down is True

    def test_a_probe_that_is_answered_shows_that_it_was_none(self):
        admission = overloaded()
        now = self.probe_in_vain(admission, 4) + 2.0
        for _ in range(2):
            admission.accepted(admission.sent(now), now + 0.1)
        now += 1.0
        fail(admission, now, 1)
        self.probe_in_vain(admission, 1)
        assert admission.down is False

    def test_after_one_everything_begins_anew(self):
        admission = overloaded()
        now = self.probe_in_vain(admission, 5) + 2.0
        admission.accepted(admission.sent(now), now + 0.1)
        admission.restart()
        assert isinstance(admission.phase, Unlimited)
        assert admission.down is None
        fail(admission, now + 1, 1)
        assert not admission.explained

    def test_where_more_than_that_was_answered_there_is_a_limit_that_stays_known(self):
        admission = overloaded(by_concurrency)
        limit = admission.phase
        for _ in range(5):
            admission.accepted(admission.sent(1.0), 1.1)
        admission.restart()
        assert admission.phase is limit
        assert admission.down is False

    def test_a_limit_that_was_known_before_it_is_known_afterwards(self):
        admission = AdaptiveLimiter()
        limit = admission.phase = by_rate(admission.tally)
        fail(admission, 0.0, 20)
        now = self.probe_in_vain(admission, 8) + 2.0  # a leap among them
        assert admission.down is True
        admission.accepted(admission.sent(now), now + 0.1)
        admission.restart()
        assert admission.phase is limit
        assert admission.down is None

    def test_the_ramp_begins_anew_after_one_unless_a_limit_is_known(self):
        admission = AdaptiveLimiter()
        for now in [0.0] * 9 + [5.0] * 40:
            admission.sent(now)
        assert admission.wait(5.0) == 0
        admission.restart()
        for _ in range(9):
            admission.sent(6.0)
        assert admission.wait(6.0) > 0
        refused(admission, 7.0, 7.0, 0.1)
        found = admission.phase
        admission.restart()
        assert admission.phase is found
        assert not isinstance(found, Unlimited)


class TestTimeOuts:
    def crowded(self, latency):
        """One with 16 calls in flight at 100 s, whose answers took so long; their tickets as well."""
        admission = AdaptiveLimiter()
        for _ in range(5):
            admission.accepted(admission.sent(0.0), latency)
        return admission, [admission.sent(100.0) for _ in range(16)]

    def test_under_load_fewer_are_sent_and_the_load_explains_them(self):
        admission, tickets = self.crowded(latency=30.0)
        admission.given_up(tickets[0], 160.0)
        assert isinstance(admission.phase, Backlog)
        assert admission.phase.limit == 8
        assert admission.explained
        admission.given_up(tickets[1], 160.0)
        assert admission.explained
        assert admission.phase.limit == 8
        assert admission.tally.in_flight == 14

    def test_where_answers_come_soon_the_load_is_not_the_reason(self):
        admission, tickets = self.crowded(latency=5.0)
        admission.given_up(tickets[0], 160.0)
        assert isinstance(admission.phase, Unlimited)
        assert not admission.explained
        assert admission.tally.in_flight == 15

    def test_those_of_calls_sent_afterwards_are_not_explained(self):
        admission, tickets = self.crowded(latency=30.0)
        admission.given_up(tickets[0], 160.0)
        admission.given_up(admission.sent(161.0), 221.0)
        assert not admission.explained
        assert admission.phase.limit == 8

    def test_where_even_one_alone_is_given_up_it_is_not_tried_again(self):
        admission, tickets = self.crowded(latency=30.0)
        for ticket in tickets:
            admission.given_up(ticket, 160.0)
        now = 160.0
        for _ in range(16):  # four for each of 8, 4, 2 and 1
            admission.given_up(admission.sent(now), now + 60.0)
            now += 60.0
        assert isinstance(admission.phase, Unlimited)
        later = [admission.sent(now) for _ in range(16)]
        admission.given_up(later[0], now + 60.0)
        assert isinstance(admission.phase, Unlimited)

    def test_where_a_limit_is_known_nothing_follows(self):
        admission, tickets = self.crowded(latency=30.0)
        limit = admission.phase = by_concurrency(admission.tally)
        admission.given_up(tickets[0], 160.0)
        assert admission.phase is limit
        assert not admission.explained

    def test_where_fewer_do_not_help_all_are_sent_again_and_it_is_not_tried_again(self):
        admission, tickets = self.crowded(latency=30.0)
        for ticket in tickets:
            admission.given_up(ticket, 160.0)
        now = 160.0
        while isinstance(admission.phase, Backlog):
            now += 1.0
            admission.accepted(admission.sent(now), now + 55.0)
        assert isinstance(admission.phase, Unlimited)
        later = [admission.sent(now + 60.0) for _ in range(16)]
        admission.given_up(later[0], now + 120.0)
        assert isinstance(admission.phase, Unlimited)
        assert not admission.explained
