"""What a model says of its own reasoning, in the fields in which servers send it."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Iterable, List, Mapping, Optional, Pattern, Tuple

__all__ = ["END_OF_THOUGHTS", "opened_thoughts", "reasoning_of", "reasoning_of_items", "separate_reasoning"]

# DeepSeek, vLLM, xAI, llama.cpp; OpenRouter, Groq, newer vLLM; Ollama; OpenRouter's pieces; Anthropic's, of LiteLLM.
_PLACES = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
# What models that reason write before the answer.  Chat templates often keep the opening tag for themselves.
_OPENING = re.compile(r"\s*[<\[](think|thinking|thoughts?|reasoning|reflection|seed:think)[>\]]", re.IGNORECASE)
END_OF_THOUGHTS = "</think>"


def reasoning_of(message: Mapping[str, Any]) -> Optional[str]:
    """The reasoning in a message, None without any.

    Servers that do not separate it have it before the answer, in tags or up to ``</think>``.
    """
    found = separate_reasoning(message)
    content = message.get("content")
    if found is None and isinstance(content, str):
        return _before_answer(content)
    return found


def opened_thoughts(text: str) -> Tuple[List[str], str]:
    """The thoughts that stand in tags at the beginning of a text, and the text after them."""
    thoughts: List[str] = []
    start = 0
    while True:
        opening = _OPENING.match(text, start)
        closing = None if opening is None else _closing(opening[1].lower()).search(text, opening.end())
        if opening is None or closing is None:
            return thoughts, text[start:]
        thoughts.append(text[opening.end() : closing.start()].strip())
        start = closing.end()


@functools.cache  # of the few tags there are
def _closing(tag: str) -> Pattern[str]:
    return re.compile(rf"[<\[]/{re.escape(tag)}[>\]]", re.IGNORECASE)


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
    thoughts, _ = opened_thoughts(content)
    if not thoughts and END_OF_THOUGHTS in content:
        before = content.partition(END_OF_THOUGHTS)[0]
        if "<think>" not in before and not _is_json(content):  # the template of the model begins it
            return before.strip() or None
    opening = None if thoughts else _OPENING.match(content)
    if opening is not None:  # the answer was cut before they ended
        return content[opening.end() :].strip() or None
    return "\n\n".join(filter(None, thoughts)) or None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
