"""Listeners: they hear of events and never decide anything."""

from .logs import RetryLog
from .progress import ProgressBar, progress_bar
from .stats import Statistics

__all__ = ["ProgressBar", "RetryLog", "Statistics", "progress_bar"]
