"""What a run would do."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Optional

from ..client.batch_runs import prompt_tokens
from ..journal import Journal
from ..types import Usage
from .job import Job
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
    if not rows.source.is_stream:
        rows.check(journal)
    tokens: Counter[Optional[str]] = Counter()  # by model
    for work in rows.works():
        state = None if journal is None else journal.state(work.key, work.hash)
        again = job.retry_failed is not False
        record = journal.read(work.key, work.hash) if journal is not None and again else None
        if job.wants(state, record):
            result.rows += 1
            result.pending += 1
            if work.request is not None:
                tokens[work.request.model] += prompt_tokens(work.request)  # type: ignore[assignment]  # a float
        elif not again and state is not None:
            result.rows += 1
            result.ended_before(state)
    if rows.trouble is not None:
        raise rows.trouble
    bill = job.bill()
    for model, count in tokens.items():
        bill.add(Usage(math.ceil(count), 0, math.ceil(count)), model)
    result.estimated_tokens = bill.usage.prompt_tokens
    result.cost, result.unpriced = bill.cost, bill.note()
