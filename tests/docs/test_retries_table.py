"""The table of retries in the documentation says what the rules do."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from chatpool import ChatRequest, RetryPolicy
from chatpool._policy.health import HealthSnapshot
from chatpool._policy.retry import Deadline, RetryDecider
from chatpool._values import HTTPResponse
from chatpool._wire import UnreadableAnswer, classify_exception, classify_response

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "retries.md"
CHAT = ChatRequest({"model": "m", "messages": []})
SPEECH = ChatRequest({"model": "m"}, "/audio/speech")
NEVER = 60  # sends: it goes on for as long as there is time


def judge(request, status, content, headers=None, *, proven=True):
    reply = HTTPResponse(status, CaseInsensitiveDict(headers or {}), content, "http://h/v1")
    return classify_response(reply, request, endpoint_proven=proven, model_proven=proven, wall=0.0)


def answer(status, error=None, headers=None, *, proven=True, varied=False):
    """The verdicts on answers of this kind, one after the other."""

    def verdict(number):
        payload = {"choices": []} if status == 200 else {"error": {"message": "no", **(error or {})}}
        content = json.dumps({**payload, "number": number} if varied else payload).encode()
        return judge(CHAT, status, content, headers, proven=proven)

    return verdict


def raised(error):
    return lambda number: classify_exception(error, url="http://h/v1")


STARTING = HealthSnapshot(failing_for=500.0)
WORKED = HealthSnapshot(recheck=1.0)

# What the table names -> failures of that kind, and the line that they happen on.
SAMPLES = {
    "no connection, a broken one, half an answer": [
        (raised(error), HealthSnapshot())
        for error in (
            requests.exceptions.ConnectionError(ConnectionRefusedError()),
            requests.exceptions.ConnectionError(ConnectionResetError()),
            requests.exceptions.ChunkedEncodingError("half"),
        )
    ],
    "5xx": [(answer(status), HealthSnapshot()) for status in (500, 502, 503, 520, 529)],
    '5xx that says that the server is starting, such as "loading model"': [
        (answer(503, {"message": "Loading model"}), STARTING)
    ],
    "409, 425": [(answer(status), HealthSnapshot()) for status in (409, 425)],
    "200 without a usable answer: not JSON, no choices, an error inside": [
        (answer(200, varied=True), HealthSnapshot())
    ],
    "the same unusable answer, to the last byte": [(answer(200), HealthSnapshot())],
    "an attempt that timed out": [(raised(requests.exceptions.ReadTimeout()), HealthSnapshot())],
    "408, 504, 524: a gateway has waited in vain": [(answer(status), HealthSnapshot()) for status in (408, 504, 524)],
    "429 because of a rate limit, 403 with a `Retry-After`": [
        (answer(429), HealthSnapshot()),
        (answer(429, headers={"Retry-After": "1"}), HealthSnapshot()),
        (answer(403, headers={"Retry-After": "1"}), HealthSnapshot()),
    ],
    "429 because the request is larger than the limit": [
        (answer(429, {"message": "Request too large"}), HealthSnapshot())
    ],
    "401 with a callable key": [(answer(401), HealthSnapshot())],
    "401, 403, 404 of a key or a model that has worked within the last minute": [
        (answer(status), WORKED) for status in (401, 403, 404)
    ],
    "401, 407; 402, 403, 429 because the credit is used up": [
        (answer(401), HealthSnapshot()),
        (answer(407), HealthSnapshot()),
        (answer(402), HealthSnapshot()),
        (answer(403, {"message": "Your team doesn't have any credits"}), HealthSnapshot()),
        (answer(429, {"code": "insufficient_quota"}), HealthSnapshot()),
    ],
    "403, 404 before the first success": [(answer(status, proven=False), HealthSnapshot()) for status in (403, 404)],
    "403, 404 later": [(answer(status), HealthSnapshot()) for status in (403, 404)],
    "any other 4xx": [(answer(status), HealthSnapshot()) for status in (400, 405, 410, 413, 418, 422)],
    "a good answer that is not JSON, to a path that is not known to answer with JSON": [
        (lambda number: judge(SPEECH, 200, b"ID3", {"Content-Type": "audio/mpeg"}), HealthSnapshot())
    ],
    "an answer whose head does not tell where it ends": [
        (raised(UnreadableAnswer("Content-Length: x")), HealthSnapshot())
    ],
}


def rows():
    """The rows of the table: what happened, whether again, whether it uses up a retry."""
    section = PAGE.read_text(encoding="utf-8").split("## What is tried again", 1)[1].split("\n## ", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return cells[2:]


def test_every_row_has_its_sample_and_every_sample_its_row():
    assert [row[0] for row in rows()] == list(SAMPLES)


def sends_of(again, costs):
    """How often a call is sent that fails so each time, by the words of the table."""
    if again.startswith("yes"):
        return RetryPolicy().max_retries + 1 if costs.startswith("yes") else NEVER
    word = re.match(r"\w+", again).group()
    return {"no": 1, "once": 2, "twice": 3, "three": 4}[word]


@pytest.mark.parametrize(("what", "again", "costs"), rows(), ids=[row[0] for row in rows()])
def test_the_rules_do_what_the_row_says(what, again, costs):
    for verdict_on, line in SAMPLES[what]:
        retrier = RetryDecider(RetryPolicy(), max_workers=10)
        state = retrier.start(first_sent=0.0)
        for sent in range(1, NEVER + 1):
            verdict, key = verdict_on(sent), "callable" in what
            decision = retrier.decide(
                state, verdict, attempt=sent, now=0.0, deadline=Deadline(math.inf), snapshot=line, refreshable=key
            )
            if decision.wait is None:
                break
            assert bool(state.retries) == (costs.startswith("yes"))
        assert sent == sends_of(again, costs), verdict
        if decision.wait is None:
            assert (decision.scope != "call") == ("end" in again or verdict.status == 401), verdict
