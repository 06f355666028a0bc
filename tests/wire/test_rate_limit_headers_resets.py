"""Resets of quotas that are used up."""

from __future__ import annotations

import json
import time

import pytest
from requests.structures import CaseInsensitiveDict

from chatpool import ChatRequest, DayLimitError, RateLimitError
from chatpool._values import HTTPResponse
from chatpool._wire import classify_response
from chatpool._wire.rate_limit_headers import objects_in, quota_reset, resume_line

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
HOURS = 9 * 3600.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (str(int(NOW + HOURS)), HOURS),
        (str(int((NOW + HOURS) * 1000)), HOURS),
        (str(int((NOW + HOURS) * 1e6)), HOURS),
        (str(int((NOW + HOURS) * 1e9)), HOURS),
        ("2023-11-15T07:13:20Z", HOURS),
        ("Wed, 15 Nov 2023 07:13:20 GMT", HOURS),
        ("32400", HOURS),
        ("9h", HOURS),
        (str(int(NOW - 5)), None),
        (str(int((NOW + 400 * 86400) * 1000)), None),
        ("0", None),
        ("-1", None),
        ("soon", None),
        ("", None),
    ],
)
def test_a_header_says_it_as_a_moment_or_as_a_wait(value, seconds):
    assert quota_reset([CaseInsensitiveDict({"X-RateLimit-Reset": value})], "", NOW) == seconds


def test_a_limit_that_is_not_used_up_is_another_one():
    headers = CaseInsensitiveDict({"X-RateLimit-Reset": "900", "X-RateLimit-Remaining": "12"})
    assert quota_reset([headers], "", NOW) is None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": (NOW + HOURS) * 1000}}}},
        {"error": {"resets_at": NOW + HOURS}},
        {"error": {"resets_in_seconds": HOURS}},
        {"error": {"reset_at": "2023-11-15T07:13:20.5Z"}},
        {"error": {"details": [{"@type": "x"}, {"retryDelay": "32400s"}]}},
        {"retry_after": HOURS},
    ],
)
def test_the_body_says_it(body):
    assert quota_reset(objects_in(body), "", NOW) == HOURS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Quota will be replenished in 09:00:00.", HOURS),
        ("Quota will be replenished in 1.09:00:00.", HOURS + 86400),
        ("Limit resets at 2023-11-15 07:13:20 UTC.", HOURS),
        ("Reset at: 2023-11-15T07:13:20Z", HOURS),
        ("Try again later", None),
    ],
)
def test_the_words_say_it(text, seconds):
    assert quota_reset([], text, NOW) == seconds


@pytest.mark.parametrize("body", [None, [], "x", {"reset_at": True}, {"reset": []}, {"retry_after": None}])
def test_what_makes_no_sense_is_no_hint(body):
    assert quota_reset(objects_in(body), "", NOW) is None


def classify(message, headers, **more):
    content = json.dumps({"error": {"message": message, "code": 429, **more}}).encode()
    reply = HTTPResponse(429, CaseInsensitiveDict(headers), content, "http://h/v1")
    return classify_response(reply, ChatRequest({"model": "m"}), endpoint_proven=True, model_proven=True, wall=NOW)


def test_a_quota_for_the_day_says_when_to_go_on():
    said = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int((NOW + HOURS) * 1000))}
    for headers, metadata in ((said, {}), ({}, {"headers": said})):
        verdict = classify("Rate limit exceeded: free-models-per-day", headers, metadata=metadata)
        assert (verdict.kind, verdict.retry_after, verdict.error.retry_after) == ("throttled", HOURS, HOURS)
        assert f"go on in 9 h 0 min, at {local(NOW + HOURS + 40)}: run what is left" in str(verdict.error)
        assert verdict.error.resume_at == NOW + HOURS


def test_a_short_wait_does_not_hide_that_the_day_is_used_up():
    headers = {"Retry-After": "5", "X-RateLimit-Reset": str(int(NOW + HOURS))}
    assert classify("50 requests per day used up", headers).retry_after == HOURS
    assert classify("too many requests", headers).retry_after == 5.0


def test_a_wait_of_minutes_is_said_in_minutes():
    assert resume_line(600, NOW) == f"go on in 10 min, at {local(NOW + 640)}: run the failed items again then"


@pytest.mark.parametrize(
    "clock", ["9" * 5000 + ":00:00", "9" * 5000 + ".1:00:00", "9" * 400 + ":00:00", "999999999:00:00"]
)
def test_a_clock_with_absurd_numbers_says_nothing(clock):
    assert classify(f"quota used up, resets in {clock}", {}).error.retry_after is None


def test_a_day_without_a_time_ends_at_midnight():
    error = classify("daily quota used up", {}).error
    assert isinstance(error, DayLimitError)
    assert error.resume_at == 1_700_006_400  # 2023-11-15T00:00:00Z


GEMINI = {
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "250"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
    ],
}
EXCEEDED = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize("message", [EXCEEDED, f"{EXCEEDED} Please retry in 34.07s."])
def test_geminis_day_ends_at_midnight_in_california_whatever_it_asks_for(message):
    verdict = classify(message, {}, **GEMINI)
    assert verdict.kind == "throttled"
    assert isinstance(verdict.error, DayLimitError)
    assert verdict.error.resume_at == 1_700_035_200  # 2023-11-15T08:00:00Z


def test_geminis_minute_is_no_day():
    per_minute = json.loads(json.dumps(GEMINI).replace("PerDay", "PerMinute"))
    verdict = classify(f"{EXCEEDED} Please retry in 34.07s.", {}, **per_minute)
    assert (verdict.kind, verdict.retry_after, type(verdict.error)) == ("throttled", 34.07, RateLimitError)


def test_a_wait_of_hours_is_a_limit_for_the_day_whatever_it_is_called():
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "8h24m0s"}
    assert type(classify("Rate limit reached", headers).error) is DayLimitError
    assert type(classify("Rate limit reached", {"Retry-After": "3000"}).error) is RateLimitError


def test_openais_day_names_the_time_of_the_next_request():
    text = "Rate limit reached for m on requests per day (RPD): Limit 200, Used 200. Please try again in 7m12s."
    error = classify(text, {"x-ratelimit-reset-requests": "8h24m0s"}).error
    assert (type(error), error.retry_after) == (DayLimitError, 432.0)


def local(moment):
    return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(moment))
