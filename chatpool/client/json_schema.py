"""The ``response_format`` that makes a server hold an answer to a type."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import re
import typing
from typing import Any, Dict, Iterable, Literal, Mapping, Optional

from .parsing_types import UNIONS, fields_of, unsupported

__all__ = ["json_schema"]

_NULL = type(None)
_PLAIN: Dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", _NULL: "null"}
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_DICTS = (dict, collections.abc.Mapping)

_BY_NAME = ("properties", "$defs")  # hold schemas under names of the user's

_NAME = re.compile(r"[^A-Za-z0-9_-]")


def json_schema(kind: Any, *, name: Optional[str] = None, strict: bool = True) -> Dict[str, Any]:
    """``response_format=`` for answers of a type, to go with ``parse=`` of the same type.

    Args:
        kind: a dataclass, a pydantic model (version 2), or a JSON schema, which is passed on as it is.
        name: what the server calls it. Default: the class's name, or ``"answer"``.
        strict: whether the server may write nothing but such JSON. As OpenAI wants it then, every field of a class is
            required and no further one allowed, so that fields with defaults are written too; a dict with keys of
            its own choice cannot be had.

    Returns:
        ``{"type": "json_schema", "json_schema": {"name": ..., "strict": ..., "schema": ...}}``, the form of chat
        completions. The Responses API wants ``text={"format": {"type": "json_schema", **form["json_schema"]}}``.

    Raises:
        TypeError: ``kind`` is none of these, or has a field of a type that no schema can be made of.

    Source: https://platform.openai.com/docs/guides/structured-outputs
    """
    if isinstance(kind, Mapping):
        schema = dict(kind)
    elif isinstance(kind, type) and hasattr(kind, "model_json_schema"):
        schema = kind.model_json_schema()
        schema = _strict(schema, kind.__name__) if strict else schema
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        schema = _Schemas(strict).whole(kind)
    else:
        raise TypeError(f"json_schema takes a dataclass, a pydantic model or a JSON schema (a dict), got {kind!r}")
    title = name or (kind.__name__ if isinstance(kind, type) else "answer")
    form = {"name": _NAME.sub("_", title)[:64], "strict": strict, "schema": schema}
    return {"type": "json_schema", "json_schema": form}


class _Schemas:
    """Makes schemas of types; those of dataclasses stand under ``$defs``, as they may hold one another."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._made: Dict[Any, Dict[str, Any]] = {}

    def whole(self, cls: Any) -> Dict[str, Any]:
        """The schema of a dataclass with all that it refers to."""
        self._refer(cls)
        schema = dict(self._made[cls])
        others = {each.__name__: made for each, made in self._made.items()}
        if len(others) < len(self._made):
            raise TypeError("json_schema cannot tell two dataclasses of one name apart: rename one")
        if not _refers(self._made.values(), cls.__name__):
            del others[cls.__name__]
        return {**schema, "$defs": others} if others else schema

    def _refer(self, cls: Any) -> Dict[str, Any]:
        if cls not in self._made:
            made = self._made[cls] = {"type": "object", "additionalProperties": False}
            fields = fields_of(cls)
            made["properties"] = {name: self._of(kind, f"{cls.__name__}.{name}") for name, (kind, _) in fields.items()}
            made["required"] = [name for name, (_, needed) in fields.items() if needed or self._strict]
        return {"$ref": f"#/$defs/{cls.__name__}"}

    def _of(self, kind: Any, where: str) -> Dict[str, Any]:
        kind = _NULL if kind is None else kind
        if kind is Any and not self._strict:
            return {}
        if isinstance(kind, type) and kind in _PLAIN:
            return {"type": _PLAIN[kind]}
        if dataclasses.is_dataclass(kind):
            return self._refer(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return _one_of([member.value for member in kind])
        return self._of_generic(kind, typing.get_origin(kind) or kind, where)

    def _of_generic(self, kind: Any, origin: Any, where: str) -> Dict[str, Any]:
        arguments = typing.get_args(kind)
        if origin in UNIONS:
            return {"anyOf": [self._of(argument, where) for argument in arguments]}
        if origin is Literal:
            return _one_of(arguments)
        if origin in _LISTS and len(set(arguments) - {Ellipsis}) == 1:
            return {"type": "array", "items": self._of(arguments[0], where)}
        if origin in _DICTS and not self._strict:
            values = self._of(arguments[1], where) if arguments else {}
            return {"type": "object", "additionalProperties": values}
        if origin in _DICTS or kind is Any:
            raise TypeError(f"{where}: a strict schema cannot hold {kind}: make it a dataclass, or use strict=False")
        raise unsupported(where, kind)


def _one_of(values: Iterable[Any]) -> Dict[str, Any]:
    """A schema of certain values; their type is said too where it is one, which some servers want."""
    listed = list(values)
    kinds = {type(value) for value in listed}
    kind = _PLAIN.get(kinds.pop()) if len(kinds) == 1 else None
    return {"enum": listed} if kind is None else {"type": kind, "enum": listed}


def _refers(schemas: Any, name: str) -> bool:
    return f"'#/$defs/{name}'" in str(list(schemas))


def _strict(schema: Any, where: str) -> Any:
    """pydantic's schema with what a strict one needs; a copy.

    Raises:
        TypeError: it holds an object without named fields.
    """
    if isinstance(schema, list):
        return [_strict(each, where) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _strict(each, where) for name, each in schema.items() if name not in ("default", *_BY_NAME)}
    for group in _BY_NAME:
        if group in schema:
            made[group] = {name: _strict(each, f"{where}.{name}") for name, each in schema[group].items()}
    if schema.get("type") == "object":
        if not schema.get("properties") and schema.get("additionalProperties", True) is not False:
            raise TypeError(f"{where}: a strict schema cannot hold an object without named fields; use strict=False")
        made["additionalProperties"] = False
        made["required"] = list(schema.get("properties", ()))
    return made
