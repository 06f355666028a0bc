"""What is counted of the sends to a server, and what a refusal shows."""

from __future__ import annotations

import pytest

from chatpool._policy.adaptive.send_log import SendLog


def sends(tally, *times):
    return [tally.send(time) for time in times]


def test_a_ticket_tells_what_was_in_flight_and_what_had_been_sent():
    tally = SendLog()
    first, second = sends(tally, 0.0, 0.1)
    assert (first.ahead, first.number) == (0, 0)
    assert (second.ahead, second.number) == (1, 1)


def test_what_ended_is_in_flight_no_more():
    tally = SendLog()
    first, second, _ = sends(tally, 0.0, 0.1, 0.2)
    tally.answer(first, 1.0)
    tally.refuse(second, 1.0, None)
    tally.give_up()
    assert (tally.in_flight, tally.sent, tally.finished, tally.refused) == (0, 3, 1, 1)


def test_latency_is_that_of_answers_and_turnaround_that_of_refusals():
    tally = SendLog()
    first, second = sends(tally, 0.0, 0.0)
    tally.answer(first, 2.0)
    assert tally.latency == 2.0
    for _ in range(30):
        tally.refuse(second, 0.5, None)
    assert tally.turnaround == pytest.approx(0.5, rel=0.01)
    assert tally.latency == 2.0


class TestRefusals:
    def test_what_was_refused_before_does_not_count_as_in_flight(self):
        tally = SendLog()
        tickets = sends(tally, 0.0, 0.1, 0.2, 0.3)
        tally.refuse(tickets[1], 0.4, None)
        assert tally.refuse(tickets[3], 0.5, None).in_flight == 2

    def test_what_was_refused_and_sent_later_does_not_matter(self):
        tally = SendLog()
        tickets = sends(tally, 0.0, 0.1, 0.2, 0.3)
        tally.refuse(tickets[3], 0.4, None)
        assert tally.refuse(tickets[1], 0.5, None).in_flight == 1

    def test_the_last_refusal_of_a_batch_knows_how_many_were_accepted(self):
        tally = SendLog()
        tickets = sends(tally, *[0.0] * 8)
        # Sent at one moment, they arrive in any order: these two were accepted.
        refused = [ticket for ticket in tickets if ticket.number not in (3, 6)]
        seen = [tally.refuse(ticket, 0.01, None).in_flight for ticket in refused]
        assert seen[0] == 7
        assert seen[-1] == 2

    def test_accepted_is_counted_from_the_first_send(self):
        tally = SendLog()
        tickets = sends(tally, *[number / 10 for number in range(10)])
        assert tally.refuse(tickets[4], 1.0, None).accepted == 4
        assert tally.refuse(tickets[9], 1.0, None).accepted == 8

    def test_lately_is_the_second_before_it_was_sent(self):
        tally = SendLog()
        tickets = sends(tally, *[number / 10 for number in range(30)])
        assert tally.refuse(tickets[29], 3.0, None).lately == pytest.approx(10, abs=1)

    def test_lately_leaves_out_what_was_refused(self):
        tally = SendLog()
        tickets = sends(tally, *[number / 10 for number in range(30)])
        for number in (25, 26, 27):
            tally.refuse(tickets[number], 3.0, None)
        assert tally.refuse(tickets[29], 3.0, None).lately == pytest.approx(7, abs=1)

    def test_a_refusal_knows_its_place_among_the_calls(self):
        tally = SendLog()
        tickets = sends(tally, *[number / 10 for number in range(10)])
        assert tally.refuse(tickets[7], 1.0, None).number == 7


class TestRates:
    def test_what_was_sent_before_a_moment_is_counted_without_the_last_few(self):
        tally = SendLog()
        sends(tally, *[number / 10 for number in range(10)])
        assert tally.sent_by(0.55) == 5
        assert tally.sent_by(5.0) == 9
        assert tally.sent_by(-1.0) == 0

    def test_however_fast_they_follow_each_other(self):
        tally = SendLog()
        sends(tally, *[number / 1000 for number in range(1000)])
        assert 470 <= tally.sent_by(0.5) <= 500

    def test_sent_lately_is_that_of_the_last_second(self):
        tally = SendLog()
        sends(tally, *[number / 20 for number in range(100)])
        assert tally.sent_lately(5.0) == pytest.approx(20, abs=1)
        assert tally.sent_lately(7.0) == 0

    def test_the_mean_rate_is_that_of_the_last_ten_seconds_without_what_was_refused(self):
        tally = SendLog()
        tickets = sends(tally, *[number / 20 for number in range(600)])  # 30 s
        for ticket in tickets[500:550]:
            tally.refuse(ticket, 29.9, None)
        assert tally.mean_rate(30.0) == pytest.approx(15, abs=0.5)

    def test_there_is_no_mean_of_too_short_a_time(self):
        tally = SendLog()
        sends(tally, 0.0, 0.1, 0.2)
        assert tally.mean_rate(1.0) == 0

    def test_counting_keeps_no_more_than_it_needs(self):
        tally = SendLog()
        for number in range(50_000):
            tally.answer(tally.send(number / 1000), number / 1000)
        assert len(tally._marks) <= 10 / 0.02 + 2
