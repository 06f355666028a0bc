"""Answers that come again and again to the same call."""

from __future__ import annotations

from typing import Dict, Optional

from ..types import Verdict

__all__ = ["Repeats", "is_of_the_size"]

_SAME_ANSWERS = 3


def is_of_the_size(verdict: Verdict) -> bool:
    """Recognise a failure that, of a call which asks for many things at once, says little about the server."""
    return verdict.about == "content" or (verdict.kind == "timeout" and verdict.status is not None)


class Repeats:
    """How often a call has met the same failure.

    A plain count, kept with the call.
    """

    __slots__ = ("_answers", "_stumbles")

    def __init__(self) -> None:
        self._stumbles = 0
        self._answers: Optional[Dict[str, int]] = None

    def comes_back(self, verdict: Verdict, *, suspects: int, down: bool) -> bool:
        """Note a failure; return True for the second that may be due to what was asked for, and not to the server.

        Args:
            verdict: the failure.
            suspects: how many things the call asks for; a single one has failed before, among others.
            down: whether the server seems to be down: then little is proved.
        """
        certain = is_of_the_size(verdict) and (suspects > 1 or not down)
        if not certain and (suspects == 1 or down or verdict.kind not in ("timeout", "retry")):
            return False
        self._stumbles += 1
        return self._stumbles >= 2

    def has_enough_of(self, verdict: Verdict) -> bool:
        """Note a failure; return True for an unusable answer that has come three times, the same to the last byte."""
        if verdict.fingerprint is None or verdict.kind != "retry":
            return False
        answers = self._answers = self._answers or {}
        answers[verdict.fingerprint] = answers.get(verdict.fingerprint, 0) + 1
        return answers[verdict.fingerprint] >= _SAME_ANSWERS
