"""OpenAI's own description of its API, where it lies beside the checkout: what requests and answers are made of.

Checks are those of jsonschema: the description is OpenAPI 3.1, whose schemas are JSON schemas.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "openai-openapi.json"
DESCRIPTION = Path(os.environ.get("CHATPOOL_API_DESCRIPTION", _BESIDE))

needs_description = pytest.mark.skipif(
    not DESCRIPTION.is_file(), reason=f"OpenAI's API description is not beside the checkout ({DESCRIPTION})"
)


@cache
def description() -> Mapping[str, Any]:
    """Return the description."""
    loaded: Mapping[str, Any] = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    return loaded


def errors_of(value: Any, schema: Mapping[str, Any]) -> List[str]:
    """Return what is wrong with a value by a schema of the description."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator({**schema, "components": description()["components"]})
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in validator.iter_errors(value)
    ]


def named(name: str) -> Dict[str, str]:
    """Return the schema of a name."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer_schema(operation: str) -> Mapping[str, Any]:
    """Return the schema of an operation's answer, say of ``"GET /files"``."""
    method, path = operation.split()
    answer = description()["paths"][path][method.lower()]["responses"]["200"]
    schema: Mapping[str, Any] = answer["content"]["application/json"]["schema"]
    return schema


def problems_of_request(request: Any) -> List[str]:
    """Return what is wrong with a request that a FakeServer has received; nothing if the description allows it."""
    operation = _operation_of(request)
    if operation is None:
        return [f"{request.method} {request.path} is no operation"]
    allowed = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    problems = [f"the query has {name!r}" for name in request.query if name not in allowed]
    contents = operation.get("requestBody", {}).get("content", {})
    media_type = request.headers.get("content-type", "").partition(";")[0]
    if not contents:
        return problems + (["it has a body"] if request.raw not in (b"", b"{}") else [])
    if media_type not in contents:
        return [*problems, f"its content type is {media_type!r}"]
    schema = contents[media_type]["schema"]
    body = request.body if media_type == "application/json" else _form_of(request, schema)
    known = properties_of(schema)
    problems += [f"the body has {name!r}" for name in body if known and name not in known]
    return problems + errors_of(body, schema)


def _operation_of(request: Any) -> Optional[Mapping[str, Any]]:
    path = request.path.removeprefix("/v1")
    for template, methods in description()["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and request.method.lower() in methods:
            operation: Mapping[str, Any] = methods[request.method.lower()]
            return operation
    return None


def properties_of(schema: Mapping[str, Any]) -> Set[str]:
    """Return the names of all fields that a schema knows."""
    return {name for part in _parts_of(schema) for name in part.get("properties", {})}


def _parts_of(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "$ref" in schema:
        schema = description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    yield schema
    for kind in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(kind, ()):
            yield from _parts_of(part)


def _form_of(request: Any, schema: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the object that the fields of a form stand for, as OpenAI's own clients write them."""
    form: Dict[str, Any] = {}
    for name, text in request.form.items():
        base, _, key = name.partition("[")
        types = {part.get("type") for part in _parts_of(_property(schema, base))}
        if isinstance(text, list):
            form[base] = text
        elif key:
            form.setdefault(base, {})[key[:-1]] = int(text) if text.isdigit() else text
        else:
            form[base] = json.loads(text) if types & {"number", "integer", "boolean"} else text
    for part in request.files:
        base, several = part.name.partition("[")[0], part.name.endswith("[]")
        form[base] = [*form.get(base, ()), part.filename] if several else part.filename
    return form


def _property(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for part in _parts_of(schema):
        for known, found in part.get("properties", {}).items():
            if known.partition("[")[0] == name:
                return found  # type: ignore[no-any-return]
    return {}
