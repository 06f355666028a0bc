"""OpenTelemetry's instrumentation of requests: spans of the calls are children of the submitter's."""

from __future__ import annotations

import json

import pytest

from chatpool.testing import Delay, EachCall, Error

pytestmark = pytest.mark.deploy


@pytest.mark.smoke
@pytest.mark.parametrize("method", ["submit", "chat"])
def test_every_attempt_keeps_its_parent(chatpool_server_factory, python, method):
    # Each call fails once, so that its second attempt is made by another worker.
    server = chatpool_server_factory(EachCall(Delay(0.1, then=Error(503)), Delay(0.1)))
    program = python("traced_calls.py", server.base_url, method)
    assert program.ended() == 0, program.output
    seen = json.loads(program.output)

    numbers = [str(number) for number in range(64)]
    assert sorted(seen["parents"]) == sorted(2 * [f"parent of {number}" for number in numbers])
    sent = sorted((request.prompt, request.headers["traceparent"].split("-")[1]) for request in server.requests)
    assert sent == sorted(2 * list(seen["traces"].items()))
    assert server.max_in_flight > 32
