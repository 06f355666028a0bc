"""Nothing limits the pace, as far as is known."""

from __future__ import annotations

from chatpool._policy.adaptive.random_rejections import LoadTrial
from chatpool._policy.adaptive.send_log import Rejection, SendLog, SendRecord
from chatpool._policy.adaptive.slow_start import Unlimited

REFUSAL = Rejection(sent_at=0.0, now=0.0, in_flight=3, accepted=100, lately=50, hint=0.02)


def refuse(phase, times):
    for _ in range(times):
        phase = phase.refused(REFUSAL, 0.02)
    return phase


class TestFree:
    def test_it_begins_with_a_ramp(self):
        sends = SendLog()
        phase = Unlimited(sends)
        for _ in range(9):
            assert phase.wait(0.0) == 0
            phase = phase.sent(0.0)
            sends.send(0.0)
        assert phase.wait(0.0) > 0

    def test_the_first_refusal_makes_a_slow_start(self):
        phase = Unlimited(SendLog()).refused(REFUSAL, 0.1)
        assert isinstance(phase, LoadTrial)
        assert phase.wait(0.0) == 0.1

    def test_the_first_answer_lets_the_ramp_rise(self):
        phase = Unlimited(SendLog())
        phase.accepted(SendRecord(0.0, 0, 0), 0.1)
        assert phase.ramp.answered
