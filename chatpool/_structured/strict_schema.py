"""JSON schemas that servers take in strict mode, made of any others.

Source of the rules: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, Iterator, List, Mapping, Sequence

__all__ = [
    "ANSWER",
    "NO_FORM",
    "alternatives_of",
    "at_root",
    "is_object",
    "may_hold",
    "refuse_formless",
    "strict_schema",
    "wrapped",
]

Schema = Dict[str, Any]

ANSWER = "answer"
"""The field that holds a value that is no object."""

NO_FORM = "x-chatpool-no-form"
"""A key that marks a type without a JSON form; its value names the type."""

_DEFINITION = "#/$defs/"

# Keywords that are passed on.
_PLAIN = (
    *("title", "description", "type", "enum", "const", "format", "pattern", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"),
)

# Keywords that a strict schema cannot have, and that a model should know of: they go into the description.
_DESCRIBED = (
    *("format", "pattern", "minLength", "maxLength", "uniqueItems", "minProperties", "maxProperties"),
    *("contains", "minContains", "maxContains", "not", "contentMediaType", "contentEncoding", "examples"),
)

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_LOOKAROUNDS = ("(?=", "(?!", "(?<=", "(?<!")

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", list: "array"}


def at_root(schema: Mapping[str, Any]) -> Schema:
    """Return a schema that does not begin with a reference, and has the definitions that it refers to."""
    definitions = schema.get("$defs", {})
    root = {word: value for word, value in schema.items() if word != "$defs"}
    while True:
        name = root.get("$ref", "")[len(_DEFINITION) :]
        alone = [word for word in ("allOf", "anyOf", "oneOf") if len(root.get(word, ())) == 1]
        if name in definitions:
            root = {**definitions[name], **_without(root, "$ref")}
        elif alone:
            root = {**root[alone[0]][0], **_without(root, alone[0])}
        else:
            break
    used: Dict[str, Any] = {}
    left = list(_references(root))
    while left:
        name = left.pop()
        if name in definitions and name not in used:
            used[name] = definitions[name]
            left.extend(_references(definitions[name]))
    return {**root, "$defs": {name: used[name] for name in definitions if name in used}} if used else root


def _without(schema: Mapping[str, Any], word: str) -> Schema:
    return {key: value for key, value in schema.items() if key != word}


def _references(schema: Any) -> Iterator[str]:
    """Yield the names of the definitions that a schema refers to."""
    left: List[Any] = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"][len(_DEFINITION) :]
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def alternatives_of(schema: Mapping[str, Any]) -> List[Schema]:
    """Return the schemas one of which a value follows, without references."""
    definitions = schema.get("$defs", {})
    root = at_root(schema)
    parts = [] if "properties" in root else root.get("anyOf") or root.get("oneOf") or []
    return [inner for part in parts for inner in alternatives_of({**part, "$defs": definitions})] or [root]


def is_object(alternatives: Sequence[Schema]) -> bool:
    """Return whether values that follow these schemas are always objects of one form."""
    return len(alternatives) == 1 and ("properties" in alternatives[0] or alternatives[0].get("type") == "object")


def may_hold(alternatives: Sequence[Schema], field: str) -> bool:
    """Return whether such a value may be an object with a field of this name."""
    return any(
        field in schema["properties"] if "properties" in schema else schema.get("type", "object") == "object"
        for schema in alternatives
        if "enum" not in schema and "const" not in schema
    )


def wrapped(schema: Mapping[str, Any]) -> Schema:
    """Return a schema of an object: the schema itself, or one with the field :data:`ANSWER`."""
    if is_object(alternatives_of(schema)):
        return at_root(schema)
    definitions = {"$defs": schema["$defs"]} if schema.get("$defs") else {}
    return {**_object({ANSWER: _without(schema, "$defs")}), **definitions}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def refuse_formless(schema: Any, where: str) -> None:
    """Check that all types have a JSON form.

    Raises:
        TypeError: one has none; the message names its place.
    """
    if isinstance(schema, list):
        for part in schema:
            refuse_formless(part, where)
    if not isinstance(schema, dict):
        return
    if NO_FORM in schema:
        raise TypeError(
            f"{where}: its type has no JSON form that pydantic knows ({schema[NO_FORM]}): give it another one, or use "
            "pydantic.WithJsonSchema"
        )
    for word, value in schema.items():
        if word in ("properties", "$defs") and isinstance(value, dict):
            for name, part in value.items():
                refuse_formless(part, name if word == "$defs" else f"{where}.{name}")
        else:
            refuse_formless(value, where)


def strict_schema(schema: Mapping[str, Any], where: str) -> Schema:
    """Return a copy of the schema as strict mode wants it.

    Args:
        schema: as pydantic makes it, or the builder of this package.
        where: the name of the type.

    Raises:
        TypeError: it takes any value somewhere, or objects with names of their own choice; the message names the place.
    """
    root = at_root(schema)
    definitions = {name: _strict(definition, name) for name, definition in root.get("$defs", {}).items()}
    return wrapped(at_root({**_strict(_without(root, "$defs"), where), "$defs": definitions}))


def _strict(schema: Any, where: str) -> Schema:
    if not isinstance(schema, dict):  # true stands for any value
        raise _any_value(where)
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return _of_kinds(schema, kinds, where)
    if "$ref" in schema:
        return _reference(schema)
    if kinds == "object" or "properties" in schema:
        return _strict_object(schema, where)
    if len(schema.get("allOf", ())) == 1:
        return _strict({**schema["allOf"][0], **_without(schema, "allOf")}, where)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        return {**_described(schema), "anyOf": [_strict(part, where) for part in parts]}
    if kinds == "array":
        return _strict_array(schema, where)
    if kinds is None:
        values = schema.get("enum", [schema["const"]] if "const" in schema else [])
        return _of_kinds(schema, list(dict.fromkeys(_TYPES.get(type(value), "") for value in values)), where)
    return _own_keywords(schema)


def _of_kinds(schema: Schema, kinds: Sequence[str], where: str) -> Schema:
    """Return a schema for values of several types: those it names, or those of the values that it lists."""
    if not kinds or "" in kinds:
        raise _any_value(where)
    if len(kinds) == 1:
        return _strict({**schema, "type": kinds[0]}, where)
    bare = {word: value for word, value in schema.items() if word not in ("title", "description", "enum")}
    parts = [{**bare, "type": kind} for kind in kinds]
    for part in parts if "enum" in schema else ():
        part["enum"] = [value for value in schema["enum"] if _TYPES.get(type(value)) == part["type"]]
    used = [part for part in parts if part.get("enum", True)]
    return {**_described(schema), "anyOf": [_strict(part, where) for part in used]}


def _any_value(where: str) -> TypeError:
    return TypeError(f"{where}: a strict schema cannot hold a value of any type (Any): say which, or use strict=False")


def _reference(schema: Schema) -> Schema:
    """Return a reference, which must have no other keywords: those go into a schema around it."""
    alone = {"$ref": schema["$ref"]}
    around = _without(_described(schema), "title")
    return {**around, "anyOf": [alone]} if around else alone


def _strict_object(schema: Schema, where: str) -> Schema:
    if "properties" not in schema and schema.get("additionalProperties", True) is not False:
        raise TypeError(
            f"{where}: a strict schema cannot hold a dict with keys of its own choice, or any other object without "
            "named fields: make it a dataclass, or use strict=False"
        )
    fields = {name: _strict(field, f"{where}.{name}") for name, field in schema.get("properties", {}).items()}
    return {**_described(schema), **_object(fields)}


def _strict_array(schema: Schema, where: str) -> Schema:
    parts = list(schema.get("prefixItems", ()))
    row = dict(schema)
    if "items" in schema and schema["items"] is not False:
        parts.append(schema["items"])
    elif parts or schema.get("maxItems") == 0:
        row.setdefault("maxItems", len(parts))
    if not parts and schema.get("maxItems") != 0:
        raise _any_value(f"{where}[]")
    items = [_strict(part, f"{where}[]") for part in parts] or [{"type": "null"}]
    different = [item for index, item in enumerate(items) if item not in items[:index]]
    keywords = _own_keywords(row)
    if len(different) == 1:
        return {**keywords, "items": different[0]}
    order = f"in this order: {', '.join(map(_in_short, items))}"
    description = f"{keywords['description']} ({order})" if "description" in keywords else order
    return {**keywords, "description": description, "items": {"anyOf": different}}


def _in_short(schema: Schema) -> str:
    """Return a type in a word or two."""
    if "title" in schema:
        return str(schema["title"])
    if "anyOf" in schema:
        return " or ".join(map(_in_short, schema["anyOf"]))
    return str(schema.get("type") or schema["$ref"][len(_DEFINITION) :])


def _described(schema: Schema) -> Schema:
    """Return the title and the description of a schema."""
    return {word: value for word, value in _own_keywords(schema).items() if word in ("title", "description")}


def _own_keywords(schema: Schema) -> Schema:
    """Return the keywords of a schema that hold no other schemas; the description has those that are not taken."""
    made = {word: schema[word] for word in _PLAIN if word in schema and _is_taken(word, schema[word])}
    described = [f"{word}: {_as_json(schema[word])}" for word in _DESCRIBED if word in schema and word not in made]
    if described:
        more = ", ".join(described)
        made["description"] = f"{made['description']} ({more})" if made.get("description") else more
    return made


def _is_taken(word: str, value: Any) -> bool:
    if word == "format":
        return value in _FORMATS
    if word == "pattern":
        return not any(sign in value for sign in _LOOKAROUNDS)
    return not isinstance(value, float) or math.isfinite(value)


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
