"""What a model says of its own reasoning, in the fields in which servers send it."""

from __future__ import annotations

from typing import Any, Iterable, List, Mapping, Optional

__all__ = ["reasoning_of", "reasoning_of_items", "separate_reasoning"]

# DeepSeek, vLLM, xAI, llama.cpp; OpenRouter, Groq, newer vLLM; Ollama; OpenRouter's pieces; Anthropic's, of LiteLLM.
_PLACES = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
_OPENING, _CLOSING = "<think>", "</think>"


def reasoning_of(message: Mapping[str, Any]) -> Optional[str]:
    """The reasoning in a message, None without any.

    Servers that do not separate it have it before the answer, up to ``</think>``.
    """
    found = separate_reasoning(message)
    content = message.get("content")
    if found is None and isinstance(content, str) and _CLOSING in content:
        return _before_answer(content)
    return found


def separate_reasoning(message: Mapping[str, Any]) -> Optional[str]:
    """The reasoning that has a place of its own in a message, or in a piece of one; None without any."""
    for name in _PLACES:
        if name in message:
            found = _joined(message[name])
            if found:
                return found
    content = message.get("content")
    if isinstance(content, list):  # Mistral
        parts = [part for part in content if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")]
        return _joined(parts) or None
    return None


def reasoning_of_items(items: Iterable[Mapping[str, Any]]) -> Optional[str]:
    """The reasoning among the output items of a response: its text, or else its summary; None without any."""
    found = []
    for item in items:
        if item.get("type") == "reasoning":
            text = _joined(item.get("content")) or "\n\n".join(filter(None, map(_text_in, _list(item.get("summary")))))
            if text:
                found.append(text)
    return "\n\n".join(found) or None


def _joined(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _text_in(value)
    return "".join(map(_text_in, _list(value)))


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else []


def _text_in(piece: Any) -> str:
    """The text of one piece, under whichever name it has there."""
    if isinstance(piece, str):
        return piece
    if isinstance(piece, dict):
        for name in ("text", "thinking", "summary", "content", "reasoning"):
            if piece.get(name):
                return _joined(piece[name])
    return ""


def _before_answer(content: str) -> Optional[str]:
    before, _, _ = content.partition(_CLOSING)
    opening, found, inside = before.partition(_OPENING)
    if not found:
        return before.strip() or None  # the template of the model begins it
    return inside.strip() or None if not opening.strip() else None
