"""Nothing limits the pace, as far as is known."""

from __future__ import annotations

from chatpool.policy.free import Free, Trusting
from chatpool.policy.tally import Refusal, Tally, Ticket
from chatpool.policy.trials import SlowStart

REFUSAL = Refusal(sent_at=0.0, now=0.0, in_flight=3, accepted=100, lately=50, hint=0.02)


def refuse(phase, times):
    for _ in range(times):
        phase = phase.refused(REFUSAL, 0.02)
    return phase


class TestFree:
    def test_it_begins_with_a_ramp(self):
        sends = Tally()
        phase = Free(sends)
        for _ in range(9):
            assert phase.wait(0.0) == 0
            phase = phase.sent(0.0)
            sends.send(0.0)
        assert phase.wait(0.0) > 0

    def test_the_first_refusal_makes_a_slow_start(self):
        phase = Free(Tally()).refused(REFUSAL, 0.1)
        assert isinstance(phase, SlowStart)
        assert phase.wait(0.0) == 0.1

    def test_the_first_answer_lets_the_ramp_rise(self):
        phase = Free(Tally())
        phase.accepted(Ticket(0.0, 0, 0), 0.1)
        assert phase.ramp.answered


class TestTrusting:
    def test_a_few_refusals_only_pause(self):
        phase = Trusting(Tally())
        assert phase.pauses_all
        assert refuse(phase, 3) is phase

    def test_more_of_them_are_a_limit_below_the_known_one(self):
        assert isinstance(refuse(Trusting(Tally()), 4), SlowStart)

    def test_those_of_calls_that_were_on_their_way_count_as_well(self):
        phase = Trusting(Tally())
        for _ in range(3):
            assert phase.refused_too(REFUSAL) is phase
        assert isinstance(refuse(phase, 1), SlowStart)

    def test_those_that_are_twenty_answers_ago_do_not(self):
        phase = refuse(Trusting(Tally()), 3)
        for _ in range(20):
            phase.accepted(Ticket(0.0, 0, 0), 0.1)
        assert refuse(phase, 3) is phase

    def test_it_goes_on_with_the_ramp(self):
        sends = Tally()
        sends.in_flight = 9
        free = Free(sends)
        for _ in range(2):
            free.sent(0.0)
        assert Trusting(sends, free.ramp).wait(0.0) > 0
