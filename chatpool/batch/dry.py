"""What a run would do."""

from __future__ import annotations

import os
from typing import Any, Optional

from ..journal import Journal
from .job import Job
from .outputs import Paths
from .result import BatchResult
from .tables import check_fields
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
    if not rows.source.is_stream:
        rows.check(journal)
        check_fields(job, rows.columns)
    for work in rows.works():
        state = None if journal is None else journal.state(work.key, work.hash)
        again = job.retry_failed is not False
        record = journal.read(work.key, work.hash) if journal is not None and again else None
        if job.wants(state, record):
            result.rows += 1
            result.pending += 1
            result.estimated_tokens += estimate(work)
        elif not again and state is not None:
            result.rows += 1
            result.ended_before(state)
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
