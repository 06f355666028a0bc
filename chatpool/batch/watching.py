"""State of a batch run, seen from another process: by the status beside its journal, and by the journal's lock."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Mapping, NamedTuple, Optional

from .._journal import is_journal, is_locked, read_status
from ..errors import ConfigurationError
from .output_files import journal_beside

__all__ = ["STALE_SECONDS", "RunView", "journal_of", "look", "number_in"]

_MAX_NUMBER = 10**15

STALE_SECONDS = 10.0
"""Age of a status from which on the run is taken for gone, where no lock tells."""


class RunView(NamedTuple):
    """State of a run at one moment.

    Attributes:
        is_running: whether it is under way.
        status: what it said of itself last, None where it has said nothing; see :class:`~.run_status.RunStatus`.
        age: seconds since then.
    """

    is_running: bool
    status: Optional[Dict[str, Any]]
    age: float = 0.0

    @property
    def was_killed(self) -> bool:
        """True if the run did not come to its end: it would have removed its status."""
        return self.status is not None and not self.is_running


def journal_of(output: str) -> str:
    """Return the journal of the run with this output, or the journal itself where that is named.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        if os.path.isfile(output) and is_journal(output):
            return output
    except OSError as error:
        raise ConfigurationError(f"cannot read {output}: {error.strerror or error}") from error
    journal = journal_beside(output)
    if not os.path.exists(journal):
        raise ConfigurationError(
            f"no run has written {journal}: name the output of a run that has begun, or its journal (the "
            "file of --journal)"
        )
    return journal


def look(journal: str) -> RunView:
    """Return the state of the run with this journal; nothing is changed."""
    status, has_lock = read_status(journal), is_locked(journal)
    if status is not None and has_lock is False:
        status = read_status(journal)  # a run that has just ended has removed it before it released the lock
    if status is None:
        return RunView(bool(has_lock), None)
    at = number_in(status, "at")
    age = max(0.0, time.time() - at) if at else 0.0
    return RunView(age < STALE_SECONDS if has_lock is None else has_lock, status, age)


def number_in(status: Mapping[str, Any], name: str) -> float:
    """Return a number of a status; 0 where there is none, or one that no run has: it is from a file."""
    value = status.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER
    return value if is_number else 0  # type: ignore[return-value]  # checked
