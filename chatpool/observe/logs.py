"""Retries, to the ``chatpool`` logger at level INFO."""

from __future__ import annotations

import logging

from ..events import Event

__all__ = ["RetryLog"]

logger = logging.getLogger("chatpool")


class RetryLog:
    """Logs one line per retry: which attempt of which call failed, why, and the wait.  Never a prompt, never a key."""

    kinds = frozenset({"retrying"})

    def __call__(self, event: Event) -> None:
        logger.info(
            "call %d: attempt %d failed (%s); next attempt in %.3g s",
            event.call_id,
            event.attempt,
            event.reason,
            event.wait,
        )
