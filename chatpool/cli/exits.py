"""Exit codes."""

from __future__ import annotations

__all__ = ["BROKEN_PIPE", "FATAL", "INTERRUPTED", "OK", "SOME_FAILED", "TERMINATED", "USAGE"]

OK = 0
SOME_FAILED = 1
USAGE = 2
FATAL = 3
# As shells report a death by signal: 128 + its number.
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143
