"""What ``BACKEND`` may name: it is called with the settings of an alias as keywords, in small letters."""

from __future__ import annotations

from ... import ChatPool

__all__ = ["AzureBackend", "ChatPoolBackend"]

ChatPoolBackend = ChatPool
AzureBackend = ChatPool.azure
