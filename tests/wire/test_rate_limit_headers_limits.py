"""Rate limits in headers, as numbers."""

from __future__ import annotations

import pytest

from chatpool._values import StatedLimit
from chatpool._wire.rate_limit_headers import stated_limits


def headers(limit="60", remaining="59", reset="1s", kind="requests"):
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": value for name, value in values.items() if value is not None}


def test_requests_and_tokens_are_read():
    both = {**headers(), **headers("90000", "1234.5", "6m0s", "tokens")}
    assert stated_limits(both) == (StatedLimit(60, 59, 1.0), StatedLimit(90_000, 1234.5, 360.0))


def test_what_is_not_there_is_none():
    assert stated_limits({}) == (None, None)


@pytest.mark.parametrize("reset", [None, "0", "-1", "0s", "soon", ""])
def test_a_reset_that_says_nothing_is_none(reset):
    assert stated_limits(headers(reset=reset))[0] == StatedLimit(60, 59, None)


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [
        (None, "5"),
        ("5", None),
        ("-1", "-1"),
        ("0", "0"),
        ("5", "-1"),
        ("5", "6"),
        ("nan", "1"),
        ("inf", "1"),
        ("x", "1"),
        ("1e300", "1"),
        ("9" * 5000, "1"),
    ],
)
def test_nonsense_is_no_limit(limit, remaining):
    assert stated_limits(headers(limit, remaining))[0] is None
