"""Overload: failures that are rejections, and answers that come too late."""

from __future__ import annotations

import math
import random

import pytest

from chatpool._policy.adaptive.controller import Backlog, Overload
from chatpool._policy.adaptive.send_log import SendLog, SendRecord


def fail(overload, numbers):
    """Calls with these numbers fail, of which ten more were sent after each; returns what was said of each."""
    return [overload.failed(number, number + 11) for number in numbers]


def overloaded():
    """One that has just been told that most calls fail."""
    overload = Overload()
    fail(overload, range(20))
    return overload


@pytest.mark.parametrize(("share", "mistaken"), [(0.02, 0), (0.1, 0), (0.2, 0.15)])
def test_failures_at_random_are_no_rejections_or_very_rarely(share, mistaken):
    detected = 0
    for seed in range(50):
        overload, rng = Overload(), random.Random(seed)
        fail(overload, [number for number in range(2000) if rng.random() < share])
        detected += overload.detected
    assert detected <= 50 * mistaken


def test_when_most_calls_fail_it_is_known_within_a_dozen():
    overload = Overload()
    said = fail(overload, range(12))
    assert said == sorted(said)  # from then on, failures are rejections
    assert not said[3]
    assert said[-1]


def test_however_much_was_answered_before():
    overload = Overload()
    fail(overload, range(50_000, 50_012))
    assert overload.detected


def test_a_few_answers_between_failures_do_not_hide_it():
    overload, rng = Overload(), random.Random(5)
    fail(overload, [number for number in range(100) if rng.random() < 0.85])
    assert overload.detected


class TestOutage:
    def test_where_nothing_but_the_last_probe_was_answered_there_was_no_limit(self):
        overload = overloaded()
        assert overload.was_outage()
        overload.answered(40)
        assert overload.was_outage()
        overload.answered(41)
        assert not overload.was_outage()

    def test_answers_to_calls_from_before_do_not_count(self):
        overload = overloaded()
        for number in range(5):
            overload.answered(number)
        assert overload.was_outage()

    def test_without_overload_there_was_none(self):
        assert not Overload().was_outage()

    @pytest.mark.parametrize(
        ("probes", "in_flight", "down"), [(4, 0, False), (5, 0, True), (11, 3, False), (12, 3, True)]
    )
    def test_it_is_down_after_some_probes_and_more_while_others_may_yet_be_answered(self, probes, in_flight, down):
        assert overloaded().down(probes, in_flight) is down


class TestForgetting:
    def test_it_begins_anew(self):
        overload = overloaded()
        overload.forget(0.0, 100)
        assert not overload.detected
        assert fail(overload, range(40, 100)) == [False] * 60  # sent before
        assert fail(overload, range(100, 112))[-1]

    def test_of_a_server_that_fails_often_by_chance_as_much_is_expected(self):
        def runs_in_which_it_is_known(share):
            detected = 0
            for seed in range(20):
                overload, rng = overloaded(), random.Random(seed)
                overload.forget(share, 0)
                fail(overload, [number for number in range(2000) if rng.random() < 0.4])
                detected += overload.detected
            return detected

        assert runs_in_which_it_is_known(0.0) > 15 > 10 > runs_in_which_it_is_known(0.4)


LIMIT = 60.0  # seconds until a call is given up


def send_log(in_flight, latency=0.0):
    made = SendLog()
    made.in_flight, made.latency = in_flight, latency
    return made


class Server:
    """What is said to a backlog; ``time`` is that of the last change."""

    def __init__(self, in_flight=16):
        self.time = 100.0
        self.state = Backlog(send_log(in_flight, latency=50.0), LIMIT, self.time)

    def answer(self, latency, rounds=1):
        """As many answers as two looks take, each after so many seconds; the first half is what is worked off."""
        for _ in range(rounds):
            before = self.state.limit
            for _ in range(2 * max(4, before)):
                self.time += 1.0
                self.state.accepted(SendRecord(self.time, 0, 0), self.time + latency)
                self.time += latency
        return self.state.limit

    def give_up(self, count=1):
        """So many calls are given up that were sent since the last change."""
        for _ in range(count):
            self.time += 1.0
            unknown = self.state.helps is None
            explained = self.state.timed_out(SendRecord(self.time, 0, 0), self.time + LIMIT)
            assert explained is (unknown and self.state.helps is None)  # in doubt the load is the reason
            self.time += LIMIT
        return self.state.limit


class TestBacklog:
    @pytest.mark.parametrize(
        ("in_flight", "latency", "overloaded"), [(16, 20.0, True), (16, 19.0, False), (1, 60.0, False), (2, 60.0, True)]
    )
    def test_a_call_was_given_up_for_the_load_where_others_nearly_are_too(self, in_flight, latency, overloaded):
        assert Backlog.explains(send_log(in_flight, latency), 60.0) is overloaded

    @pytest.mark.parametrize(("in_flight", "limit"), [(16, 8), (5, 3), (2, 1), (1, 1), (0, 1)])
    def test_it_begins_with_half_as_many_in_flight(self, in_flight, limit):
        counts = send_log(in_flight)
        state = Backlog(counts, LIMIT, 0.0)
        assert state.limit == limit
        counts.in_flight = limit - 1
        assert state.wait(0.0) == 0
        counts.in_flight = limit
        assert math.isinf(state.wait(0.0))

    def test_it_pauses_nobody_and_knows_no_rate(self):
        state = Server().state
        assert not state.pauses_all
        assert state.rate is None

    def test_one_more_is_sent_each_round_as_long_as_answers_take_half_the_limit_at_most(self):
        server = Server()
        assert server.answer(20.0, rounds=3) == 11
        assert server.state.helps is True

    def test_none_is_added_that_would_make_them_take_longer(self):
        server = Server()
        assert server.answer(20.0) == 9
        assert server.answer(28.0, rounds=3) == 9  # ten would take 31

    def test_answers_of_what_was_on_its_way_say_nothing(self):
        server = Server()
        for _ in range(100):
            server.state.accepted(SendRecord(99.0, 15, 0), 159.0)
        assert server.state.limit == 8
        assert server.state.helps is None

    def test_the_first_half_of_the_answers_after_a_change_says_nothing_either(self):
        server = Server()
        for _ in range(8):
            server.state.accepted(SendRecord(101.0, 7, 0), 102.0)
        assert server.state.limit == 8
        for _ in range(8):
            server.state.accepted(SendRecord(102.0, 7, 0), 103.0)
        assert server.state.limit == 9

    def test_where_half_as_many_do_not_help_a_quarter_is_tried(self):
        server = Server()
        assert server.answer(50.0) == 4
        assert server.state.helps is None

    @pytest.mark.parametrize(("latency", "helps"), [(50.0, False), (40.0, True)])
    def test_where_answers_of_a_quarter_take_as_long_the_load_was_not_the_reason(self, latency, helps):
        server = Server()
        server.answer(50.0)
        server.answer(latency)
        assert server.state.helps is helps

    def test_until_it_is_known_whether_fewer_help_a_call_that_is_given_up_is_an_answer_that_took_so_long(self):
        server = Server()
        assert server.give_up(3) == 8
        assert server.state.helps is None
        for _ in range(5):
            server.state.accepted(SendRecord(server.time + 1, 0, 0), server.time + 31)
        server.time += 31
        assert server.state.limit == 8
        for _ in range(8):  # 41 seconds each, where it was 50: no shorter
            server.state.accepted(SendRecord(server.time + 1, 0, 0), server.time + 42)
        assert server.state.limit == 4
        assert server.state.helps is None

    def test_where_none_of_four_is_answered_there_are_half_as_many_again(self):
        server = Server()
        assert [server.give_up(4) for _ in range(3)] == [4, 2, 1]
        assert server.state.helps is None
        server.give_up(4)
        assert server.state.helps is False

    def test_where_none_is_answered_but_some_were_with_more_in_flight_the_load_is_not_the_reason(self):
        server = Server()
        assert server.answer(50.0) == 4
        server.give_up(4)
        assert server.state.helps is None  # the server may still be busy with the calls that timed out before
        server.give_up(4)
        assert server.state.helps is False
        assert server.state.limit == 4

    @pytest.mark.parametrize(("trial", "limit"), [(0, 8), (1, 4), (2, 2), (5, 1)])
    def test_each_trial_begins_with_half_as_many_as_the_one_before(self, trial, limit):
        assert Backlog(send_log(16), LIMIT, 0.0, trial).limit == limit

    def test_once_it_is_known_that_fewer_help_each_call_that_is_given_up_halves_them(self):
        server = Server()
        assert server.answer(20.0) == 9
        assert [server.give_up() for _ in range(3)] == [4, 2, 1]
        assert server.state.helps is True
        server.give_up()
        assert server.state.helps is False

    def test_what_was_on_its_way_at_the_last_change_is_explained_and_changes_nothing(self):
        server = Server()
        for _ in range(20):
            assert server.state.timed_out(SendRecord(99.0, 15, 0), 159.0)
        assert server.state.limit == 8
        assert server.state.helps is None

    def test_after_a_call_that_was_given_up_what_is_on_its_way_is_worked_off_first(self):
        server = Server()
        server.answer(20.0)
        for _ in range(17):  # one more would raise the limit
            server.state.accepted(SendRecord(server.time + 1, 7, 0), server.time + 1)
        assert server.give_up() == 4
        for number in range(8):
            assert server.state.limit == 4
            server.state.accepted(SendRecord(server.time + number + 1, 3, 0), server.time + number + 1)
        assert server.state.limit == 5
