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
