"""One line per retry."""

from __future__ import annotations

import logging

from chatpool._observe.listeners import RetryLog
from chatpool.events import Event


def test_a_retry_is_one_line_with_attempt_reason_and_wait(caplog):
    event = Event("retrying", call_id=7, attempt=2, time=0.0, reason="503 server_error", wait=1.25)
    with caplog.at_level(logging.INFO, logger="chatpool"):
        RetryLog()(event)
    assert caplog.messages == ["call 7: attempt 2 failed (503 server_error); next attempt in 1.25 s"]
