"""The rules that OpenAI states for schemas in strict mode, as a check of a schema.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import json
from typing import Any, Iterator

ALWAYS = {"type", "title", "description", "enum", "const"}
OF_TYPE = {
    "string": {"pattern", "format"},
    "number": {"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "integer": {"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
    "boolean": set(),
    "null": set(),
}
FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def breaches(schema: Any) -> list[str]:
    """What in a schema strict mode does not take, each with its place; empty where it takes all."""
    found = [] if schema.get("type") == "object" else ["root: no object"]
    definitions = schema.get("$defs", {})
    found += _in_schema({word: value for word, value in schema.items() if word != "$defs"}, "root", definitions)
    for name, each in definitions.items():
        found += _in_schema(each, f"$defs.{name}", definitions)
    try:
        json.dumps(schema, allow_nan=False)
    except ValueError as error:
        found.append(f"root: no JSON: {error}")
    return found


def _in_schema(schema: Any, where: str, definitions: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        yield f"{where}: {schema!r} is no schema"
        return
    if "$ref" in schema:
        if len(schema) > 1:
            yield f"{where}: $ref does not stand alone"
        if schema["$ref"].rpartition("/")[2] not in definitions:
            yield f"{where}: {schema['$ref']} leads nowhere"
        return
    if "anyOf" in schema:
        if set(schema) - {"anyOf", "title", "description"}:
            yield f"{where}: {sorted(schema)} beside anyOf"
        for index, each in enumerate(schema["anyOf"]):
            yield from _in_schema(each, f"{where}.anyOf[{index}]", definitions)
        return
    kind = schema.get("type")
    if kind not in OF_TYPE:
        yield f"{where}: type {kind}"
        return
    unknown = set(schema) - ALWAYS - OF_TYPE[kind]
    if unknown:
        yield f"{where}: {sorted(unknown)} not permitted"
    if schema.get("format", "date") not in FORMATS:
        yield f"{where}: format {schema['format']}"
    if any(sign in schema.get("pattern", "") for sign in ("(?=", "(?!", "(?<")):
        yield f"{where}: pattern {schema['pattern']}"
    if kind == "array":
        yield from _in_schema(schema.get("items"), f"{where}[]", definitions)
    if kind == "object":
        fields = schema.get("properties")
        if not isinstance(fields, dict):
            yield f"{where}: no properties"
            return
        if schema.get("additionalProperties") is not False or schema.get("required") != list(fields):
            yield f"{where}: not closed, or not all required"
        for name, each in fields.items():
            yield from _in_schema(each, f"{where}.{name}", definitions)
