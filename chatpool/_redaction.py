"""What people get to see: no secret, and no character that a terminal obeys."""

from __future__ import annotations

import re
from typing import Any, Mapping, Match, TypeVar, cast

__all__ = ["Secret", "printable", "secret"]

Value = TypeVar("Value")

# Controls (C0 but for tab and line break, DEL, C1), marks that turn the direction of text round, line separators that
# only some programs take for line breaks, and halves of surrogate pairs, which no encoding has.
_UNSEEN = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)


def printable(text: str) -> str:
    r"""Return ``text`` with what a terminal might obey, or nothing can encode, as escapes: ``\u001b``.

    Tabs and line breaks stay.  JSON stays JSON, of the same value.
    """
    return text if text.isprintable() else _UNSEEN.sub(_escape, text)


def _escape(found: Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


class Secret(str):
    """A text to be used as any other, and shown as ``***`` wherever it is in something that is shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


def secret(value: Value) -> Value:
    """Return a str as a :class:`Secret`, a mapping as a dict with such values, and anything else as it is."""
    made: Any = value
    if type(value) is str:
        made = Secret(value)
    elif isinstance(value, Mapping):
        made = {name: secret(each) for name, each in value.items()}
    return cast(Value, made)
