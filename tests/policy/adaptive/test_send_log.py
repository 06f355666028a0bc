"""Send log: counts, rates and latencies."""

from __future__ import annotations

import pytest

from chatpool._policy.adaptive.send_log import SendLog


def sends(send_log, *times):
    return [send_log.send(time) for time in times]


def test_a_record_tells_what_was_in_flight_and_what_had_been_sent():
    send_log = SendLog()
    first, second = sends(send_log, 0.0, 0.1)
    assert (first.ahead, first.number) == (0, 0)
    assert (second.ahead, second.number) == (1, 1)


def test_what_ended_is_in_flight_no_more():
    send_log = SendLog()
    first, second, _ = sends(send_log, 0.0, 0.1, 0.2)
    send_log.answer(first, 1.0)
    send_log.reject(second, 1.0, None)
    send_log.give_up()
    assert (send_log.in_flight, send_log.sent, send_log.finished, send_log.rejected) == (0, 3, 1, 1)


def test_latency_is_that_of_answers_and_rejection_latency_that_of_rejections():
    send_log = SendLog()
    first, second = sends(send_log, 0.0, 0.0)
    send_log.answer(first, 2.0)
    assert send_log.latency == 2.0
    for _ in range(30):
        send_log.reject(second, 0.5, None)
    assert send_log.rejection_latency == pytest.approx(0.5, rel=0.01)
    assert send_log.latency == 2.0


class TestRejections:
    def test_what_was_rejected_before_does_not_count_as_in_flight(self):
        send_log = SendLog()
        records = sends(send_log, 0.0, 0.1, 0.2, 0.3)
        send_log.reject(records[1], 0.4, None)
        assert send_log.reject(records[3], 0.5, None).in_flight == 2

    def test_what_was_rejected_and_sent_later_does_not_matter(self):
        send_log = SendLog()
        records = sends(send_log, 0.0, 0.1, 0.2, 0.3)
        send_log.reject(records[3], 0.4, None)
        assert send_log.reject(records[1], 0.5, None).in_flight == 1

    def test_the_last_rejection_of_a_batch_knows_how_many_were_accepted(self):
        send_log = SendLog()
        records = sends(send_log, *[0.0] * 8)
        # Sent at one moment, they arrive in any order: these two were accepted.
        rejected = [record for record in records if record.number not in (3, 6)]
        seen = [send_log.reject(record, 0.01, None).in_flight for record in rejected]
        assert seen[0] == 7
        assert seen[-1] == 2

    def test_accepted_is_counted_from_the_first_send(self):
        send_log = SendLog()
        records = sends(send_log, *[number / 10 for number in range(10)])
        assert send_log.reject(records[4], 1.0, None).accepted == 4
        assert send_log.reject(records[9], 1.0, None).accepted == 8

    def test_the_accept_rate_is_the_second_before_it_was_sent(self):
        send_log = SendLog()
        records = sends(send_log, *[number / 10 for number in range(30)])
        assert send_log.reject(records[29], 3.0, None).accept_rate == pytest.approx(10, abs=1)

    def test_the_accept_rate_leaves_out_what_was_rejected(self):
        send_log = SendLog()
        records = sends(send_log, *[number / 10 for number in range(30)])
        for number in (25, 26, 27):
            send_log.reject(records[number], 3.0, None)
        assert send_log.reject(records[29], 3.0, None).accept_rate == pytest.approx(7, abs=1)

    def test_a_rejection_knows_its_place_among_the_calls(self):
        send_log = SendLog()
        records = sends(send_log, *[number / 10 for number in range(10)])
        assert send_log.reject(records[7], 1.0, None).number == 7


class TestRates:
    def test_what_was_sent_before_a_moment_is_counted_without_the_last_few(self):
        send_log = SendLog()
        sends(send_log, *[number / 10 for number in range(10)])
        assert send_log.sent_by(0.55) == 5
        assert send_log.sent_by(5.0) == 9
        assert send_log.sent_by(-1.0) == 0

    def test_however_fast_they_follow_each_other(self):
        send_log = SendLog()
        sends(send_log, *[number / 1000 for number in range(1000)])
        assert 470 <= send_log.sent_by(0.5) <= 500

    def test_the_send_rate_is_that_of_the_last_second(self):
        send_log = SendLog()
        sends(send_log, *[number / 20 for number in range(100)])
        assert send_log.send_rate(5.0) == pytest.approx(20, abs=1)
        assert send_log.send_rate(7.0) == 0

    def test_the_mean_rate_is_that_of_the_last_ten_seconds_without_what_was_rejected(self):
        send_log = SendLog()
        records = sends(send_log, *[number / 20 for number in range(600)])  # 30 s
        for record in records[500:550]:
            send_log.reject(record, 29.9, None)
        assert send_log.mean_rate(30.0) == pytest.approx(15, abs=0.5)

    def test_there_is_no_mean_of_too_short_a_time(self):
        send_log = SendLog()
        sends(send_log, 0.0, 0.1, 0.2)
        assert send_log.mean_rate(1.0) == 0

    def test_counting_keeps_no_more_than_it_needs(self):
        send_log = SendLog()
        for number in range(50_000):
            send_log.answer(send_log.send(number / 1000), number / 1000)
        assert len(send_log._marks) <= 10 / 0.02 + 2
