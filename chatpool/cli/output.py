"""Answers on stdout, what failed on stderr, and the exit code that follows."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any, Dict, Optional

from ..batch.lines import finite, json_text, unbroken
from ..errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    InsufficientQuotaError,
    NotFoundError,
    PermissionDeniedError,
)
from ..types import ChatCompletion, Outcome
from . import exits
from .terminal import complain, show

__all__ = ["Printer"]

# No prompt can succeed after these ...
_ALWAYS_FATAL = (AuthenticationError, InsufficientQuotaError)
# ... and after these none will where none has yet.
_FATAL_AT_FIRST = (APIConnectionError, NotFoundError, PermissionDeniedError)


class Printer:
    """Prints outcomes and keeps count.

    Args:
        as_json: one JSON object per outcome instead of the bare text.
        keep_places: print an empty line where a prompt failed, so that the answers keep their places.

    Attributes:
        shown: how many outcomes were printed.
    """

    def __init__(self, *, as_json: bool, keep_places: bool) -> None:
        self._as_json = as_json
        self._keep_places = keep_places
        self.shown = 0
        self._causes: Counter[str] = Counter()
        self._first_failure: Optional[Outcome[Any]] = None
        self._fatal = False

    def show(self, outcome: Outcome[ChatCompletion]) -> None:
        """Print one outcome."""
        if self._as_json:
            show(_json(_record(outcome)))
        elif outcome.value is not None:
            show(outcome.value.text)
        elif self._keep_places:
            show()
        self.note(outcome)

    def note(self, outcome: Outcome[ChatCompletion]) -> None:
        """Count one outcome whose text stands on stdout already."""
        self.shown += 1
        if outcome.error is None:
            return
        self._causes[type(outcome.error).__name__] += 1
        self._first_failure = self._first_failure or outcome
        self._fatal = self._fatal or _ends_the_run(outcome)

    def finish(self) -> int:
        """Say on stderr what failed; returns the exit code."""
        first = self._first_failure
        if first is None:
            return exits.OK
        failed = sum(self._causes.values())
        error = f"{type(first.error).__name__}: {first.error}"
        if self.shown > 1:
            causes = ", ".join(f"{count} x {name}" for name, count in self._causes.most_common())
            error = f"{failed} of {self.shown} failed ({causes}); the first was prompt {first.index + 1}: {error}"
        complain(error)
        at_first = failed == self.shown and isinstance(first.error, _FATAL_AT_FIRST)
        return exits.FATAL if self._fatal or at_first else exits.SOME_FAILED


def _ends_the_run(outcome: Outcome[Any]) -> bool:
    """Whether the outcome is of the kind that leaves no hope for the rest.

    A prompt that was never sent and yet has the error of an answer was given up because of another's fatal error.
    """
    unsent = isinstance(outcome.error, APIError) and not outcome.attempts
    return unsent or isinstance(outcome.error, _ALWAYS_FATAL)


def _json(record: Dict[str, Any]) -> str:
    """``record`` on one line; in ASCII where stdout cannot write all of it: Python's escapes are not JSON's."""
    try:
        line = unbroken(json.dumps(finite(record), ensure_ascii=False).encode("utf-8")).decode("utf-8")
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json_text(record)
    return line


def _record(outcome: Outcome[ChatCompletion]) -> Dict[str, Any]:
    record: Dict[str, Any] = {"index": outcome.index, "prompt": outcome.item, "ok": outcome.ok}
    answer = outcome.value
    if answer is not None:
        record.update(text=answer.text, model=answer.model, finish_reason=answer.finish_reason)
        record.update(usage=vars(answer.usage) if answer.usage else None, request_id=answer.request_id)
    if outcome.error is not None:
        facts = {name: getattr(outcome.error, name, None) for name in ("status_code", "code", "request_id")}
        record["error"] = {"type": type(outcome.error).__name__, "message": outcome.error.message, **facts}
    record.update(attempts=outcome.attempts, elapsed=round(outcome.elapsed, 3))
    return record
