"""JSON values held to a JSON schema, by the jsonschema package where it is installed."""

from __future__ import annotations

import importlib
import json
from typing import Any, Iterator, List, Mapping, Set
from urllib.parse import unquote

from ..errors import ConfigurationError
from .parsing_json import Mismatch, json_in

__all__ = ["SchemaParser"]

_LONGEST = 200  # characters of one complaint; jsonschema's quote the value


class SchemaParser:
    """Makes the JSON value of a text, if it is valid.

    Args:
        schema: the JSON schema; of a draft that ``$schema`` names, otherwise the newest.

    Raises:
        ConfigurationError: jsonschema is not installed, the schema is not one, or it refers to another document
            (none is ever fetched).
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        validators = _validators()
        # A copy, as JSON: later changes of the dict, and objects that are no JSON, do not get into a run.
        try:
            self._schema = json.loads(json.dumps(dict(schema)))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"parse= is no JSON schema: {error}") from error
        self._validator = validators.validator_for(self._schema, default=validators.Draft202012Validator)
        try:
            self._validator.check_schema(self._schema)
        except Exception as error:
            message = getattr(error, "message", str(error))
            raise ConfigurationError(f"parse= is no JSON schema: {_cut(message)}") from error
        _refuse_other_documents(self._schema)

    def __call__(self, text: str) -> Any:
        value = json_in(text)
        try:
            # Made anew: those of older versions must not be shared among threads.
            found = list(self._validator(self._schema).iter_errors(value))
        except RecursionError:
            raise Mismatch(["nested too deeply"]) from None
        errors = sorted(found, key=lambda error: list(map(str, error.path)))
        if errors:
            raise Mismatch([_line(error) for error in errors])
        return value


def _validators() -> Any:
    try:
        return importlib.import_module("jsonschema.validators")
    except ImportError as error:
        raise ConfigurationError(
            "parse= with a JSON schema needs the jsonschema package: pip install jsonschema; "
            "or pass a dataclass, which needs nothing"
        ) from error


def _refuse_other_documents(schema: Any) -> None:
    known: Set[str] = {identifier.rstrip("#") for identifier in _values_of(schema, "$id")}
    for reference in _values_of(schema, "$ref"):
        document, _, pointer = reference.partition("#")
        if document and document not in known:
            raise ConfigurationError(
                f"parse= refers to {_cut(reference)!r}, and no document is fetched: put that schema under '$defs'"
            )
        if not known and pointer.startswith("/") and not _leads_somewhere(schema, pointer):
            raise ConfigurationError(f"parse= refers to {_cut(reference)!r}, and nothing is there")


def _leads_somewhere(schema: Any, pointer: str) -> bool:
    """Follow a JSON pointer (RFC 6901)."""
    for step in pointer.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdigit() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return False
    return True


def _values_of(schema: Any, name: str) -> Iterator[str]:
    """All texts that stand under ``name``, anywhere."""
    left: List[Any] = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get(name), str):
                yield value[name]
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _line(error: Any) -> str:
    place = ""
    for step in error.path:
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    place = place.lstrip(".")
    return f"{place}: {_cut(error.message)}" if place else _cut(error.message)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
