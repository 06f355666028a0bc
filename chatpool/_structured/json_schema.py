"""``json_schema()``: the ``response_format`` with which a server writes only JSON of one type."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .annotations import NULL, Builder, adapter_of, name_of
from .strict_schema import (
    ANSWER,
    alternatives_of,
    at_root,
    is_object,
    may_hold,
    refuse_formless,
    strict_schema,
    wrapped,
)

__all__ = ["Wrapping", "json_schema"]

_PLAIN: Dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", NULL: "null"}

_NAME = re.compile(r"[^A-Za-z0-9_-]")


def json_schema(kind: Any, *, name: Optional[str] = None, strict: bool = True) -> Dict[str, Any]:
    """``response_format=`` for answers of a type, to go with ``parse=`` of the same type.

    Servers want an object.  For a type whose JSON is none, such as ``List[City]``, it is one with the only field
    ``answer``; ``parse=`` of the same type takes the value out again.

    Args:
        kind: a dataclass, a TypedDict, a NamedTuple, or a list, Optional, Union, Literal ... of such types; with
            pydantic (version 2) all that it can make of JSON, its models and TypeAdapters above all. Or a JSON
            schema, which is passed on as it is.
        name: what the server calls it. Default: the class's name, or ``"answer"``.
        strict: whether the server may write nothing but such JSON. As OpenAI wants it then, every field of a class is
            required and no further one allowed, so that fields with defaults are written too; a dict with keys of
            its own choice, and Any, cannot be had. A tuple of fixed length becomes a list. What such a schema cannot
            say, for instance how long a text may be, goes into the description, and ``parse=`` holds the answer to it.

    Returns:
        ``{"type": "json_schema", "json_schema": {"name": ..., "strict": ..., "schema": ...}}``, the form of chat
        completions. The Responses API wants ``text={"format": {"type": "json_schema", **form["json_schema"]}}``.

    Raises:
        TypeError: ``kind`` is none of these, or has a field of a type that no schema can be made of.

    Source: https://platform.openai.com/docs/guides/structured-outputs
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, got {name!r}")
    if isinstance(kind, Mapping):
        schema = dict(kind)
    else:
        schema, where = _schema_of(kind), name_of(kind)
        refuse_formless(schema, where)
        schema = strict_schema(schema, where) if strict else wrapped(schema)
    is_class = isinstance(kind, type) and typing.get_origin(kind) is None
    title = name or (kind.__name__ if is_class else "answer")
    form = {"name": _NAME.sub("_", title)[:64], "strict": strict, "schema": schema}
    return {"type": "json_schema", "json_schema": form}


class Wrapping:
    """Take a value out of the object that :func:`json_schema` may have wrapped it in.

    Args:
        kind: the type that ``parse=`` makes.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._roots: Optional[List[Dict[str, Any]]] = None

    def contents(self, value: Any) -> List[Any]:
        """Return what the value may be meant to be, the likeliest first."""
        if not isinstance(value, dict) or list(value) != [ANSWER]:
            return [value]
        if self._roots is None:
            try:
                self._roots = alternatives_of(_schema_of(self._kind))
            except TypeError:  # no schema, no wrapping
                self._roots = [{"type": "object"}]
        if is_object(self._roots):
            return [value]
        return [value[ANSWER], value] if may_hold(self._roots, ANSWER) else [value[ANSWER]]


def _schema_of(kind: Any) -> Dict[str, Any]:
    """Return the schema of a type, not yet a strict one, and of any form at its root.

    Raises:
        TypeError: it has none.
    """
    if isinstance(kind, type):
        make = getattr(kind, "model_json_schema", None)
    else:
        make = getattr(kind, "json_schema", None) if hasattr(kind, "validate_json") else None  # a TypeAdapter's
    if callable(make):
        return _pydantics_schema(make, name_of(kind))
    if isinstance(kind, type) or typing.get_origin(kind) is not None or kind in (None, Any) or _is_alias(kind):
        return _Schemas().whole(kind)
    raise TypeError(
        "json_schema takes a dataclass, a pydantic model or a JSON schema (a dict), or a type such as List[City], "
        f"got {kind!r}"
    )


def _is_alias(kind: Any) -> bool:
    return hasattr(kind, "__supertype__") or hasattr(kind, "__value__")


def _pydantics_schema(make: Any, where: str) -> Dict[str, Any]:
    """Return the schema that a method of pydantic's makes of the type at ``where``."""
    from .pydantic_schema import Generator  # imports pydantic

    try:
        made: Dict[str, Any] = make(schema_generator=Generator)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{where}: pydantic makes no JSON schema of it: {reason}") from error
    return made


class _Schemas(Builder[Dict[str, Any]]):
    """Build the schemas of types; those of classes with fields are under ``$defs``, as they may hold one another."""

    def __init__(self) -> None:
        super().__init__()
        self._definitions: Dict[str, Any] = {}
        self._adopted: Dict[str, Any] = {}
        self._names: Dict[Any, str] = {}

    def whole(self, kind: Any) -> Dict[str, Any]:
        """Return the schema of a type with all that it refers to."""
        return at_root({**self.of(kind, name_of(kind)), "$defs": self._definitions})

    def anything(self) -> Dict[str, Any]:
        return {}

    def plain(self, kind: Any) -> Dict[str, Any]:
        return {"type": _PLAIN[kind]}

    def choice(self, choices: Sequence[Tuple[Any, Any]], kind: Any) -> Dict[str, Any]:
        listed = [value for value, _ in choices]
        kinds = {type(value) for value in listed}
        return {"enum": listed} if len(kinds) > 1 else {"type": _PLAIN[kinds.pop()], "enum": listed}

    def list_of(self, item: Dict[str, Any], origin: Any) -> Dict[str, Any]:
        return {"type": "array", "items": item}

    def row(self, parts: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
        items = {"prefixItems": list(parts)} if parts else {}
        return {"type": "array", **items, "minItems": len(parts), "maxItems": len(parts)}

    def dict_of(self, item: Dict[str, Any]) -> Dict[str, Any]:
        return {"type": "object", "additionalProperties": item}

    def union(self, kinds: Sequence[Any], parts: Sequence[Dict[str, Any]], *, nullable: bool) -> Dict[str, Any]:
        return {"anyOf": [*parts, *[self.plain(NULL)] * nullable]}

    def record(self, cls: Any) -> Dict[str, Any]:
        name = self._names[cls] = self._free(cls.__name__)
        made = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
        self._definitions[name] = made
        return made

    def add_field(self, made: Any, name: str, part: Dict[str, Any], needed: bool) -> None:
        made["properties"][name] = part
        made["required"] += [name] * needed

    def reference(self, cls: Any, made: Any) -> Dict[str, Any]:
        return {"$ref": f"#/$defs/{self._names[cls]}"}

    def foreign(self, kind: Any, where: str) -> Dict[str, Any]:
        schema = dict(_pydantics_schema(adapter_of(kind, where).json_schema, where))
        definitions = schema.pop("$defs", {})
        names = {f"#/$defs/{name}": self._adopt(name, definition) for name, definition in definitions.items()}
        for name, definition in definitions.items():
            self._definitions[names[f"#/$defs/{name}"]] = _renamed(definition, names)
        renamed: Dict[str, Any] = _renamed(schema, names)
        return renamed

    def _adopt(self, name: str, definition: Any) -> str:
        """Return the name that a definition of pydantic's gets here."""
        if self._adopted.get(name) == definition:
            return name
        free = self._free(name)
        self._definitions[free] = self._adopted[free] = definition
        return free

    def _free(self, name: str) -> str:
        free, number = name, 2
        while free in self._definitions:
            free, number = f"{name}_{number}", number + 1
        return free


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Return a schema with other names of the definitions that it refers to."""
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    if not isinstance(value, dict):
        return value
    made = {key: _renamed(part, names) for key, part in value.items()}
    if isinstance(value.get("$ref"), str):
        made["$ref"] = f"#/$defs/{names[value['$ref']]}" if value["$ref"] in names else value["$ref"]
    return made
