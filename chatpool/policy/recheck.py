"""A key or a model that has just worked and is refused now: perhaps a gateway under load, so it is tried again."""

from __future__ import annotations

import math
from typing import Optional

__all__ = ["TRIES", "Recheck"]

TRIES = 3

_EVERY = 1.0  # seconds between two tries
_HOLD = 1.01  # seconds for which fresh calls are held: a refused call comes before them
_WORKED_WITHIN = 60.0  # seconds


class Recheck:
    """Holds a line while a refusal of the key, a permission or the model is in doubt, and lets one call at a time try.

    It is in doubt after a success within the last minute.  A success that was sent after the refused attempt ends
    the doubt, and so do three refused tries: then the refusal stands, until something succeeds again.

    Not thread-safe: the caller holds the lock.

    Attributes:
        stands: whether a refusal was in doubt and holds, since when nothing has succeeded.
        worked_at: when a call succeeded last.
        good_sent_at: the latest send of a call that succeeded.
    """

    __slots__ = ("_refused_sent_at", "_since", "_tries", "_try_at", "_try_out", "good_sent_at", "stands", "worked_at")

    def __init__(self) -> None:
        self.worked_at = self.good_sent_at = -math.inf
        self._since: Optional[float] = None  # when the doubt began
        self._refused_sent_at = 0.0
        self.stands = False
        self._tries = 0
        self._try_at = 0.0
        self._try_out = False

    @property
    def pause(self) -> Optional[float]:
        """Seconds after which a refused call may be tried again, None where the refusal stands."""
        return None if self._since is None else _EVERY

    def wait(self, now: float) -> float:
        """Seconds until a call may be sent: 0 for now, ``inf`` while one is trying."""
        if self._since is None:
            return 0.0
        return math.inf if self._try_out else max(0.0, self._try_at - now)

    def sent(self) -> None:
        """A call goes out."""
        self._try_out = self._since is not None

    def succeeded(self, sent_at: float, now: float) -> None:
        """A call that went out at ``sent_at`` has succeeded."""
        self.worked_at, self.stands = now, False
        self.good_sent_at = max(self.good_sent_at, sent_at)
        if self._since is not None and sent_at >= self._refused_sent_at:
            self._since, self._try_out = None, False

    def refused(self, sent_at: float, now: float, worked_at: float) -> None:
        """A call that went out at ``sent_at`` was refused.

        Args:
            sent_at: when it was sent.
            now: the time.
            worked_at: when what is refused worked last.
        """
        if self._since is None:
            if self.stands or now - worked_at > _WORKED_WITHIN:
                return
            self._since, self._refused_sent_at, self._tries = now, sent_at, 0
        elif sent_at >= self._since:
            self._tries += 1
        else:
            return  # it was on its way already
        self._try_out, self._try_at = False, now + _HOLD
        if self._tries >= TRIES:
            self._since, self.stands = None, True

    def ended(self, sent_at: float) -> None:
        """A call that went out at ``sent_at`` has come to an end that says nothing about the refusal."""
        if self._since is not None and sent_at >= self._since:
            self._try_out = False
