"""``template=``: a prompt with places for the fields of a row."""

from __future__ import annotations

import json
import string
from typing import Any, List, Mapping, Tuple

from ..errors import ConfigurationError
from .input_tables import Uncomputed
from .jsonl import EmptyCell

__all__ = ["Template"]


class Template:
    """A text with places for fields, such as ``"Translate: {text}"``; ``{{`` and ``}}`` are braces.

    A field that is not a text is filled in as JSON.

    Args:
        text: the text.
        needs_field: whether it has to have a place for one: otherwise all rows would be the same.

    Attributes:
        fields: the names of its fields.

    Raises:
        ConfigurationError: a brace is not closed, or there is no field in it.
    """

    def __init__(self, text: str, *, needs_field: bool = True) -> None:
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
        self.fields = [field for _, field in self._parts if field]
        if needs_field and not self.fields:
            raise ConfigurationError(f"template {text!r} has no place for a field, such as {{text}}")

    def fill(self, fields: Mapping[str, Any], *, may_be_empty: bool = False) -> str:
        """Return the text for one row.

        Args:
            fields: the fields of the row.
            may_be_empty: whether an empty field is filled in as an empty text.

        Raises:
            EmptyCell: a field of the row is empty.
            ValueError: the row lacks a field, or the field is neither a text nor a JSON value.
        """
        return "".join(
            literal + (_text(fields, field, may_be_empty) if field else "") for literal, field in self._parts
        )


def _text(fields: Mapping[str, Any], name: str, may_be_empty: bool) -> str:
    if name not in fields:
        available = ", ".join(list(fields)[:10]) or "none"
        raise ValueError(f"there is no field {name!r} for the template (there are: {available})")
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
