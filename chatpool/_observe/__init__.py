"""Listeners: they receive events and never decide anything."""

from .listeners import RetryLog, Statistics
from .progress import ProgressBar, progress_bar

__all__ = ["ProgressBar", "RetryLog", "Statistics", "progress_bar"]
