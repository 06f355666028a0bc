"""Adaptive limiter: its pauses, and what follows from rejections, failures and timeouts."""

from __future__ import annotations

import heapq
import random

import pytest

from chatpool._policy.adaptive.controller import AdaptiveLimiter, Backlog
from chatpool._policy.adaptive.random_rejections import LoadTrial, RandomRejections
from chatpool._policy.adaptive.slow_start import Unlimited
from chatpool._policy.adaptive.states import LimitedByConcurrency, LimitedByRate


def rejected(limiter, sent_at, now, hint):
    record = limiter.sent(sent_at)
    limiter.rejected(record, now, hint)


def fail(limiter, now, count, hint=None):
    """So many calls that were sent together fail one after the other."""
    for record in [limiter.sent(now) for _ in range(count)]:
        limiter.failed(record, now, hint)


def overloaded(state=None):
    """One whose failures are rejections, as is known, at time 0."""
    limiter = AdaptiveLimiter()
    fail(limiter, 0.0, 20)
    assert limiter.down is False
    if state is not None:
        limiter.state = state(limiter.send_log)
    return limiter


def by_concurrency(send_log):
    return LimitedByConcurrency(send_log, 5)


def by_rate(send_log):
    return LimitedByRate(send_log, 10.0, 0.0, 0.0)


class Run:
    """Workers that call a server as fast as they may; ``says(record, accepted)`` is how it takes a call.

    ``accepted`` are the calls that it works on.  Answers take 0.2 s, all else 5 ms.
    """

    def __init__(self, says, workers=32):
        self.limiter, self.now = AdaptiveLimiter(), 0.0
        self._says, self._workers = says, workers
        self._under_way = []
        self.endings = []

    def calls(self, count):
        """Make so many calls; returns how many of them ended as the others did not: rejected or failed."""
        began, sent = len(self.endings), 0
        while len(self.endings) < began + count:
            wait = self.limiter.wait(self.now)
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
        record = self.limiter.sent(self.now)
        ending = self._says(record, sum(one[2] == "accepted" for one in self._under_way))
        due = self.now + (0.2 if ending == "accepted" else 0.005)
        heapq.heappush(self._under_way, (due, record, ending))

    def _return(self, due, record, ending):
        self.now = due
        self.endings.append(ending)
        if ending == "accepted":
            self.limiter.accepted(record, due)
        elif ending == "rejected":
            self.limiter.rejected(record, due, None)
        else:
            self.limiter.failed(record, due, None)


def at_random(share, ending, seed=1):
    rng = random.Random(seed)
    return lambda record, accepted: ending if rng.random() < share else "accepted"


def beyond(limit, ending, chance=0.0, seed=1):
    rng = random.Random(seed)
    return lambda record, accepted: ending if accepted >= limit or rng.random() < chance else "accepted"


class TestPauses:
    def test_a_hint_pauses_everybody(self):
        limiter = AdaptiveLimiter()
        rejected(limiter, 0.0, 0.1, 2.0)
        assert limiter.wait(0.1) == pytest.approx(2.0)
        assert limiter.paused_for(1.1) == pytest.approx(1.0)
        assert limiter.paused_for(5.0) == 0

    def test_the_longest_hint_counts(self):
        limiter = AdaptiveLimiter()
        records = [limiter.sent(0.0) for _ in range(2)]
        limiter.rejected(records[0], 0.1, 3.0)
        limiter.rejected(records[1], 0.1, 1.0)
        assert limiter.paused_for(0.1) == pytest.approx(3.0)

    def test_a_hint_for_hours_does_not_stop_the_line_for_hours(self):
        limiter = AdaptiveLimiter()
        rejected(limiter, 0.0, 0.0, 86_400.0)
        assert limiter.paused_for(0.0) == 120

    def test_where_the_calls_in_flight_are_limited_nobody_is_paused(self):
        limiter = AdaptiveLimiter()
        limiter.state = by_concurrency(limiter.send_log)
        for _ in range(5):
            limiter.sent(0.0)
        rejected(limiter, 0.0, 0.1, 2.0)
        assert limiter.paused_for(0.1) == 0

    def test_without_hints_they_double_with_each_probe_that_is_rejected(self):
        limiter = AdaptiveLimiter()
        pauses, now = [], 0.0
        for _ in range(8):
            rejected(limiter, now, now, None)
            pauses.append(limiter.paused_for(now))
            now += 1.0
        assert pauses == pytest.approx([0.03, 0.06, 0.12, 0.24, 0.48, 0.96, 1.0, 1.0])

    def test_what_was_rejected_together_is_one_probe(self):
        limiter = AdaptiveLimiter()
        limiter.state = by_rate(limiter.send_log)
        rejected(limiter, 0.0, 0.0, None)
        for now, pauses in ((1.0, 2), (2.0, 4)):
            pause = pauses / limiter.state.rate
            for record in [limiter.sent(now) for _ in range(3)]:
                limiter.rejected(record, now, None)
            assert limiter.paused_for(now) == pytest.approx(pause, rel=0.25)  # the rate has fallen

    def test_only_the_first_call_after_a_pause_is_one(self):
        limiter = AdaptiveLimiter()
        rejected(limiter, 0.0, 0.0, None)
        limiter.sent(1.0)
        for now in (1.0, 2.0, 3.0):
            rejected(limiter, now, now, None)
        limiter.state = by_rate(limiter.send_log)
        rejected(limiter, 5.0, 5.0, None)
        assert limiter.paused_for(5.0) == pytest.approx(2 / 10)

    def test_something_accepted_in_between_makes_them_short_again(self):
        limiter = AdaptiveLimiter()
        for now in (0.0, 1.0, 2.0, 3.0):
            rejected(limiter, now, now, None)
        limiter.accepted(limiter.sent(4.0), 4.1)
        limiter.accepted(limiter.sent(4.2), 4.3)
        limiter.state = by_rate(limiter.send_log)
        rejected(limiter, 5.0, 5.0, None)
        assert limiter.paused_for(5.0) == pytest.approx(0.1)  # the time of one send


class TestNews:
    def test_what_was_on_its_way_when_a_rejection_came_is_none(self):
        limiter = AdaptiveLimiter()
        first, second = limiter.sent(0.0), limiter.sent(0.0)
        limiter.rejected(first, 0.1, 0.01)
        state = limiter.state
        assert isinstance(state, LoadTrial)
        limiter.rejected(second, 0.2, 0.01)
        assert limiter.state is state

    def test_calls_that_end_without_an_answer_are_only_counted_off(self):
        limiter = AdaptiveLimiter()
        limiter.sent(0.0)
        limiter.ended()
        assert limiter.send_log.in_flight == 0
        assert not limiter.limited

    @pytest.mark.parametrize("ending", ["rejected", "failed"])
    def test_a_limit_in_flight_is_found_whatever_it_is_called(self, ending):
        run = Run(beyond(8, ending))
        run.calls(1000)
        assert isinstance(run.limiter.state, LimitedByConcurrency)
        assert 7 <= run.limiter.state.limit <= 9
        assert run.calls(500) < 30

    @pytest.mark.parametrize("ending", ["rejected", "failed"])
    def test_a_limit_of_rate_is_found_whatever_it_is_called(self, ending):
        accepted = []

        def ten_a_second(record, under_way):
            if sum(at > record.sent_at - 1 for at in accepted[-20:]) >= 20:
                return ending
            accepted.append(record.sent_at)
            return "accepted"

        run = Run(ten_a_second)
        run.calls(600)
        assert run.limiter.state.why == "the server limits the rate"
        assert run.calls(300) < 40


class TestChance:
    @pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
    def test_random_rejections_slow_nothing_down(self, share):
        run = Run(at_random(share, "rejected"))
        run.calls(6000)
        assert run.limiter.state.why == "the server refuses some calls whatever their pace"
        began = run.now
        run.calls(3000)
        ideal = 3000 * (1 - share) * 0.2 / 32
        assert run.now - began < 1.3 * ideal

    def test_a_limit_is_found_among_random_rejections(self):
        run = Run(beyond(8, "rejected", chance=0.15))
        run.calls(4000)
        began = run.now
        run.calls(1000)
        assert run.now - began < 1.6 * 1000 * 0.85 * 0.2 / 8

    def test_it_tells_how_many_rejections_of_one_call_are_chance(self):
        limiter = AdaptiveLimiter()
        assert limiter.chance_rejections == 0
        limiter.state = RandomRejections(limiter.send_log, 0.3)
        rejected(limiter, 0.0, 0.1, None)
        assert limiter.chance_rejections == 7  # the longest series of a thousand calls

    def test_a_rejection_that_it_explains_neither_pauses_nor_changes_anything_where_there_is_a_limit(self):
        limiter = AdaptiveLimiter()
        limiter.state = RandomRejections(limiter.send_log, 0.3)
        rejected(limiter, 0.0, 0.0, None)
        limit = limiter.state = by_rate(limiter.send_log)
        for _ in range(9):
            limiter.accepted(limiter.sent(1.0), 1.1)
        rejected(limiter, 2.0, 2.0, 5.0)
        assert limiter.paused_for(2.0) == 0
        assert (limiter.state, limit.rate) == (limit, 10.0)

    def test_what_goes_beyond_it_is_the_limits(self):
        limiter = AdaptiveLimiter()
        limiter.state = RandomRejections(limiter.send_log, 0.3)
        rejected(limiter, 0.0, 0.0, None)
        limit = limiter.state = by_rate(limiter.send_log)
        for number in range(20):
            rejected(limiter, 2.0 + number, 2.0 + number, 0.1)
        assert limit.rate < 10.0

    def test_without_a_limit_each_rejection_is_news(self):
        limiter = AdaptiveLimiter()
        limiter.state = RandomRejections(limiter.send_log, 0.3)
        rejected(limiter, 0.0, 0.0, None)
        limiter.state = Unlimited(limiter.send_log)
        rejected(limiter, 1.0, 1.0, None)
        assert isinstance(limiter.state, LoadTrial)


class TestFailures:
    def test_a_few_are_chance(self):
        run = Run(at_random(0.1, "failed"))
        run.calls(2000)
        assert isinstance(run.limiter.state, Unlimited)
        assert not run.limiter.overloaded
        assert run.limiter.down is None

    def test_when_most_calls_fail_they_are_rejections(self):
        limiter = AdaptiveLimiter()
        overloaded = []
        for record in [limiter.sent(0.0) for _ in range(20)]:
            limiter.failed(record, 0.1, None)
            overloaded.append(limiter.overloaded)
        assert overloaded == sorted(overloaded)
        assert overloaded[-1]
        assert not isinstance(limiter.state, Unlimited)
        assert limiter.paused_for(0.1) == pytest.approx(0.03)

    def test_where_a_limit_is_known_they_say_something_about_it_then(self):
        limiter = overloaded(by_rate)
        fail(limiter, 1.0, 1)
        assert limiter.overloaded
        assert limiter.state.rate < 10.0

    def test_a_few_say_nothing_about_a_limit_that_is_known(self):
        limiter = AdaptiveLimiter()
        limit = limiter.state = by_rate(limiter.send_log)
        fail(limiter, 1.0, 1)
        assert not limiter.overloaded
        assert limit.rate == 10.0
        assert limiter.paused_for(1.0) == 0

    @pytest.mark.parametrize("share", [0.3, 0.4])
    def test_many_at_random_are_found_to_be_chance(self, share):
        run = Run(at_random(share, "failed"))
        run.calls(4000)
        began = run.now
        run.calls(4000)
        assert run.now - began < 1.5 * 4000 * (1 - share) * 0.2 / 32

    def test_once_they_are_they_are_no_rejections_any_more(self):
        seen, unlucky = [], at_random(0.4, "failed")

        def says(record, accepted):
            seen.append((isinstance(run.limiter.state, RandomRejections), run.limiter.down))
            return unlucky(record, accepted)

        run = Run(says)
        run.calls(2000)
        assert (False, False) in seen  # they were rejections at first
        assert any(is_random for is_random, _ in seen)

    def test_what_ends_otherwise_is_not_explained_by_the_load(self):
        limiter = overloaded()
        assert limiter.overloaded
        limiter.sent(1.0)
        limiter.ended()
        assert not limiter.overloaded

    def test_a_call_that_fails_whenever_it_is_alone_does_so_for_another_reason_than_the_load(self):
        limiter = AdaptiveLimiter()
        for now in range(20):
            fail(limiter, float(now), 1)
        assert not limiter.overloaded
        assert limiter.down is None
        assert limiter.wait(20.0) == 0

    def test_a_long_hint_does_not_keep_it_from_finding_out_whether_the_server_is_down(self):
        limiter = AdaptiveLimiter()
        fail(limiter, 0.0, 20, hint=30.0)
        assert limiter.paused_for(0.0) == 1.0

    def test_where_a_limit_is_known_a_long_hint_is_obeyed(self):
        limiter = overloaded(by_rate)
        fail(limiter, 5.0, 1, hint=30.0)
        assert limiter.paused_for(5.0) == 30.0


class TestOutages:
    def probe_in_vain(self, limiter, count):
        """So many probes fail, each after the pause of the one before; returns when the last one did."""
        now = 1.0
        for _ in range(count):
            now += limiter.wait(now)
            fail(limiter, now, 1)
        return now

    def test_as_long_as_failures_are_no_rejections_nothing_is_said(self):
        limiter = AdaptiveLimiter()
        fail(limiter, 0.0, 2)
        assert limiter.down is None

    def test_it_is_one_when_five_probes_in_a_row_fail(self):
        limiter = overloaded()
        self.probe_in_vain(limiter, 4)
        assert limiter.down is False
        self.probe_in_vain(limiter, 1)
        assert limiter.down is True

    def test_it_takes_more_where_some_calls_may_yet_be_answered(self):
        limiter = AdaptiveLimiter()
        limiter.sent(0.0)
        fail(limiter, 0.0, 20)
        self.probe_in_vain(limiter, 11)
        assert limiter.down is False
        self.probe_in_vain(limiter, 1)
        assert limiter.down is True

    def test_a_probe_that_is_answered_shows_that_it_was_none(self):
        limiter = overloaded()
        now = self.probe_in_vain(limiter, 4) + 2.0
        for _ in range(2):
            limiter.accepted(limiter.sent(now), now + 0.1)
        now += 1.0
        fail(limiter, now, 1)
        self.probe_in_vain(limiter, 1)
        assert limiter.down is False

    def test_after_one_everything_begins_anew(self):
        limiter = overloaded()
        now = self.probe_in_vain(limiter, 5) + 2.0
        limiter.accepted(limiter.sent(now), now + 0.1)
        limiter.restart()
        assert isinstance(limiter.state, Unlimited)
        assert limiter.down is None
        fail(limiter, now + 1, 1)
        assert not limiter.overloaded

    def test_where_more_than_that_was_answered_there_is_a_limit_that_stays_known(self):
        limiter = overloaded(by_concurrency)
        limit = limiter.state
        for _ in range(5):
            limiter.accepted(limiter.sent(1.0), 1.1)
        limiter.restart()
        assert limiter.state is limit
        assert limiter.down is False

    def test_a_limit_that_was_known_before_it_is_known_afterwards(self):
        limiter = AdaptiveLimiter()
        limit = limiter.state = by_rate(limiter.send_log)
        fail(limiter, 0.0, 20)
        now = self.probe_in_vain(limiter, 8) + 2.0  # a probe among them
        assert limiter.down is True
        limiter.accepted(limiter.sent(now), now + 0.1)
        limiter.restart()
        assert limiter.state is limit
        assert limiter.down is None

    def test_the_slow_start_begins_anew_after_one_unless_a_limit_is_known(self):
        limiter = AdaptiveLimiter()
        for now in [0.0] * 9 + [5.0] * 40:
            limiter.sent(now)
        assert limiter.wait(5.0) == 0
        limiter.restart()
        for _ in range(9):
            limiter.sent(6.0)
        assert limiter.wait(6.0) > 0
        rejected(limiter, 7.0, 7.0, 0.1)
        found = limiter.state
        limiter.restart()
        assert limiter.state is found
        assert not isinstance(found, Unlimited)


class TestTimeOuts:
    def crowded(self, latency):
        """One with 16 calls in flight at 100 s, whose answers took so long; their records as well."""
        limiter = AdaptiveLimiter()
        for _ in range(5):
            limiter.accepted(limiter.sent(0.0), latency)
        return limiter, [limiter.sent(100.0) for _ in range(16)]

    def test_under_load_fewer_are_sent_and_the_load_explains_them(self):
        limiter, records = self.crowded(latency=30.0)
        limiter.timed_out(records[0], 160.0)
        assert isinstance(limiter.state, Backlog)
        assert limiter.state.limit == 8
        assert limiter.overloaded
        limiter.timed_out(records[1], 160.0)
        assert limiter.overloaded
        assert limiter.state.limit == 8
        assert limiter.send_log.in_flight == 14

    def test_where_answers_come_soon_the_load_is_not_the_reason(self):
        limiter, records = self.crowded(latency=5.0)
        limiter.timed_out(records[0], 160.0)
        assert isinstance(limiter.state, Unlimited)
        assert not limiter.overloaded
        assert limiter.send_log.in_flight == 15

    def test_those_of_calls_sent_afterwards_are_explained_until_it_is_known_whether_fewer_help(self):
        limiter, records = self.crowded(latency=30.0)
        limiter.timed_out(records[0], 160.0)
        limiter.timed_out(limiter.sent(161.0), 221.0)
        assert limiter.overloaded
        assert limiter.state.limit == 8
        limiter.state.helps = True
        limiter.timed_out(limiter.sent(222.0), 282.0)
        assert not limiter.overloaded

    def test_where_most_time_out_again_without_a_limit_it_is_tried_again_with_fewer(self):
        limiter, records = self.crowded(latency=30.0)
        limiter.timed_out(records[0], 160.0)
        limiter.state.helps = False
        limiter.accepted(limiter.sent(160.0), 161.0)
        assert isinstance(limiter.state, Unlimited)
        for record in records[1:]:
            limiter.timed_out(record, 170.0)
        assert isinstance(limiter.state, Unlimited)  # 15 are too few
        later = [limiter.sent(171.0) for _ in range(16)]
        limiter.timed_out(later[0], 231.0)
        assert isinstance(limiter.state, Backlog)
        assert limiter.state.limit == 4

    def test_where_half_are_answered_it_is_not(self):
        limiter, records = self.crowded(latency=30.0)
        limiter.timed_out(records[0], 160.0)
        limiter.state.helps = False
        limiter.accepted(limiter.sent(160.0), 161.0)
        for _ in range(40):
            limiter.accepted(limiter.sent(170.0), 200.0)
            limiter.timed_out(limiter.sent(170.0), 230.0)
        assert isinstance(limiter.state, Unlimited)

    def test_where_even_one_alone_is_given_up_it_is_not_tried_again(self):
        limiter, records = self.crowded(latency=30.0)
        for record in records:
            limiter.timed_out(record, 160.0)
        now = 160.0
        for _ in range(16):  # four for each of 8, 4, 2 and 1
            limiter.timed_out(limiter.sent(now), now + 60.0)
            now += 60.0
        assert isinstance(limiter.state, Unlimited)
        later = [limiter.sent(now) for _ in range(16)]
        limiter.timed_out(later[0], now + 60.0)
        assert isinstance(limiter.state, Unlimited)

    def test_where_a_limit_is_known_nothing_follows(self):
        limiter, records = self.crowded(latency=30.0)
        limit = limiter.state = by_concurrency(limiter.send_log)
        limiter.timed_out(records[0], 160.0)
        assert limiter.state is limit
        assert not limiter.overloaded

    def test_where_fewer_do_not_help_all_are_sent_again_and_it_is_not_tried_again(self):
        limiter, records = self.crowded(latency=30.0)
        for record in records:
            limiter.timed_out(record, 160.0)
        now = 160.0
        while isinstance(limiter.state, Backlog):
            now += 1.0
            limiter.accepted(limiter.sent(now), now + 55.0)
        assert isinstance(limiter.state, Unlimited)
        later = [limiter.sent(now + 60.0) for _ in range(16)]
        limiter.timed_out(later[0], now + 120.0)
        assert isinstance(limiter.state, Unlimited)
        assert not limiter.overloaded
