"""Listeners: they receive events and never decide anything."""

from .listeners import CallLog, Statistics, log_as_the_environment_says
from .progress import ProgressBar, progress_bar

__all__ = ["CallLog", "ProgressBar", "Statistics", "log_as_the_environment_says", "progress_bar"]
