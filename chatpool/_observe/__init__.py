"""Listeners: they receive events and never decide anything."""

from .listeners import CallLog, Statistics, log_as_the_environment_says
from .progress import RunProgress, run_progress

__all__ = ["CallLog", "RunProgress", "Statistics", "log_as_the_environment_says", "run_progress"]
