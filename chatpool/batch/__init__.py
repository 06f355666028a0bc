"""Batch runs: from a file of requests to a file of answers; a run that was interrupted goes on."""

from __future__ import annotations

from . import shards
from .api import run
from .job import BatchResult
from .report import Report, report
from .submissions import BatchStatus, SubmissionStatus, cancel, collect, status, submit, wait

__all__ = [
    "BatchResult",
    "BatchStatus",
    "Report",
    "SubmissionStatus",
    "cancel",
    "collect",
    "report",
    "run",
    "shards",
    "status",
    "submit",
    "wait",
]
