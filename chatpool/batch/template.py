"""Prompts out of the fields of a row."""

from __future__ import annotations

import json
import string
from typing import Any, List, Mapping, Tuple

from ..errors import ConfigurationError
from .lines import EmptyCell
from .workbooks import Uncomputed

__all__ = ["Template"]


class Template:
    """A text with places for fields, such as ``"Translate: {text}"``; ``{{`` and ``}}`` are braces.

    A field that is no text is filled in as JSON.

    Raises:
        ConfigurationError: a brace is not closed, or there is no field in it.
    """

    def __init__(self, text: str) -> None:
        self._parts: List[Tuple[str, str]] = []
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(f"template {text!r}: {error}; write {{{{ for a brace") from error
        for literal, field, spec, conversion in pieces:
            if field == "" or spec or conversion:
                raise ConfigurationError(
                    f"template {text!r}: a place is written {{name}}, with nothing but a name in it"
                )
            self._parts.append((literal, field or ""))
        if not any(field for _, field in self._parts):
            raise ConfigurationError(f"template {text!r} has no place for a field, such as {{text}}")

    def fill(self, fields: Mapping[str, Any], *, may_be_empty: bool = False) -> str:
        """The text for one row.

        Args:
            fields: the row's.
            may_be_empty: whether a field that is empty is filled in as such.

        Raises:
            EmptyCell: a field of the row is empty.
            ValueError: the row lacks a field, or it is no text and has no form in JSON.
        """
        return "".join(
            literal + (_text(fields, field, may_be_empty) if field else "") for literal, field in self._parts
        )


def _text(fields: Mapping[str, Any], name: str, may_be_empty: bool) -> str:
    if name not in fields:
        there = ", ".join(list(fields)[:10]) or "none"
        raise ValueError(f"there is no field {name!r} for the template (there are: {there})")
    value = fields[name]
    if isinstance(value, Uncomputed):
        value.refuse()
    if not may_be_empty and (value is None or (isinstance(value, str) and not value.strip())):
        raise EmptyCell(name)
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # of a Parquet file: bytes, an infinity
        raise ValueError(f"the field {name!r} of the template holds what is no text and has no form in JSON") from None
