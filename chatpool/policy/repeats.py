"""Answers that come again and again to the same call."""

from __future__ import annotations

from typing import Dict, Optional

from ..types import Verdict

__all__ = ["Repeats"]

_SAME_ANSWERS = 3


class Repeats:
    """How often a call has met the same failure.

    A plain count, kept with the call.
    """

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: Optional[Dict[str, int]] = None

    def has_enough_of(self, verdict: Verdict) -> bool:
        """Note a failure; return True for an unusable answer that has come three times, the same to the last byte."""
        if verdict.fingerprint is None or verdict.kind != "retry":
            return False
        answers = self._answers = self._answers or {}
        answers[verdict.fingerprint] = answers.get(verdict.fingerprint, 0) + 1
        return answers[verdict.fingerprint] >= _SAME_ANSWERS
