"""How a fake server says how long to wait."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool.clock import install_clock
from chatpool.testing import HINTS, FakeClock
from chatpool.testing.http_parts import go_duration, hint_of

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (0.02, "20ms"),
        (0.599, "599ms"),
        (1, "1s"),
        (1.2, "1.2s"),
        (59.9996, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3723.5, "1h2m3.5s"),
    ],
)
def test_a_duration_is_said_as_openai_says_it(seconds, said):
    assert go_duration(seconds) == said


@given(st.floats(0, 1e6))
def test_a_duration_is_never_shorter_than_meant_and_exact_to_a_millisecond(seconds):
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", go_duration(seconds))
    told = sum(float(number) * UNITS[unit] for number, unit in parts)
    assert seconds - 1e-6 <= told <= seconds + 0.001 + 1e-6


@given(st.floats(0, 1e5))
def test_a_number_is_never_less_than_meant(seconds):
    assert int(hint_of("retry-after-ms", seconds).headers[0][1]) / 1000 >= seconds - 1e-6
    assert float(hint_of("retry-after", seconds).headers[0][1]) >= seconds - 1e-6


def test_every_hint_says_something_in_its_own_way():
    assert len({hint_of(hint, 90.5) for hint in HINTS}) == len(HINTS)
    assert hint_of(None, 90.5) == ((), "")


def test_a_date_follows_the_installed_clock():
    previous = install_clock(FakeClock(wall=1_000_000_000.5))
    try:
        said = dict(hint_of("retry-after-date", 60).headers)
    finally:
        install_clock(previous)
    assert said == {"retry-after": "Sun, 09 Sep 2001 01:47:41 GMT"}
    assert parsedate_to_datetime(said["retry-after"]).timestamp() == 1_000_000_061
