"""What ``parse=`` takes, as one function from an answer's text to a value."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Callable, Mapping, Protocol, Type, Union

from .parsing_json import json_in, problems_of, unfenced
from .parsing_types import UNIONS, Reader, reader_of

__all__ = ["Parse", "Parser", "ValidatesJSON", "parser_of", "reason_of"]

Parser = Callable[[str], Any]
"""Makes a value of an answer's text; whatever Exception it raises says why it cannot."""

_MOST_PROBLEMS = 10
_LONGEST_REASON = 1500  # characters; the model is told it


class ValidatesJSON(Protocol):
    """What pydantic's TypeAdapter is known by."""

    def validate_json(self, data: str, /) -> Any:
        """A value of the JSON."""


Parse = Union[Callable[[str], Any], Type[Any], Mapping[str, Any], ValidatesJSON]
"""A function of the text, a dataclass, a pydantic model (or TypeAdapter), or a JSON schema."""


def parser_of(parse: Any) -> Parser:
    """What ``parse=`` stands for.

    A function gets the text as it is. For everything else the text has to be JSON, alone or in its only fence.

    Raises:
        TypeError: it cannot be used; the message says what would be right.
        ConfigurationError: it is no JSON schema, or jsonschema is not installed.
    """
    if isinstance(parse, Mapping):
        from .parsing_schema import SchemaParser  # most programs have none

        return SchemaParser(parse)
    validate = _validation_of(parse)
    if validate is not None:
        return lambda text: validate(unfenced(text))
    if _is_type_of_json(parse):
        return _OfType(reader_of(parse))
    if parse is bool:
        raise TypeError("parse=bool makes True of every text: pass a function that looks at it")
    if not callable(parse) or typing.get_origin(parse) is not None:
        raise TypeError(
            "parse must be a function of the text, a dataclass, a pydantic model or a JSON schema (a dict), "
            f"got {_named(parse)}"
        )
    return typing.cast(Parser, parse)


def _validation_of(parse: Any) -> Any:
    """pydantic's own way from JSON to a value, None for what is not pydantic's.  It is not imported for that."""
    if isinstance(parse, type):
        # Version 2 also has parse_raw, which warns that it is out of date.
        found = getattr(parse, "model_validate_json", None)
        if found is None and hasattr(parse, "__fields__"):
            found = getattr(parse, "parse_raw", None)
    else:
        found = getattr(parse, "validate_json", None)
    return found if callable(found) else None


def _is_type_of_json(parse: Any) -> bool:
    if isinstance(parse, type) and (dataclasses.is_dataclass(parse) or parse in (dict, list)):
        return True
    # List[Item] can be called, and would make a list of the letters.
    return typing.get_origin(parse) in (list, dict, tuple, *UNIONS)


class _OfType:
    """Makes values of one type; can be shared among threads."""

    def __init__(self, read: Reader) -> None:
        self._read = read

    def __call__(self, text: str) -> Any:
        return self._read(json_in(text), "")


def _named(value: Any) -> str:
    kind = type(value).__name__
    return f"an object of {kind}: pass the class itself" if dataclasses.is_dataclass(value) else f"a value of {kind}"


def reason_of(error: BaseException) -> str:
    """Why a text made no value, as the model is told it."""
    problems = problems_of(error) if isinstance(error, Exception) else []
    more = len(problems) - _MOST_PROBLEMS
    text = "; ".join(problems[:_MOST_PROBLEMS] + [f"and {more} more"] * (more > 0)) or str(error)
    if not (problems or (text and isinstance(error, ValueError))):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."
