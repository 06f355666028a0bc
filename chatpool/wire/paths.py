"""Which operation of the API a path stands for."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["CHAT", "COMPLETIONS", "EMBEDDINGS", "MODERATIONS", "OTHER", "RESPONSES", "operation_of"]

CHAT = "/chat/completions"
COMPLETIONS = "/completions"
RESPONSES = "/responses"
EMBEDDINGS = "/embeddings"
MODERATIONS = "/moderations"
OTHER = ""

# CHAT before COMPLETIONS: the one ends with the other.
_KNOWN = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MODERATIONS)


@lru_cache(maxsize=256)
def operation_of(path: str) -> str:
    """The operation that ``path`` ends with, :data:`OTHER` for every path that is not known.

    Only the end counts, so that ``/v1/chat/completions`` and Azure's
    ``/openai/deployments/<name>/chat/completions`` are chat too.
    """
    plain = path.partition("?")[0].rstrip("/")
    return next((operation for operation in _KNOWN if plain.endswith(operation)), OTHER)
