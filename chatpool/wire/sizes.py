"""How large a request is, as far as its body shows."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional

from ..types import ChatRequest
from .paths import EMBEDDINGS, MODERATIONS, operation_of

__all__ = ["Size", "request_size"]

_COMPLETION_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_TEXTS = ("messages", "prompt", "input", "instructions", "tools", "functions", "response_format", "text")

_PER_MESSAGE = 12  # bytes' worth of the tokens that separate messages
_IMAGE_TOKENS = 800  # an image of usual size in full detail is 765 with OpenAI's models
_DEEPEST = 50


class Size(NamedTuple):
    """What can be read off a request.

    Attributes:
        prompt_bytes: bytes of text in it, as UTF-8.
        other_tokens: tokens for what is no text (images).
        completion_limit: the most tokens that one answer may have, None where it does not say.
        choices: how many answers it asks for; 0 where an answer takes no tokens.
    """

    prompt_bytes: int
    other_tokens: int = 0
    completion_limit: Optional[int] = None
    choices: int = 1


def request_size(request: ChatRequest) -> Size:
    """The size of a request.  Never raises: what makes no sense counts nothing."""
    body = request.body
    texts = [_measure(body[name], 0) for name in _TEXTS if name in body]
    return Size(
        sum(size for size, _ in texts),
        _IMAGE_TOKENS * sum(images for _, images in texts),
        _whole(body, *_COMPLETION_LIMITS),
        0 if operation_of(request.path) in (EMBEDDINGS, MODERATIONS) else _whole(body, "n", "best_of") or 1,
    )


def _whole(body: Mapping[str, Any], *names: str) -> Optional[int]:
    for name in names:
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _measure(value: Any, depth: int) -> tuple[int, int]:
    """(bytes of text, images) in a part of a body."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace")), 0
    if depth > _DEEPEST:
        return 0, 0
    if isinstance(value, Mapping):
        if str(value.get("type", "")).endswith(("image_url", "input_image")):
            return 0, 1
        parts = [_measure(part, depth + 1) for part in value.values()]
        extra = _PER_MESSAGE if "role" in value else 0
    elif isinstance(value, (list, tuple)):
        if value and isinstance(value[0], int):
            return 4 * len(value), 0  # tokens already, at a quarter of a token per byte
        parts = [_measure(part, depth + 1) for part in value]
        extra = 0
    else:
        return 0, 0
    return extra + sum(size for size, _ in parts), sum(images for _, images in parts)
