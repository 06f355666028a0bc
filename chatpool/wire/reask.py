"""The next request of a conversation in which an answer was of no use."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..types import ChatCompletion, ChatRequest
from .paths import CHAT, RESPONSES, operation_of

__all__ = ["asked_again"]

_WORDS = "Your answer cannot be used: {reason}\nAnswer again: the whole answer, put right, and nothing else."


def asked_again(request: ChatRequest, completion: ChatCompletion, reason: str) -> Optional[ChatRequest]:
    """``request`` with the answer and what is wrong with it appended; None where a request holds no conversation.

    Args:
        request: what was sent.
        completion: what came back.
        reason: why it is of no use.
    """
    # Only role and content: some servers refuse their own further fields (reasoning, annotations) in a request, and
    # some a message without any text.
    answer = {"role": "assistant", "content": _sendable(completion.text) or "(no text)"}
    question = {"role": "user", "content": _WORDS.format(reason=_sendable(reason))}
    operation = operation_of(request.path)
    if operation == CHAT:
        return _with(request, "messages", [*request.body.get("messages", ()), answer, question])
    if operation != RESPONSES:
        return None
    if request.body.get("conversation"):  # it is kept by the server, which has appended both already
        return _with(request, "input", [question])
    return _with(request, "input", [*_items(request.body.get("input")), answer, question])


def _with(request: ChatRequest, field: str, value: List[Any]) -> ChatRequest:
    return ChatRequest({**request.body, field: value}, request.path, request.method)


def _items(given: Any) -> List[Any]:
    """The input of the Responses API as a list of items."""
    if isinstance(given, (list, tuple)):
        return list(given)
    message: Dict[str, Any] = {"role": "user", "content": given}
    return [message] if given else []


def _sendable(text: str) -> str:
    """The text without half surrogate pairs, which JSON can bring and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
