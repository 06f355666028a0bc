"""Pacing of one (endpoint, model): all limits together."""

from __future__ import annotations

import pytest

from chatpool._policy.pacing import Pacer, PacingState
from chatpool._values import StatedLimit
from chatpool.config import Limits


def send_all(pacer, now, tokens=0.0):
    """Send while nothing waits; returns how many were sent."""
    sent = 0
    while pacer.wait(now, tokens) == 0 and sent < 1000:
        pacer.sent(now, tokens)
        sent += 1
    return sent


def opened():
    """A pacer whose slow start is over."""
    pacer = Pacer()
    for now in [0.0] * 9 + [1.0]:
        pacer.sent(now)
    return pacer


def test_without_limits_nothing_waits_after_the_slow_start():
    assert send_all(opened(), 1.0) == 1000


def test_a_loop_of_single_calls_is_never_held_back():
    pacer = Pacer()
    for call in range(1000):
        assert pacer.wait(call / 2000) == 0
        pacer.accepted(pacer.sent(call / 2000), (call + 0.9) / 2000)


def test_a_configured_limit_holds():
    assert send_all(Pacer(Limits(requests_per_minute=300)), 0.0) == 5


def test_the_strictest_limit_counts():
    pacer = Pacer(Limits(requests_per_minute=6000, tokens_per_minute=60_000))
    assert send_all(pacer, 0.0, 500) == 2


def test_tokens_matter_where_something_limits_them():
    assert not Pacer(Limits(requests_per_minute=1)).counts_tokens
    assert Pacer(Limits(tokens_per_minute=100)).counts_tokens
    pacer = Pacer()
    pacer.reported(pacer.sent(0.0), 0.1, None, StatedLimit(1000, 900, 6.0))
    assert pacer.counts_tokens
    assert pacer.limited


def test_a_reported_limit_holds_before_anything_is_rejected():
    pacer = opened()
    pacer.reported(pacer.sent(1.1), 1.1, StatedLimit(50, 20, 0.6), None)
    assert send_all(pacer, 1.1) == 19  # one less, for what arrives too soon


def test_reported_tokens_hold_too():
    pacer = opened()
    pacer.reported(pacer.sent(1.1, 100), 1.1, None, StatedLimit(10_000, 1000, 60.0))
    assert send_all(pacer, 1.1, 300) == 3


def test_what_was_rejected_took_no_tokens():
    pacer = Pacer(Limits(tokens_per_minute=60_000))
    pacer.rejected(pacer.sent(0.0, 30_000), 0.1, 0.01)
    assert pacer.wait(1.0, 20_000) == 0


def test_usage_corrects_the_estimate():
    pacer = Pacer(Limits(tokens_per_minute=60_000))
    pacer.accepted(pacer.sent(0.0, 30_000), 0.1, 500)
    assert pacer.wait(1.0, 20_000) == 0


def test_a_probe_waits_for_limits_that_are_known_and_not_for_a_pause_after_rejections():
    pacer = Pacer(Limits(requests_per_minute=60, burst=2))
    for _ in range(2):
        for _ in range(5):
            pacer.rejected(pacer.sent(0.0), 0.0, 30.0)
    assert pacer.wait(20.0) == pytest.approx(10.0)
    assert pacer.wait(20.0, probe=True) == 0
    pacer.sent(20.0)
    pacer.sent(20.0)
    assert pacer.wait(20.0, probe=True) > 0.5


class TestPace:
    def test_without_a_limit_there_is_nothing_to_tell(self):
        assert opened().pace(1.0) == PacingState()

    def test_a_configured_limit(self):
        pace = Pacer(Limits(requests_per_minute=300)).pace(0.0)
        assert (pace.rate, pace.why) == (5.0, "the pool's own limits=")

    def test_a_reported_limit(self):
        pacer = opened()
        pacer.reported(pacer.sent(1.0), 1.0, StatedLimit(50, 20, 0.6), None)
        pace = pacer.pace(1.0)
        assert pace.rate == pytest.approx(50)
        assert "x-ratelimit" in pace.why

    def test_a_pause_and_what_is_looked_for_after_it(self):
        pacer = opened()
        pacer.rejected(pacer.sent(2.0), 2.1, 3.0)
        pace = pacer.pace(2.1)
        assert pace.paused_for == pytest.approx(3.0)
        assert pace.why.startswith("paused")
        assert "finding out" in pacer.pace(6.0).why

    def test_a_number_in_doubt(self):
        pacer = opened()
        sent = [pacer.sent(2.0) for _ in range(20)]
        for one in sent[10:]:
            pacer.rejected(one, 2.1, 0.1)
        pace = pacer.pace(6.0)
        assert pace.concurrency_limit == 20  # ten before, and ten of these
        assert "finding out" in pace.why


class TestHold:
    def reason(self, pacer, now, tokens=0.0):
        hold = pacer.hold(now, tokens)
        return None if hold is None else hold.reason

    def test_without_a_limit_nothing_holds_back(self):
        assert opened().hold(1.0, 0.0) is None

    def test_a_configured_rate(self):
        pacer = Pacer(Limits(requests_per_minute=300))
        send_all(pacer, 0.0)
        assert self.reason(pacer, 0.0) == "rate 5/s, limit configured"
        assert pacer.hold(0.0, 0.0).seconds == pytest.approx(pacer.wait(0.0))

    def test_a_slow_one_is_told_by_the_minute(self):
        pacer = Pacer(Limits(requests_per_minute=6))
        send_all(pacer, 0.0)
        assert self.reason(pacer, 1.0) == "rate 6/min, limit configured"

    def test_of_tokens_and_requests_the_one_that_takes_longer(self):
        pacer = Pacer(Limits(requests_per_minute=6000, tokens_per_minute=60_000))
        send_all(pacer, 0.0, 500)
        assert self.reason(pacer, 0.0, 500) == "token limit configured"
        assert self.reason(pacer, 0.0, 60_000) == "next call in 1 min, token limit configured"

    def test_one_from_headers(self):
        pacer = opened()
        pacer.reported(pacer.sent(1.0), 1.0, StatedLimit(50, 20, 0.6), None)
        send_all(pacer, 1.0)
        assert self.reason(pacer, 1.0) == "rate 50/s, limit from headers"

    def test_tokens_from_headers(self):
        pacer = opened()
        pacer.reported(pacer.sent(1.0), 1.0, None, StatedLimit(1000, 10, 60.0))
        assert self.reason(pacer, 1.0, 500).endswith("token limit from headers")

    def test_a_pause_counts_down_and_what_is_looked_for_after_it(self):
        pacer = opened()
        sent = [pacer.sent(2.0) for _ in range(20)]
        for one in sent[10:]:
            pacer.rejected(one, 2.1, 3.0)
        assert self.reason(pacer, 2.2) == "server asks to wait 3 s"
        assert pacer.hold(2.2).reason == "server asks to wait 3 s"  # whatever the call
        assert self.reason(pacer, 5.2) in (None, "finding the server's limit")

    def test_a_pause_of_the_pools_own_is_no_request_of_the_server(self):
        pacer = opened()
        pacer.rejected(pacer.sent(2.0), 2.1, None)
        assert self.reason(pacer, 2.1) == "finding the server's limit"
        assert pacer.hold(2.1) is None
