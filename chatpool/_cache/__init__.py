"""Answers that are kept for later runs and other processes, in an SQLite database."""

from __future__ import annotations

from .database import ForeignDatabase
from .store import CacheStats, Entry, Store

__all__ = ["CacheStats", "Entry", "ForeignDatabase", "Store"]
