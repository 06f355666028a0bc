"""OpenTelemetry's instrumentation of requests: spans of the calls are children of the submitter's."""

from __future__ import annotations

import json
import threading

import pytest

from chatpool.testing import Error

pytestmark = pytest.mark.deploy


@pytest.mark.smoke
@pytest.mark.parametrize("method", ["submit", "chat"])
def test_every_attempt_keeps_its_parent(chatpool_server_factory, python, method):
    crowded, failed = threading.Event(), set()

    def answer(request):
        # Nothing is answered before most calls are in flight; and each fails once, so that its second attempt is made
        # by another worker.
        if server.in_flight > 32:
            crowded.set()
        crowded.wait(60)
        if request.prompt in failed:
            return None
        failed.add(request.prompt)
        return Error(503)

    server = chatpool_server_factory(answer)
    program = python("traced_calls.py", server.base_url, method)
    assert program.ended() == 0, program.output
    seen = json.loads(program.output)

    numbers = [str(number) for number in range(64)]
    assert sorted(seen["parents"]) == sorted(2 * [f"parent of {number}" for number in numbers])
    sent = sorted((request.prompt, request.headers["traceparent"].split("-")[1]) for request in server.requests)
    assert sent == sorted(2 * list(seen["traces"].items()))
    assert crowded.is_set()


def test_attempts_are_children_of_the_span_of_their_call(chatpool_server_factory, python):
    failed = set()

    def answer(request):
        if request.prompt in failed or request.prompt == "streamed":
            return None
        failed.add(request.prompt)
        return Error(503)

    server = chatpool_server_factory(answer)
    program = python("traced_spans.py", server.base_url)
    assert program.ended() == 0, program.output
    spans = {span["id"]: span for span in json.loads(program.output)}
    (caller,) = [span for span in spans.values() if span["name"] == "caller"]
    calls = [span for span in spans.values() if span["name"] == "chat m"]
    attempts = [span for span in spans.values() if span["name"] == "POST"]

    assert {span["parent"] for span in calls} == {caller["id"]}
    assert [span["events"] for span in sorted(calls, key=lambda span: span["events"])] == [0] + 32 * [1]
    statuses = {span["id"]: [each["status"] for each in attempts if each["parent"] == span["id"]] for span in calls}
    assert sorted(map(sorted, statuses.values())) == [[200]] + 32 * [[200, 503]]
    for attempt in attempts:
        call = spans[attempt["parent"]]
        assert call["start"] <= attempt["start"] <= attempt["end"] <= call["end"]
    # The header that goes to the server names the attempt.
    assert {request.headers["traceparent"].split("-")[2] for request in server.requests} == {
        span["id"] for span in attempts
    }
