"""Batch runs: from a file of requests to a file of answers; a run that was interrupted goes on."""

from __future__ import annotations

from . import shards
from .api import run
from .job import BatchResult
from .report import Report, report

__all__ = ["BatchResult", "Report", "report", "run", "shards"]
