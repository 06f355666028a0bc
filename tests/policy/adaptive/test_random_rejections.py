"""Finding out whether refusals depend on the load."""

from __future__ import annotations

import math
import random

import pytest

from chatpool._policy.adaptive.random_rejections import LoadTrial, RandomRejections
from chatpool._policy.adaptive.send_log import Rejection, SendLog
from chatpool._policy.adaptive.slow_start import Unlimited
from chatpool._policy.adaptive.states import Probing

LATENCY, TURNAROUND = 0.2, 0.005  # seconds until an answer, and until a refusal
WORKERS = 64


class Server:
    """Answers and refuses calls by a clock of its own; ``phase`` is what has been concluded from it.

    Args:
        in_flight: calls that were sent at once, before anything came back.
    """

    def __init__(self, in_flight):
        self.tally, self.now = SendLog(), 0.0
        self.under_way = [(self.tally.send(0.0), LATENCY) for _ in range(in_flight)]
        self.phase = Unlimited(self.tally)

    def refuse(self, ticket, pause=0.1):
        self.phase = self.phase.refused(self.tally.refuse(ticket, self.now, None), pause)

    def refuse_of_those_under_way(self, *numbers):
        self.now = TURNAROUND
        for number in numbers:
            self.refuse(next(ticket for ticket, _ in self.under_way if ticket.number == number))
        self.under_way = [(ticket, due) for ticket, due in self.under_way if ticket.number not in numbers]
        return self.phase

    def send(self):
        """One more call, as soon as it may be sent."""
        while True:
            wait = self.phase.wait(self.now) if len(self.under_way) < WORKERS else math.inf
            if wait <= 0:
                break
            self.until(min(self.now + wait, min((due for _, due in self.under_way), default=math.inf)))
        ticket = self.tally.send(self.now)
        self.phase = self.phase.sent(self.now)
        return ticket

    def until(self, time):
        """Answers come in until then."""
        assert not math.isinf(time), "nothing can happen any more"
        self.now = time
        for ticket, due in [one for one in self.under_way if one[1] <= time]:
            self.under_way.remove((ticket, due))
            self.tally.answer(ticket, due)
            self.phase = self.phase.accepted(ticket, due)

    def run(self, refuses, *, most=2000):
        """Send calls until the phase changes; ``refuses(ticket)`` are refused."""
        before, kind = self.tally.sent, type(self.phase)
        while type(self.phase) is kind and self.tally.sent - before < most:
            ticket = self.send()
            if type(self.phase) is not kind:
                break
            if refuses(ticket):
                self.now += TURNAROUND
                self.refuse(ticket)
            else:
                self.under_way.append((ticket, self.now + LATENCY))
        return self.phase


def by_chance(share, seed=3):
    rng = random.Random(seed)
    return lambda ticket: rng.random() < share


def beyond(limit):
    """What a server refuses that accepts so many at once."""
    return lambda ticket: ticket.ahead >= limit


def slow_start(in_flight=20, refused=(4,)):
    server = Server(in_flight)
    server.refuse_of_those_under_way(*refused)
    assert isinstance(server.phase, LoadTrial)
    return server


class TestSlowStart:
    def test_it_begins_with_a_single_call_after_the_pause(self):
        phase = slow_start().phase
        assert phase.pauses_all
        assert phase.wait(TURNAROUND) == pytest.approx(0.1)

    def test_the_more_are_sent_the_sooner_the_next_follows(self):
        server, times = slow_start(), []
        for _ in range(5):
            server.send()
            times.append(server.now)
        gaps = [after - before for before, after in zip(times, times[1:])]
        assert gaps == pytest.approx([gaps[0] / count for count in (1, 2, 3, 4)])

    @pytest.mark.parametrize(("turnaround", "gap"), [(0.05, 0.1), (0.0001, 0.006), (9.0, 1.0)])
    def test_the_second_is_sent_when_the_first_would_have_been_refused(self, turnaround, gap):
        tally = SendLog()
        phase = LoadTrial(tally, Rejection(0.0, 0.0, 0, 0, 0, None), 1.0)
        tally.turnaround = turnaround
        phase.sent(1.0)
        assert phase.wait(1.0) == pytest.approx(gap)

    def test_as_long_as_not_even_one_is_accepted_it_pauses_all_and_begins_again(self):
        server = slow_start()
        for pause in (0.1, 0.2):
            ticket = server.send()
            server.refuse(ticket, pause)
            assert server.phase.pauses_all
            assert server.phase.wait(server.now) == pytest.approx(pause)

    def test_afterwards_only_the_call_that_was_refused_waits(self):
        server = slow_start()
        for _ in range(3):
            last = server.send()
        server.refuse(last, 5.0)
        assert not server.phase.pauses_all
        assert server.phase.wait(server.now) < 0.1

    def test_when_most_of_what_was_on_its_way_is_refused_there_is_a_limit(self):
        server = Server(20)
        assert isinstance(server.refuse_of_those_under_way(8, 9, 10), LoadTrial)
        assert isinstance(server.refuse_of_those_under_way(*range(11, 20)), Probing)

    def test_in_whatever_order_that_comes_back(self):
        server = Server(20)
        assert isinstance(server.refuse_of_those_under_way(8, 19, 11, 16, 10, 13, 18, 9, 14, 15, 12, 17), Probing)

    def test_a_limit_is_found_when_calls_are_sent_one_by_one(self):
        server = slow_start()
        server.until(1.0)
        assert isinstance(server.run(beyond(8)), Probing)
        assert server.tally.refused < 12

    @pytest.mark.parametrize("seed", range(8))
    def test_random_refusals_are_not_taken_for_one(self, seed):
        server = slow_start()
        assert isinstance(server.run(by_chance(0.2, seed)), RandomRejections)

    def test_where_hardly_anything_is_refused_no_more_is_asked(self):
        server, refused = slow_start(), []

        def second(ticket):
            refused.append(ticket)
            return len(refused) == 2

        assert isinstance(server.run(second), RandomRejections)

    def test_until_something_is_refused_again_nothing_is_concluded(self):
        assert isinstance(slow_start().run(by_chance(0.0)), LoadTrial)

    def test_what_is_known_to_be_chance_needs_more_refusals_to_be_a_limit(self):
        refusal, most = Rejection(0.0, 0.0, 9, 9, 9, None), []
        for share in (0.03, 0.4):
            tally = SendLog()
            tickets = [tally.send(0.0) for _ in range(40)]
            phase, count = LoadTrial(tally, refusal._replace(number=0), 0.1, share), 0
            while isinstance(phase, LoadTrial):
                count += 1
                phase = phase.refused_too(tally.refuse(tickets[count], 0.01, None))
            most.append(count)
        assert most[0] < most[1]


class TestErratic:
    def erratic(self, share):
        server = Server(0)
        server.phase = RandomRejections(server.tally, share)
        return server

    def test_it_holds_up_nobody_and_knows_the_share(self):
        phase = self.erratic(0.2).phase
        assert phase.wait(0.0) == 0
        assert not phase.pauses_all
        assert phase.chance == 0.2

    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
    def test_it_nearly_always_stays_so_while_about_as_many_are_refused(self, share):
        phases = [self.erratic(share).run(by_chance(share, seed), most=1000) for seed in range(12)]
        assert sum(isinstance(phase, RandomRejections) for phase in phases) >= 10

    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
    def test_when_nearly_all_are_refused_the_question_is_asked_anew(self, share):
        server = self.erratic(share)
        server.run(by_chance(share), most=500)
        before = server.tally.sent
        assert isinstance(server.run(by_chance(0.98)), LoadTrial)
        assert server.tally.sent - before < 60
