"""``MemoryBackend``: pools for the tests of a site, which answer from memory."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from ...testing.memory import MemoryPool, RepliesLike

__all__ = ["MemoryBackend", "outbox"]

outbox: List[Dict[str, Any]] = []
"""The bodies that were sent through memory backends of this process, oldest first."""


class MemoryBackend(MemoryPool):
    """A :class:`chatpool.testing.MemoryPool` whose bodies are in :data:`outbox`.

    Args:
        model: the model.
        replies: what it says, as in :class:`chatpool.testing.MemoryPool`; in ``CHATPOOL`` the key ``REPLIES``.
        deployment: the model, in the settings of an Azure backend; the others of that have no effect.
        options: other settings, as for :class:`chatpool.testing.MemoryPool`.
    """

    def __init__(
        self,
        model: Optional[str] = None,
        *,
        replies: RepliesLike = None,
        deployment: Optional[str] = None,
        endpoint: Optional[str] = None,
        api_version: Optional[str] = None,
        azure_ad_token_provider: Optional[Callable[[], str]] = None,
        **options: Any,
    ) -> None:
        super().__init__(model or deployment, replies=replies, outbox=outbox, **options)
