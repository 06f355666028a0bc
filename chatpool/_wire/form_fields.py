"""Bodies as the fields of a form: what stands beside the files of a request."""

from __future__ import annotations

import json
from typing import Any, Iterator, List, Mapping, Tuple

from .codec import encode

__all__ = ["form_fields"]


def form_fields(body: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """Return the names and texts of a body's fields.

    Written as OpenAI's own clients do: ``true`` and ``false``, ``name[]`` for each entry of a list, ``name[key]`` for
    those of an object; what is None is left out.

    Raises:
        TypeError, ConfigurationError: a value that JSON cannot hold either; the message names the field.
    """
    plain_body = json.loads(encode(body))
    return [field for name, value in plain_body.items() for field in _fields_of(name, value)]


def _fields_of(name: str, value: Any) -> Iterator[Tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _fields_of(f"{name}[{key}]", part)
    elif isinstance(value, list):
        for part in value:
            yield from _fields_of(f"{name}[]", part)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value)
