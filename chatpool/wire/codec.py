"""JSON to and from bytes, faster where orjson is installed."""

from __future__ import annotations

import importlib
import json
import math
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

from ..errors import ConfigurationError

__all__ = ["Encoded", "encode", "loads"]

# Deeper bodies are taken for circular ones; no API nests its requests this far.
_DEEPEST = 200


class Encoded(Dict[str, Any]):
    """A body that is encoded already, and not changed any more.

    Attributes:
        payload: its encoding.
    """

    __slots__ = ("payload",)

    def __init__(self, body: Mapping[str, Any], payload: bytes) -> None:
        super().__init__(body)
        self.payload = payload


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


_stdlib = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def _find_orjson() -> Tuple[Optional[Callable[[Any], bytes]], Callable[[Any], Any]]:
    """The two functions of orjson where it is installed, otherwise None and the standard library's."""
    try:
        orjson: Any = importlib.import_module("orjson")
    except ImportError:
        return None, json.loads
    # What the standard library refuses is to be refused with and without orjson.
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    return lambda body: bytes(orjson.dumps(body, _plain, options)), orjson.loads


_fast_dumps, _fast_loads = _find_orjson()


def encode(body: Mapping[str, Any]) -> bytes:
    """``body`` as UTF-8 JSON without needless spaces.

    Raises:
        TypeError: a value that JSON has no form for; the message names the field, never the value.
        ConfigurationError: NaN, an infinity, a lone surrogate or a circular reference; the message names the field.
    """
    if type(body) is Encoded:
        return body.payload
    if _fast_dumps is not None:
        try:
            encoded = _fast_dumps(body)
        except (TypeError, ValueError, RecursionError):
            encoded = b"null"
        # orjson writes NaN and infinities as null, so only an answer without null is proof that there were none.
        if b"null" not in encoded:
            return encoded
    try:
        return _stdlib.encode(body).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        fault = _fault(body, "", 0)
    # Not raised from the original: that one quotes the text of the prompt.
    raise fault or TypeError("the request body cannot be written as JSON")


def loads(content: Union[bytes, str]) -> Any:
    """``content`` decoded from JSON.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return _fast_loads(content)
    except ValueError:
        if _fast_loads is json.loads:
            raise
    # The standard library also takes NaN, other encodings than UTF-8 and lone surrogates.
    return json.loads(content)


def _fault(value: Any, where: str, depth: int) -> Optional[Exception]:
    """The first thing in ``value`` that JSON cannot hold, as the error to raise; None without one."""
    name = where or "the request body"
    if depth > _DEEPEST:
        return ConfigurationError(f"{where.split('.')[0].split('[')[0]} is circular or nested too deeply to be sent")
    if isinstance(value, Mapping):
        return _fault_in_mapping(value, where, depth)
    if isinstance(value, (list, tuple)):
        faults = (_fault(part, f"{where}[{index}]", depth + 1) for index, part in enumerate(value))
        return next((fault for fault in faults if fault is not None), None)
    if isinstance(value, float) and not math.isfinite(value):
        return ConfigurationError(f"{name} is {float(value)!r}, which JSON cannot hold: use a finite number")
    if isinstance(value, str):
        return _fault_in_text(value, name)
    if value is None or isinstance(value, (bool, int, float)):
        return None
    kind = type(value)
    return TypeError(
        f"{name} is a {kind.__module__}.{kind.__qualname__}, which JSON cannot hold: "
        "use str, int, float, bool, None, list or dict"
    )


def _fault_in_mapping(value: Mapping[Any, Any], where: str, depth: int) -> Optional[Exception]:
    for key, part in value.items():
        if not (key is None or isinstance(key, (str, int, float))):
            return TypeError(f"{where or 'the request body'} has a key of type {type(key).__name__}: keys must be str")
        fault = _fault(key, where, depth + 1) or _fault(part, f"{where}.{key}" if where else str(key), depth + 1)
        if fault is not None:
            return fault
    return None


def _fault_in_text(value: str, name: str) -> Optional[Exception]:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return ConfigurationError(
            f"{name} holds a lone surrogate at position {error.start}, which UTF-8 cannot hold: "
            "decode the text with the right encoding, or replace it with errors='replace'"
        )
    return None
