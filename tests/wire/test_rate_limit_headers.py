"""Times to wait and limits, as servers state them."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from chatpool._wire.rate_limit_headers import limit_headers_of, retry_after_of

NOW = 1_700_000_000.0
MONTH = 31 * 86400


def hint(headers=None, text="", **keywords):
    return retry_after_of(CaseInsensitiveDict(headers or {}), text, NOW, **keywords)


def stated(headers):
    return limit_headers_of(CaseInsensitiveDict(headers), NOW)


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"Retry-After-Ms": "250"}, "", 0.25),
        ({"Retry-After": "2"}, "", 2),
        ({"Retry-After": "0.5"}, "", 0.5),
        ({"Retry-After": "86400"}, "", 86400),
        ({"Retry-After": "0"}, "", 0),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, "", 90),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, "", 0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:20 -0000"}, "", 60),
        ({"Retry-After": "Tuesday, 14-Nov-23 22:14:20 GMT"}, "", 60),
        ({}, "Rate limit reached. Please try again in 599ms. Visit us.", 0.599),
        ({}, "Please try again in 1.2s.", 1.2),
        ({}, "Please try again in 6m0s.", 360),
        ({}, "Please retry after 33 seconds. Go here to ask for more.", 33),
        ({}, "Please retry in 14.504s.", 14.504),
        ({"x-ratelimit-reset-requests": "1s"}, "", 1),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, "", 3723.5),
        ({"x-ratelimit-reset-tokens": "12"}, "", 12),
    ],
)
def test_every_form_of_hint_is_understood(headers, text, seconds):
    assert hint(headers, text) == pytest.approx(seconds)


def test_the_strongest_hint_wins():
    headers = {"x-ratelimit-reset-requests": "4s"}
    assert hint(headers) == 4
    assert hint(headers, "try again in 3s") == 3
    headers["retry-after"] = "2"
    assert hint(headers, "try again in 3s") == 2
    headers["retry-after-ms"] = "1000"
    assert hint(headers, "try again in 3s") == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "soon"},
        {"retry-after": "-5"},
        {"retry-after": "nan"},
        {"retry-after": "1e400"},
        {"retry-after": "Tue, 99 Nov 2023 22:14:20 GMT"},
        {"retry-after": formatdate(NOW + MONTH + 60, usegmt=True)},
        {"retry-after-ms": "x"},
        {"retry-after-ms": "-1"},
        {"x-ratelimit-reset-requests": "0"},
        {"x-ratelimit-reset-tokens": "-1"},
        {"x-ratelimit-reset-requests": "0s", "x-ratelimit-reset-tokens": "0ms"},
    ],
)
def test_nonsense_and_nothing_are_no_hint(headers):
    assert hint(headers) is None


def test_nonsense_in_a_strong_place_leaves_room_for_a_weaker_hint():
    assert hint({"retry-after-ms": "x", "retry-after": "soon"}, "try again in 3s") == 3


RESETS = {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "9s"}


class TestResets:
    """``x-ratelimit-reset-*`` come with every answer; which of them counts depends."""

    def test_they_do_not_count_when_nothing_was_refused_for_its_rate(self):
        assert hint(RESETS, resets=False) is None

    @pytest.mark.parametrize(("kind", "seconds"), [("requests", 1), ("tokens", 9), ("", 1), ("rate_limit", 1)])
    def test_the_limit_that_was_hit_says_which(self, kind, seconds):
        assert hint(RESETS, kind=kind) == seconds

    def test_a_limit_with_nothing_remaining_is_the_one(self):
        assert hint({**RESETS, "x-ratelimit-remaining-tokens": "0"}) == 9
        remaining = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-remaining-requests": "0"}
        assert hint({**RESETS, **remaining}) == 9


DAYS_END = int(NOW + 9 * 3600)


class TestMoments:
    """A reset or a Retry-After that says when, and not for how long."""

    @pytest.mark.parametrize("said", [str(DAYS_END), f"{DAYS_END}.0", str(DAYS_END * 1000), "2023-11-15T07:13:20Z"])
    @pytest.mark.parametrize(
        "name",
        [
            "X-RateLimit-Reset",
            "x-rate-limit-reset",
            "RateLimit-Reset",
            "x-ratelimit-reset-requests",
            "x-ratelimit-reset-tokens",
            "x-ratelimit-api_key-reset-requests",
            "llm_provider-x-ratelimit-reset-tokens",
            "Retry-After",
        ],
    )
    def test_it_is_read_in_seconds_in_milliseconds_and_as_a_date(self, name, said):
        assert hint({name: said}) == pytest.approx(9 * 3600)

    @pytest.mark.parametrize("ahead", [-3600, 0, 5])
    def test_one_just_past_is_now_and_one_that_is_near_is_near(self, ahead):
        assert hint({"Retry-After": str(int(NOW) + ahead)}) == max(0, ahead)

    @pytest.mark.parametrize("said", [str(int(NOW) - 40 * 86400), str(int(NOW) + 40 * 86400), "1e12", "1e300", "7e9"])
    def test_one_that_is_far_away_is_a_mistake(self, said):
        assert hint({"Retry-After": said, "X-RateLimit-Reset": said}) is None

    def test_a_plain_reset_may_be_a_duration_too_and_is_the_weakest(self):
        assert hint({"x-ratelimit-reset": "30"}) == 30
        assert hint({"x-ratelimit-reset": "30", **RESETS}) == 1
        assert hint({"x-ratelimit-reset": "0"}) is None
        assert hint({"x-ratelimit-reset": "30", "x-ratelimit-remaining": "4"}) is None

    @pytest.mark.parametrize("text", ["", "Requests per day: try again in 5s"])
    def test_where_a_quota_for_the_day_is_used_up_the_one_that_says_when_counts(self, text):
        assert hint({"x-ratelimit-reset": "9h"}, text) == 9 * 3600
        assert hint({"x-ratelimit-reset-requests": "9h"}, "Requests per day: try again in 5s") == 5
        assert hint(text="Try again in 5s", body={"error": {"resets_at": DAYS_END}}) == 5

    @pytest.mark.parametrize("skew", [-3600, 3600, 86400 * 365 * 5])
    def test_moments_are_by_the_servers_clock(self, skew):
        date = {"Date": formatdate(NOW + skew, usegmt=True)}
        for said in (formatdate(NOW + skew + 2, usegmt=True), str(int(NOW + skew + 2) * 1000)):
            assert hint({**date, "Retry-After": said}) == 2
        assert hint({**date, "X-RateLimit-Reset": str(int(NOW + skew) + 30)}) == 30
        assert hint({**date, "Retry-After": "7"}) == 7

    def test_without_a_readable_date_they_are_by_ours(self):
        assert hint({"Date": "today", "Retry-After": formatdate(NOW + 90, usegmt=True)}) == 90

    def test_headers_that_the_body_repeats_are_read(self):
        body = {
            "error": {"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": DAYS_END * 1000}}}
        }
        assert hint(body=body) == pytest.approx(9 * 3600)
        assert hint(body=body, resets=False) is None
        assert hint({"x-ratelimit-reset-requests": "3s"}, body=body) == 3
        assert hint(body={"error": {"metadata": {"headers": {"Retry-After": 4}}}}) == 4

    @pytest.mark.parametrize("body", [None, "x", [], {"error": "x"}, {"error": {"metadata": 3}}, {"error": {}}])
    def test_a_body_of_any_other_form_says_nothing(self, body):
        assert hint(body=body) is None


def test_what_a_proxy_hands_on_counts_after_its_own_word():
    handed_on = {"llm_provider-retry-after": "9", "llm_provider-retry-after-ms": "8000"}
    assert hint({"llm_provider-retry-after": "9"}) == 9
    assert hint(handed_on) == 8
    assert hint({**handed_on, "retry-after": "2"}) == 2
    assert hint(handed_on, "try again in 3s") == 8


class TestLimits:
    """The limits a server states, by header name."""

    def test_a_limit_of_the_key_counts_by_the_usual_names(self):
        headers = {"x-ratelimit-api_key-limit-requests": "60", "x-ratelimit-api_key-remaining-requests": "7"}
        assert stated(headers) == {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "7"}

    @pytest.mark.parametrize(("of_key", "of_server", "left"), [("7", "9", "7"), ("9", "7", "7"), ("9", "-1", "9")])
    def test_of_two_the_one_with_less_left_counts(self, of_key, of_server, left):
        headers = {
            "x-ratelimit-api_key-limit-tokens": "60",
            "x-ratelimit-api_key-remaining-tokens": of_key,
            "x-ratelimit-limit-tokens": "100",
            "x-ratelimit-remaining-tokens": of_server,
        }
        assert stated(headers)["x-ratelimit-remaining-tokens"] == left
        assert stated(headers)["x-ratelimit-limit-tokens"] == ("60" if left == of_key else "100")

    def test_a_reset_that_is_a_moment_becomes_seconds(self):
        headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "7"}
        for said in (str(int(NOW) + 30), str((int(NOW) + 30) * 1000)):
            assert stated({**headers, "x-ratelimit-reset-requests": said})["x-ratelimit-reset-requests"] == "30.000"

    def test_there_are_none_without_headers(self):
        assert stated({"content-type": "application/json"}) == {}

    @pytest.mark.parametrize("name", ["limit-requests", "limit-tokens", "remaining-requests", "remaining-tokens"])
    def test_any_one_is_enough(self, name):
        assert stated({f"X-RateLimit-{name}": "5"}) == {f"x-ratelimit-{name}": "5"}

    def test_all_are_kept_and_nothing_else(self):
        headers = {
            "x-ratelimit-limit-requests": "100",
            "x-ratelimit-remaining-requests": "99",
            "x-ratelimit-reset-requests": "1s",
        }
        assert stated({**headers, "x-request-id": "req_1"}) == headers


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "x-ratelimit-reset-requests"]),
        st.text() | st.from_regex(r"-?[0-9.e]{1,12}(ms|s|m|h)?", fullmatch=True),
    ),
    st.text() | st.builds("please try again in {}".format, st.text()),
)
def test_whatever_is_said_a_hint_is_none_or_a_sane_number_of_seconds(headers, text):
    seconds = hint(headers, text)
    assert seconds is None or 0 <= seconds <= MONTH
