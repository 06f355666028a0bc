"""Make text safe to show: no secret, and no character that a terminal obeys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Match, TypeVar, cast

__all__ = ["Secret", "printable", "secret"]

Value = TypeVar("Value")

# Controls (C0 but for tab and line break, DEL, C1), marks that turn the direction of text round, line separators that
# only some programs take for line breaks, and halves of surrogate pairs, which no encoding has.
_UNPRINTABLE = "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"


def printable(text: str) -> str:
    r"""Return ``text`` with escapes (``\u001b``) for characters that a terminal might obey or that cannot be encoded.

    Tabs and line breaks stay.  JSON stays JSON, of the same value.
    """
    return text if text.isprintable() else re.sub(_UNPRINTABLE, _escape, text)


def _escape(match: Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


class Secret(str):
    """A str that is used like any other and whose ``repr`` is ``***``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


def secret(value: Value) -> Value:
    """Return a str as a :class:`Secret`, a mapping as a dict with such values, and anything else as it is."""
    hidden: Any = value
    if type(value) is str:
        hidden = Secret(value)
    elif isinstance(value, Mapping):
        hidden = {name: secret(item) for name, item in value.items()}
    return cast(Value, hidden)
