"""Random rejections: the trial that shows if rejections depend on the load."""

from __future__ import annotations

import math
import random

import pytest

from chatpool._policy.adaptive.random_rejections import LoadTrial, RandomRejections
from chatpool._policy.adaptive.send_log import Rejection, SendLog
from chatpool._policy.adaptive.slow_start import Unlimited
from chatpool._policy.adaptive.states import Probing

LATENCY, TURNAROUND = 0.2, 0.005  # seconds until an answer, and until a rejection
WORKERS = 64


class Server:
    """Answers and rejects calls by a clock of its own; ``state`` is what has been concluded from it.

    Args:
        in_flight: calls that were sent at once, before anything came back.
    """

    def __init__(self, in_flight):
        self.send_log, self.now = SendLog(), 0.0
        self.under_way = [(self.send_log.send(0.0), LATENCY) for _ in range(in_flight)]
        self.state = Unlimited(self.send_log)

    def reject(self, record, pause=0.1):
        self.state = self.state.rejected(self.send_log.reject(record, self.now, None), pause)

    def reject_of_those_under_way(self, *numbers):
        self.now = TURNAROUND
        for number in numbers:
            self.reject(next(record for record, _ in self.under_way if record.number == number))
        self.under_way = [(record, due) for record, due in self.under_way if record.number not in numbers]
        return self.state

    def send(self):
        """One more call, as soon as it may be sent."""
        while True:
            wait = self.state.wait(self.now) if len(self.under_way) < WORKERS else math.inf
            if wait <= 0:
                break
            self.until(min(self.now + wait, min((due for _, due in self.under_way), default=math.inf)))
        record = self.send_log.send(self.now)
        self.state = self.state.sent(self.now)
        return record

    def until(self, time):
        """Answers come in until then."""
        assert not math.isinf(time), "nothing can happen any more"
        self.now = time
        for record, due in [one for one in self.under_way if one[1] <= time]:
            self.under_way.remove((record, due))
            self.send_log.answer(record, due)
            self.state = self.state.accepted(record, due)

    def run(self, rejects, *, most=2000):
        """Send calls until the state changes; ``rejects(record)`` are rejected."""
        before, kind = self.send_log.sent, type(self.state)
        while type(self.state) is kind and self.send_log.sent - before < most:
            record = self.send()
            if type(self.state) is not kind:
                break
            if rejects(record):
                self.now += TURNAROUND
                self.reject(record)
            else:
                self.under_way.append((record, self.now + LATENCY))
        return self.state


def by_chance(share, seed=3):
    rng = random.Random(seed)
    return lambda record: rng.random() < share


def beyond(limit):
    """What a server rejects that accepts so many at once."""
    return lambda record: record.ahead >= limit


def load_trial(in_flight=20, rejected=(4,)):
    server = Server(in_flight)
    server.reject_of_those_under_way(*rejected)
    assert isinstance(server.state, LoadTrial)
    return server


class TestLoadTrial:
    def test_it_begins_with_a_single_call_after_the_pause(self):
        state = load_trial().state
        assert state.pauses_all
        assert state.wait(TURNAROUND) == pytest.approx(0.1)

    def test_the_more_are_sent_the_sooner_the_next_follows(self):
        server, times = load_trial(), []
        for _ in range(5):
            server.send()
            times.append(server.now)
        gaps = [after - before for before, after in zip(times, times[1:])]
        assert gaps == pytest.approx([gaps[0] / count for count in (1, 2, 3, 4)])

    @pytest.mark.parametrize(("rejection_latency", "gap"), [(0.05, 0.1), (0.0001, 0.006), (9.0, 1.0)])
    def test_the_second_is_sent_when_the_first_would_have_been_rejected(self, rejection_latency, gap):
        send_log = SendLog()
        state = LoadTrial(send_log, Rejection(0.0, 0.0, 0, 0, 0, None), 1.0)
        send_log.rejection_latency = rejection_latency
        state.sent(1.0)
        assert state.wait(1.0) == pytest.approx(gap)

    def test_as_long_as_not_even_one_is_accepted_it_pauses_all_and_begins_again(self):
        server = load_trial()
        for pause in (0.1, 0.2):
            record = server.send()
            server.reject(record, pause)
            assert server.state.pauses_all
            assert server.state.wait(server.now) == pytest.approx(pause)

    def test_afterwards_only_the_call_that_was_rejected_waits(self):
        server = load_trial()
        for _ in range(3):
            last = server.send()
        server.reject(last, 5.0)
        assert not server.state.pauses_all
        assert server.state.wait(server.now) < 0.1

    def test_when_most_of_what_was_on_its_way_is_rejected_there_is_a_limit(self):
        server = Server(20)
        assert isinstance(server.reject_of_those_under_way(8, 9, 10), LoadTrial)
        assert isinstance(server.reject_of_those_under_way(*range(11, 20)), Probing)

    def test_in_whatever_order_that_comes_back(self):
        server = Server(20)
        assert isinstance(server.reject_of_those_under_way(8, 19, 11, 16, 10, 13, 18, 9, 14, 15, 12, 17), Probing)

    def test_a_limit_is_found_when_calls_are_sent_one_by_one(self):
        server = load_trial()
        server.until(1.0)
        assert isinstance(server.run(beyond(8)), Probing)
        assert server.send_log.rejected < 12

    @pytest.mark.parametrize("seed", range(8))
    def test_random_rejections_are_not_taken_for_one(self, seed):
        server = load_trial()
        assert isinstance(server.run(by_chance(0.2, seed)), RandomRejections)

    def test_where_hardly_anything_is_rejected_no_more_is_asked(self):
        server, rejected = load_trial(), []

        def second(record):
            rejected.append(record)
            return len(rejected) == 2

        assert isinstance(server.run(second), RandomRejections)

    def test_until_something_is_rejected_again_nothing_is_concluded(self):
        assert isinstance(load_trial().run(by_chance(0.0)), LoadTrial)

    def test_what_is_known_to_be_chance_needs_more_rejections_to_be_a_limit(self):
        rejection, most = Rejection(0.0, 0.0, 9, 9, 9, None), []
        for share in (0.03, 0.4):
            send_log = SendLog()
            records = [send_log.send(0.0) for _ in range(40)]
            state, count = LoadTrial(send_log, rejection._replace(number=0), 0.1, share), 0
            while isinstance(state, LoadTrial):
                count += 1
                state = state.also_rejected(send_log.reject(records[count], 0.01, None))
            most.append(count)
        assert most[0] < most[1]


class TestRandomRejections:
    def random_rejections(self, share):
        server = Server(0)
        server.state = RandomRejections(server.send_log, share)
        return server

    def test_it_holds_up_nobody_and_knows_the_share(self):
        state = self.random_rejections(0.2).state
        assert state.wait(0.0) == 0
        assert not state.pauses_all
        assert state.random_share == 0.2

    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
    def test_it_nearly_always_stays_so_while_about_as_many_are_rejected(self, share):
        states = [self.random_rejections(share).run(by_chance(share, seed), most=1000) for seed in range(12)]
        assert sum(isinstance(state, RandomRejections) for state in states) >= 10

    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
    def test_when_nearly_all_are_rejected_the_question_is_asked_anew(self, share):
        server = self.random_rejections(share)
        server.run(by_chance(share), most=500)
        before = server.send_log.sent
        assert isinstance(server.run(by_chance(0.98)), LoadTrial)
        assert server.send_log.sent - before < 60
