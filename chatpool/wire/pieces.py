"""Texts and objects that come in pieces."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

__all__ = ["JoinedObject", "JoinedText", "index_in"]

_LARGEST_INDEX = 10**9


def index_in(stated: Any) -> Optional[int]:
    """A place among choices, calls or vectors as a server states it; None for what is no such number."""
    return stated if isinstance(stated, int) and -_LARGEST_INDEX <= stated <= _LARGEST_INDEX else None


class JoinedText:
    """A text that comes in pieces.

    A character beyond the first 65,536 is two escapes in JSON, a surrogate pair, and some servers put the halves into
    two pieces: half a pair at the end of a piece is shown with the next one.
    """

    __slots__ = ("_half", "_pieces")

    def __init__(self) -> None:
        self._pieces: List[str] = []  # a list, so that a long text is not copied with each piece
        self._half = ""

    def add(self, piece: str) -> str:
        """Add the next piece; returns what of the text it completes, which makes the whole text piece by piece."""
        if not piece:
            return ""
        if self._half:
            piece, self._half = _paired(self._half + piece), ""
        if "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        self._pieces.append(piece)
        return piece

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] + self._half if self._pieces else ""


def _paired(text: str) -> str:
    """``text``, which begins with the first half of a pair, with the character that both halves are."""
    if not "\udc00" <= text[1] <= "\udfff":
        return text
    return chr(0x10000 + ((ord(text[0]) - 0xD800) << 10) + (ord(text[1]) - 0xDC00)) + text[2:]


# Said once, or again and again, but never in pieces.
_NOT_IN_PIECES = frozenset({"format", "id", "name", "role", "type"})


class JoinedObject:
    """A JSON object whose texts come in pieces."""

    __slots__ = ("_others", "_texts")

    def __init__(self) -> None:
        self._texts: Dict[str, JoinedText] = {}
        self._others: Dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._texts or self._others)

    def add(self, name: str, value: Any) -> None:
        """Add the next piece of a field."""
        if isinstance(value, str) and name not in _NOT_IN_PIECES:
            self.add_text(name, value)
        elif isinstance(value, dict):
            inner = self.inner(name)
            for key, part in value.items():
                inner.add(key, part)
        elif isinstance(value, list) and isinstance(self._others.get(name), list):
            self._others[name] += value
        elif name in _NOT_IN_PIECES:
            self._others[name] = self._others.get(name) or value
        elif value is not None or name not in self._others:
            self._others[name] = list(value) if isinstance(value, list) else value

    def add_text(self, name: str, piece: str) -> str:
        """Add the next piece of a text; returns what :meth:`JoinedText.add` does."""
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = JoinedText()
        return text.add(piece)

    def put(self, name: str, value: Any) -> None:
        """Set a field to what the last piece says of it."""
        self._others[name] = value

    def inner(self, name: str) -> JoinedObject:
        """The object that a field holds, made where there is none."""
        found = self._others.get(name)
        if not isinstance(found, JoinedObject):
            found = self._others[name] = JoinedObject()
        return found

    def text(self, name: str) -> str:
        """The text of a field so far."""
        return str(self._texts[name]) if name in self._texts else ""

    def get(self, name: str) -> Any:
        """A field that does not come in pieces."""
        return self._others.get(name)

    def whole(self) -> Dict[str, Any]:
        """The object so far."""
        others = {
            name: value.whole() if isinstance(value, JoinedObject) else value for name, value in self._others.items()
        }
        return {**others, **{name: str(text) for name, text in self._texts.items()}}
