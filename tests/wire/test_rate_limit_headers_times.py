"""Durations and moments as servers write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._wire.rate_limit_headers import parse_duration, parse_moment

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2),
        ("0.5", 0.5),
        ("0", 0),
        (" 3 ", 3),
        ("86400", 86400),
        ("1s", 1),
        ("20ms", 0.02),
        ("599ms", 0.599),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400),
        ("750us", 0.00075),
        ("750µs", 0.00075),
        ("12ns", 1.2e-8),
        ("33 seconds", 33),
        ("1 second", 1),
        ("2 minutes", 120),
        ("1 hour 30 minutes", 5400),
        ("5 MIN", 300),
        ("250 milliseconds", 0.25),
    ],
)
def test_a_duration_is_read_in_every_usual_form(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [None, "", "soon", "-1", "-2s", "nan", "inf", "1e999", "1_000", "s", "1.2.3", "5 parsecs", "1sms2", "99999999999"],
)
def test_nonsense_is_no_duration(text):
    assert parse_duration(text) is None


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_go_duration_is_the_sum_of_its_parts(hours, minutes, seconds, milliseconds):
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    assert parse_duration(text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


@pytest.mark.parametrize(
    "text",
    [
        "1700000000",
        "1700000000000",
        "1700000000000000",
        "1700000000000000000",
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "2023-11-14T22:13:20Z",
        "2023-11-14 22:13:20.123456789 UTC",
        "2023-11-15T00:13:20+02:00",
        " 2023-11-14T22:13:20 ",
    ],
)
def test_a_moment_is_read_in_every_usual_form(text):
    assert parse_moment(text, math.nan) == NOW


@pytest.mark.parametrize("text", [None, "", "soon", "True", "2023-99-99"])
def test_nonsense_is_no_moment(text):
    assert parse_moment(text, 5.0) == 5.0
