"""Responses that no server has sent: tests make them by hand, or put a mock in their place."""

from __future__ import annotations

import json
from typing import Any, Mapping

import requests
from requests.structures import CaseInsensitiveDict

__all__ = ["as_response"]


def as_response(given: Any) -> requests.Response:
    """``given`` as a response that can be read like any other.

    A ``requests.Response`` with nothing but ``_content`` has no ``raw`` to be read from; a ``Mock`` has what it was
    given of ``status_code``, ``headers``, and ``content``, ``text`` or ``json``.

    Raises:
        TypeError: it has no status code, or nothing that could be its content.
    """
    if isinstance(given, requests.Response) and (given.raw is not None or given._content_consumed):  # type: ignore[attr-defined]
        return given
    status, headers = getattr(given, "status_code", None), getattr(given, "headers", None)
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"a {type(given).__name__} took the place of a requests.Response and has no status_code")
    made = requests.Response()
    made.status_code = status
    made.headers = CaseInsensitiveDict(headers if isinstance(headers, Mapping) else {})
    made._content = _content_of(given)
    made._content_consumed = True  # type: ignore[attr-defined]
    return made


def _content_of(given: Any) -> bytes:
    if isinstance(given, requests.Response):
        return given._content if isinstance(given._content, bytes) else b""
    content, text = getattr(given, "content", None), getattr(given, "text", None)
    if isinstance(content, (bytes, bytearray)):
        return bytes(content)
    if isinstance(text, str):
        return text.encode()
    try:
        return json.dumps(given.json()).encode()
    except (AttributeError, TypeError, ValueError):
        pass
    raise TypeError(f"a {type(given).__name__} took the place of a requests.Response: give it content=b'...'")
