"""What a run would do."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Optional

from ..client.batch_runs import prompt_tokens
from ..journal import OK, Journal
from ..types import Usage
from .job import Job
from .output_tables import check_fields
from .outputs import Paths
from .result import BatchResult
from .work import Rows

__all__ = ["count_tokens"]


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
        check_fields(job, rows.columns)
    tokens: Counter[Optional[str]] = Counter()  # by model
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
            if work.request is not None:
                tokens[work.request.model] += prompt_tokens(work.request)  # type: ignore[assignment]  # a float
    if rows.trouble is not None:
        raise rows.trouble
    bill = job.bill()
    for model, count in tokens.items():
        bill.add(Usage(math.ceil(count), 0, math.ceil(count)), model)
    result.estimated_tokens = bill.usage.prompt_tokens
    result.cost, result.unpriced = bill.cost, bill.note()
