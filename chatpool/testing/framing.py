"""The parts of an HTTP answer around its content."""

from __future__ import annotations

from http.client import responses as _REASONS  # noqa: N812 - a table, used as a constant
from typing import Mapping, Sequence, Tuple, Union

from ..errors import ConfigurationError

__all__ = ["HeaderFields", "chunked", "header_pairs", "reason_of", "response_head"]

HeaderFields = Union[Mapping[str, str], Sequence[Tuple[str, str]]]


def reason_of(status: int, default: str) -> str:
    """The reason phrase of an HTTP status."""
    return _REASONS.get(status, default)


def header_pairs(fields: HeaderFields) -> Tuple[Tuple[str, str], ...]:
    """Header fields as pairs, checked.

    Raises:
        ConfigurationError: a name or value holds a line break.
    """
    given = fields.items() if isinstance(fields, Mapping) else fields
    pairs = tuple((str(name), str(value)) for name, value in given)
    for name, value in pairs:
        if any(mark in name + value for mark in "\r\n"):
            raise ConfigurationError(f"the header field {name!r} holds a line break")
    return pairs


def response_head(status: int, fields: Mapping[str, str], pairs: Sequence[Tuple[str, str]]) -> bytes:
    """The head of an answer; ``pairs`` replace the ``fields`` of the same name."""
    replaced = {name.lower() for name, _ in pairs}
    kept = [(name, value) for name, value in fields.items() if name not in replaced]
    lines = "".join(f"{name}: {value}\r\n" for name, value in (*kept, *pairs))
    return f"HTTP/1.1 {status} {reason_of(status, 'Unknown')}\r\n{lines}\r\n".encode("latin-1")


def chunked(payload: bytes, size: int, *, last: bool = True) -> bytes:
    """``payload`` in chunks of ``size`` bytes; with the one that ends the body if they are the ``last``."""
    chunks = [payload[start : start + size] for start in range(0, len(payload), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""][: None if last else -1])
