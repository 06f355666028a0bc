"""What a run would do."""

from __future__ import annotations

import os
from typing import Any, Optional

from ..journal import OK, Journal
from .job import Job
from .outputs import Paths
from .result import BatchResult
from .work import Rows, Work

__all__ = ["count_tokens", "estimate"]

_PER_TOKEN = 4  # characters of English; other scripts need more tokens


def count_tokens(rows: Rows, job: Job, paths: Paths, result: BatchResult) -> None:
    """Count the rows that would be sent and estimate their tokens; nothing is written.

    Raises:
        ConfigurationError: a line cannot be used.
    """
    if os.path.exists(paths.journal):
        with Journal(paths.journal) as journal:
            _count(rows, job, journal, result)
    else:
        _count(rows, job, None, result)


def _count(rows: Rows, job: Job, journal: Optional[Journal], result: BatchResult) -> None:
    is_stream, again = rows.source.is_stream, job.retry_failed is not False
    if not is_stream:
        rows.check(journal, dry=True)
    for work in rows.works():
        if journal is not None and is_stream:
            found = rows.recall(work, journal, dry=True)
            work.wanted = found.wanted
            if not (again or work.wanted):
                result.ended_before(found.state == OK)
        elif journal is None:
            work.wanted = not again
        result.rows += work.wanted or not again
        if work.wanted:
            result.pending += 1
            result.estimated_tokens += estimate(work)
    if rows.trouble is not None:
        raise rows.trouble


def estimate(work: Work) -> int:
    """About how many tokens the row's prompt has."""
    return 0 if work.request is None else -(-_characters(work.request.body) // _PER_TOKEN)


def _characters(value: Any) -> int:
    """The characters of all texts in a body that a model reads."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_characters(part) for name, part in value.items() if name not in ("model", "role", "type"))
    if isinstance(value, (list, tuple)):
        return sum(_characters(part) for part in value)
    return 0
