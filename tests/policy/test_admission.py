"""Refusals as news, and the pauses after them."""

from __future__ import annotations

import pytest

from chatpool.policy.admission import AdmissionControl
from chatpool.policy.phases import ByConcurrency, Doubt, Free


def refused(admission, sent_at, now, hint):
    ticket = admission.sent(sent_at)
    admission.refused(ticket, now, hint)


def test_a_hint_pauses_everybody():
    admission = AdmissionControl()
    refused(admission, 0.0, 0.1, 2.0)
    assert admission.wait(0.1) == pytest.approx(2.0)
    assert admission.paused_for(1.1) == pytest.approx(1.0)
    assert admission.paused_for(5.0) == 0


def test_the_longest_hint_counts():
    admission = AdmissionControl()
    tickets = [admission.sent(0.0) for _ in range(2)]
    admission.refused(tickets[0], 0.1, 3.0)
    admission.refused(tickets[1], 0.1, 1.0)
    assert admission.paused_for(0.1) == pytest.approx(3.0)


def test_a_hint_for_hours_does_not_stop_the_line_for_hours():
    admission = AdmissionControl()
    refused(admission, 0.0, 0.0, 86_400.0)
    assert admission.paused_for(0.0) == 120


def test_where_the_calls_in_flight_are_limited_nobody_is_paused():
    admission = AdmissionControl()
    admission.phase = ByConcurrency(admission.tally, 5)
    for _ in range(5):
        admission.sent(0.0)
    refused(admission, 0.0, 0.1, 2.0)
    assert admission.paused_for(0.1) == 0


def test_without_hints_refusals_in_vain_pause_longer_and_longer():
    admission = AdmissionControl()
    pauses, now = [], 0.0
    for _ in range(8):
        refused(admission, now, now, None)
        pauses.append(admission.paused_for(now))
        now += 1.0
    assert pauses[0] == pytest.approx(0.03)
    assert pauses[1] == pytest.approx(0.06)
    assert sorted(pauses) == pauses
    assert pauses[-1] == 1.0


def test_something_accepted_in_between_makes_the_pause_short_again():
    admission = AdmissionControl()
    for now in (0.0, 1.0, 2.0, 3.0):
        refused(admission, now, now, None)
    admission.accepted(admission.sent(4.0), 4.1)
    refused(admission, 5.0, 5.0, None)
    assert admission.paused_for(5.0) <= 1 / admission.phase.rate if admission.phase.rate else 0.05


def test_what_was_on_its_way_when_a_refusal_came_is_no_news():
    admission = AdmissionControl()
    first, second = admission.sent(0.0), admission.sent(0.0)
    admission.refused(first, 0.1, 0.01)
    phase = admission.phase
    assert isinstance(phase, Doubt)
    admission.refused(second, 0.2, 0.01)
    assert admission.phase is phase


def test_calls_that_end_without_an_answer_are_only_counted_off():
    admission = AdmissionControl()
    admission.sent(0.0)
    admission.ended()
    assert admission.tally.in_flight == 0
    assert not admission.limited


def test_after_an_outage_the_ramp_begins_anew_unless_a_limit_is_known():
    admission = AdmissionControl()
    for now in [0.0] * 9 + [5.0] * 40:
        admission.sent(now)
    assert admission.wait(5.0) == 0
    admission.restart()
    for _ in range(9):
        admission.sent(6.0)
    assert admission.wait(6.0) > 0
    refused(admission, 7.0, 7.0, 0.1)
    doubt = admission.phase
    admission.restart()
    assert admission.phase is doubt
    assert not isinstance(doubt, Free)
