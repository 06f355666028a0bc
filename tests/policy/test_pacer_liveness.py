"""Liveness: with no call in flight there is always a moment at which one may be sent, whatever the server says."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from chatpool import Limits
from chatpool._policy.pacing import Pacer
from chatpool._values import StatedLimit

TOKENS = 100.0
LOOKS = 50  # at the clock, of a worker that waits for its moment

STATED = st.none() | st.builds(
    lambda limit, part, reset: StatedLimit(limit, math.floor(part * limit), reset),
    st.integers(1, 5000),
    st.floats(0, 1),
    st.none() | st.floats(0.001, 1e5),
)
ROUND = st.tuples(
    st.integers(1, 40),  # calls
    st.floats(0, 5),  # seconds until they return
    st.sampled_from(["accepted", "refused", "failed", "given up", "ended"]),
    st.none() | st.floats(0, 100),  # the hint of rejections and failures
    STATED,
    STATED,
)
LIMITS = st.none() | st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(2, 10_000),
    tokens_per_minute=st.none() | st.integers(500, 10**6),
)


def moment(pacer, now):
    """When the next call may be sent, None if not before one ends."""
    for _ in range(LOOKS):
        wait = pacer.wait(now, TOKENS)
        if wait <= 0:
            return now
        if math.isinf(wait):
            return None
        assert wait <= 600 + 1e-6
        now += wait + 1e-9
    raise AssertionError("the moment never comes")


@given(LIMITS, st.lists(ROUND, min_size=1, max_size=25))
def test_with_no_call_in_flight_one_may_be_sent_within_ten_minutes(limits, rounds):
    pacer, now = Pacer(limits), 0.0
    for calls, later, ending, hint, requests, tokens in rounds:
        now = moment(pacer, now)  # none is in flight: it must come
        sent = []
        while len(sent) < calls and pacer.wait(now, TOKENS) <= 0:
            sent.append(pacer.sent(now, TOKENS))
        now += later
        for one in sent:
            if ending == "accepted":
                pacer.accepted(one, now, 150.0)
            elif ending == "refused":
                pacer.rejected(one, now, hint)
            elif ending == "failed":
                pacer.failed(one, now, hint)
            elif ending == "given up":
                pacer.timed_out(one, now)
            else:
                pacer.ended()
            pacer.reported(one, now, requests, tokens)
    assert moment(pacer, now) is not None
