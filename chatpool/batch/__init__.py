"""Files of requests to files of answers, whatever happens in between."""

from __future__ import annotations

from .api import run
from .job import BatchResult
from .report import Report, report

__all__ = ["BatchResult", "Report", "report", "run"]
