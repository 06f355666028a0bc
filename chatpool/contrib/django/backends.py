"""What ``BACKEND`` may name: it is called with the settings of an alias as keywords, in small letters."""

from __future__ import annotations

import importlib
from typing import Any

from ... import ChatPool

__all__ = ["AzureBackend", "ChatPoolBackend"]

ChatPoolBackend = ChatPool
AzureBackend = ChatPool.azure


def __getattr__(name: str) -> Any:
    """``MemoryBackend`` is imported when it is first asked for: a site in production has no use for it."""
    if name == "MemoryBackend":
        return importlib.import_module(".memory_backend", __package__).MemoryBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
