"""Files of requests to files of answers, whatever happens in between."""

from __future__ import annotations

from .api import run
from .reporting import Report, report
from .result import BatchResult

__all__ = ["BatchResult", "Report", "report", "run"]
