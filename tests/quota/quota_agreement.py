"""Steps that every place of the state has to answer in the same way, to the last bit."""

from __future__ import annotations

from hypothesis import strategies as st

from chatpool._policy.day_window import DayLimits
from chatpool._quota.day import DayCharge
from chatpool._quota.gcra import Rates
from chatpool._values import LATENESS_SECONDS

RATES = Rates.of(100, 5000, 1.5)
RATES_OF_DAY = Rates.of(100, 5000, 1.5, DayLimits(4, 6000))
ONE_BY_ONE = [("reserve", 17.0, 100.0)] * 8  # more than a slot apart, and less than two, where time hurries by 20
START = 1000.0

operations = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "reserve", "correct", "pause", "status"]),
        st.floats(-20, 30),  # seconds that pass before it, or by which the clock is set back
        st.floats(0, 3000),
    ),
    max_size=25,
)

SECOND = 1 + LATENESS_SECONDS / 60  # between two calls of 60 a minute


class HandClock:
    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time


def play(backend, clock, played, rates=RATES, hurry=1.0):
    """What ``backend`` answers; ``clock`` is its own, and goes ``hurry`` times as fast as ``played`` says."""
    clock.time, at, day_at, answers = START, START, START, []
    for number, (operation, seconds, amount) in enumerate(played):
        clock.time += seconds * hurry
        if operation == "reserve":
            answer = backend.reserve(rates, requests=1, tokens=amount, max_wait=60, sharer=float(number % 3))
            at, day_at = answer.at, answer.day_at
            answers.append(answer)
        elif operation == "correct":
            more = amount - 1500
            charge = None if rates.day is None else DayCharge(day_at, -float(number % 2), more)
            backend.correct(rates, at=at, tokens=more, day=charge)
        elif operation == "pause":
            backend.pause(rates, seconds=amount / 1000)
        else:
            answers.append(backend.status(rates))
    return answers
