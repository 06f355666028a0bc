"""A model's account of its reasoning, in the fields in which servers send it."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Iterable, List, Mapping, Optional, Pattern, Tuple

__all__ = ["END_OF_THOUGHTS", "opened_thoughts", "reasoning_of", "reasoning_of_items", "separate_reasoning"]

# DeepSeek, vLLM, xAI, llama.cpp; OpenRouter, Groq, newer vLLM; Ollama; OpenRouter's pieces; Anthropic's, of LiteLLM.
_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
# Tags that models write before the answer.  Chat templates often keep the opening tag for themselves.
_OPENING = re.compile(r"\s*[<\[](think|thinking|thoughts?|reasoning|reflection|seed:think)[>\]]", re.IGNORECASE)
END_OF_THOUGHTS = "</think>"


def reasoning_of(message: Mapping[str, Any]) -> Optional[str]:
    """Return the reasoning in a message, None without any.

    Servers that do not separate it have it before the answer, in tags or up to ``</think>``.
    """
    reasoning = separate_reasoning(message)
    content = message.get("content")
    if reasoning is None and isinstance(content, str):
        return _before_answer(content)
    return reasoning


def opened_thoughts(text: str) -> Tuple[List[str], str]:
    """Return the thoughts that stand in tags at the beginning of a text, and the text after them."""
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
    """Return the reasoning that has a field of its own in a message, or in a piece of one; None without any."""
    for name in _FIELDS:
        if name in message:
            reasoning = _joined(message[name])
            if reasoning:
                return reasoning
    content = message.get("content")
    if isinstance(content, list):  # Mistral
        parts = [part for part in content if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")]
        return _joined(parts) or None
    return None


def reasoning_of_items(items: Iterable[Mapping[str, Any]]) -> Optional[str]:
    """Return the reasoning among the output items of a response: its text, or else its summary; None without any."""
    texts = []
    for item in items:
        if item.get("type") == "reasoning":
            text = _joined(item.get("content")) or "\n\n".join(filter(None, map(_text_in, _list(item.get("summary")))))
            if text:
                texts.append(text)
    return "\n\n".join(texts) or None


def _joined(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _text_in(value)
    return "".join(map(_text_in, _list(value)))


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else []


def _text_in(piece: Any) -> str:
    """Return the text of one piece, whatever its field's name."""
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
