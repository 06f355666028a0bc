"""Listeners: they receive events and never decide anything."""

from .listeners import RetryLog, Statistics
from .progress import RunProgress, run_progress

__all__ = ["RetryLog", "RunProgress", "Statistics", "run_progress"]
