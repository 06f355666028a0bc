"""Where the body of an answer ends: the fields that say so, brought to their plain form (RFC 9112, 6.3)."""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Tuple

from ..wire import UnreadableAnswer
from .headers import Field, Fields

__all__ = ["plain_framing"]

_LENGTH, _CODING = "content-length", "transfer-encoding"
_DIGITS = re.compile(r"[0-9]{1,18}")


def plain_framing(fields: Fields, *, closes: bool, bodiless: bool = False) -> Fields:
    """``fields`` with nothing about the body's end but one length, or ``chunked`` alone, or neither.

    Gateways repeat what the server behind them has said already: the same length twice is that length.

    Args:
        fields: the fields of an answer.
        bodiless: whether the answer has no body, whatever they say.
        closes: whether the connection ends with the answer: then a body of unknown length ends with it too.

    Raises:
        UnreadableAnswer: nobody can tell where the body ends; the message names the field.
    """
    coding, length = fields.merged.get(_CODING), fields.merged.get(_LENGTH)
    if coding is None and (length is None or _DIGITS.fullmatch(length[1])):
        return fields
    if bodiless:
        return _with(fields, {})
    if coding is not None and _is_chunked(coding[1]):
        return _with(fields, {_CODING: (coding[0], "chunked")})
    count = None if length is None else _count(length[1], closes=closes)
    if count is not None and length is not None:
        return _with(fields, {_LENGTH: (length[0], count)})
    if coding is not None and _codings(coding[1]) and not closes:
        raise UnreadableAnswer(f"Transfer-Encoding {coding[1][:80]!r} does not tell where the body ends")
    return _with(fields, {})


def _codings(value: str) -> List[str]:
    names = (name.partition(";")[0].strip().lower() for name in value.split(","))
    return [name for name in names if name not in ("", "identity")]


def _is_chunked(value: str) -> bool:
    names = _codings(value)
    if "chunked" not in names:
        return False
    if set(names) != {"chunked"}:
        raise UnreadableAnswer(f"Transfer-Encoding {value[:80]!r}: only 'chunked' is understood")
    return True


def _count(value: str, *, closes: bool) -> Optional[str]:
    """The one length in ``value``; None where there is none and none is needed."""
    stated = [part for part in (part.strip() for part in value.split(",")) if part]
    counts = {int(part) for part in stated if _DIGITS.fullmatch(part)}
    if len(counts) == 1 and all(map(_DIGITS.fullmatch, stated)):
        return str(counts.pop())
    if closes and not counts:
        return None
    what = "names several lengths" if len(counts) > 1 else "is not a length"
    raise UnreadableAnswer(f"Content-Length {value[:80]!r} {what}")


def _with(fields: Fields, framing: Dict[str, Field]) -> Fields:
    """``fields`` with ``framing`` in the place of what they say about the body's end."""
    merged = {name: field for name, field in fields.merged.items() if name not in (_LENGTH, _CODING)}
    every: List[Tuple[str, str]] = [field for field in fields.all if field[0].lower() not in (_LENGTH, _CODING)]
    return Fields([*every, *framing.values()], {**merged, **framing})
