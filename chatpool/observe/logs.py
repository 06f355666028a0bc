"""Retries and what is asked again, to the ``chatpool`` logger at level INFO."""

from __future__ import annotations

import logging

from ..events import Event
from ..redaction import printable

__all__ = ["RetryLog"]

logger = logging.getLogger("chatpool")


class RetryLog:
    """Logs one line per retry: which attempt of which call failed, why, and the wait.  Never a prompt, never a key.

    The same for an answer that was not taken.
    """

    kinds = frozenset({"retrying", "reasking"})

    def __call__(self, event: Event) -> None:
        reason = printable(event.reason or "")  # some are a server's words
        if event.kind == "reasking":
            logger.info("call %d: attempt %d: %s; it is asked again", event.call_id, event.attempt, reason)
            return
        logger.info(
            "call %d: attempt %d failed (%s); next attempt in %.3g s",
            event.call_id,
            event.attempt,
            reason,
            event.wait,
        )
