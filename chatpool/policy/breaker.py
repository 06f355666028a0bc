"""An endpoint that refuses every call for good is left alone, and asked again now and then."""

from __future__ import annotations

import math
from typing import Optional

from ..errors import ChatPoolError

__all__ = ["Breaker", "EndpointHealth"]

# A key is put right, or credit bought, by a person: nobody is that fast, and a probe costs a call its time.
_FIRST_PAUSE = 60.0  # seconds, then twice as long each time
_LONGEST_PAUSE = 600.0


class Breaker:
    """Trips at a refusal that holds for every call (a wrong key, no credit), and lets one call at a time try again.

    Only used where calls can go to another endpoint instead.

    Not thread-safe: the caller holds the lock.

    Attributes:
        reason: the refusal, None while calls may be sent.
    """

    __slots__ = ("_pause", "_probe_at", "_probe_out", "_tripped_at", "reason")

    def __init__(self) -> None:
        self.reason: Optional[ChatPoolError] = None
        self._pause = 0.0
        self._tripped_at = self._probe_at = -math.inf
        self._probe_out = False

    def trip(self, reason: ChatPoolError, sent_at: float, now: float) -> bool:
        """A call that went out at ``sent_at`` was refused; returns whether nobody knew that every call is."""
        if self.reason is not None and sent_at < self._tripped_at:
            return False  # it was on its way already
        first = self.reason is None
        self._pause = _FIRST_PAUSE if first else min(2 * self._pause, _LONGEST_PAUSE)
        if first:
            self._tripped_at = now
        self.reason, self._probe_at, self._probe_out = reason, now + self._pause, False
        return first

    def wait(self, now: float) -> float:
        """Seconds until a call may be sent; 0 for now, ``inf`` while one is trying."""
        if self.reason is None:
            return 0.0
        return math.inf if self._probe_out else max(0.0, self._probe_at - now)

    def sent(self) -> None:
        """A call goes out."""
        self._probe_out = self.reason is not None

    def returned(self, kind: str, sent_at: float, now: float) -> None:
        """A call that went out at ``sent_at`` has ended with a verdict of this kind; a refusal trips it besides."""
        if self.reason is None or sent_at < self._tripped_at:
            return
        if kind == "success":
            self.reset()
        else:
            self._probe_out, self._probe_at = False, now + self._pause

    def reset(self) -> None:
        """Forget the refusal."""
        self.reason, self._probe_out = None, False


class EndpointHealth:
    """What is known of one endpoint, whatever the model.

    Attributes:
        proven: whether any call to it has ever succeeded.
        worked_at: when a call succeeded last.
        breaker: keeps calls away from it.
    """

    __slots__ = ("breaker", "proven", "worked_at")

    def __init__(self) -> None:
        self.proven = False
        self.worked_at = -math.inf
        self.breaker = Breaker()
