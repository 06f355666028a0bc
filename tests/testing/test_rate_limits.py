"""A server that refuses what is too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import ConfigurationError
from chatpool.testing import Cap, Quota, Stall


def test_a_quota_accepts_its_burst_and_says_exactly_when_there_is_more(make_server, post, fake_clock):
    server = make_server(limits=Quota(per_second=4, burst=2))
    assert [post(server).status for _ in range(3)] == [200, 200, 429]
    fake_clock.advance(0.1)
    refused = post(server)
    assert refused.headers["retry-after-ms"] == "150"
    fake_clock.advance(0.15)
    assert [post(server).status for _ in range(2)] == [200, 429]


def test_a_quota_per_minute_without_hints(make_server, post, fake_clock):
    server = make_server(limits=[Quota(per_minute=60, hint=None)])
    assert post(server).status == 200
    refused = post(server)
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert "retry-after-ms" not in refused.headers
    fake_clock.advance(1)
    assert post(server).status == 200


@given(st.sampled_from([0.3, 1.0, 7.0, 50.0]), st.integers(1, 9), st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_a_quota_never_accepts_more_than_rate_and_burst(rate, burst, gaps):
    quota = Quota(per_second=rate, burst=burst)
    now, accepted = 100.0, []
    for gap in gaps:
        now += gap
        if quota.refusal(now, 0) is None:
            accepted.append(now)
    for first, start in enumerate(accepted):
        for last, end in enumerate(accepted[first:], start=1):
            assert last <= burst + rate * (end - start) + 1e-6


@given(st.floats(0.1, 100), st.lists(st.floats(0, 0.5), max_size=20))
def test_whoever_waits_as_long_as_told_is_let_in(rate, gaps):
    quota = Quota(per_second=rate)
    now = 0.0
    for gap in gaps:
        now += gap
        refusal = quota.refusal(now, 0)
        if refusal is not None:
            now += refusal.wait
            assert quota.refusal(now, 0) is None


def test_a_quota_outlives_a_clock_that_is_put_back():
    quota = Quota(per_second=1)
    assert quota.refusal(1000.0, 0) is None
    assert quota.refusal(10.0, 0) is not None
    assert quota.refusal(11.0, 0) is None


def test_a_cap_refuses_what_is_beyond(make_server, post, open_socket):
    server = make_server([Stall(), Stall()], limits=Cap(2))
    first, _ = open_socket(server), open_socket(server)
    server.wait_for(2)
    refused = post(server)
    assert refused.status == 429
    assert "retry-after-ms" not in refused.headers
    first.close()
    server.wait_until(lambda: server.in_flight == 1)
    assert post(server).status == 200
    assert server.max_in_flight == 3


def test_a_cap_can_say_when_to_come_back(make_server, post, open_socket):
    server = make_server([Stall()], limits=Cap(1, hint="retry-after", wait=2))
    open_socket(server)
    server.wait_for(1)
    assert post(server).headers["retry-after"] == "2"


def test_a_refused_request_does_not_reach_the_script(make_server, post, fake_clock):
    server = make_server([Stall(), Stall()], limits=Quota(per_second=1))
    server.set_script([None])
    assert [post(server).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    "make",
    [
        Quota,
        lambda: Quota(per_second=1, per_minute=60),
        lambda: Quota(per_second=0),
        lambda: Quota(per_minute=-1),
        lambda: Quota(per_second=1, burst=0),
        lambda: Quota(per_second=1, hint="soon"),
        lambda: Cap(0),
        lambda: Cap(1, hint="soon"),
    ],
)
def test_a_wrong_limit_is_refused_where_it_is_made(make):
    with pytest.raises(ConfigurationError):
        make()
