"""Sending a request at less cost than http.client does."""

from __future__ import annotations

from typing import Any, List, Optional

from urllib3._collections import HTTPHeaderDict

from .headers import LeanHeaders, ParsedHeaders
from .responses import BriefResponse

__all__ = ["LeanConnection"]

# Beyond this, copying a body costs more than sending it by itself.
_LARGEST_JOINED = 64 * 1024


class LeanConnection:
    """Mixed into a connection class of urllib3's that is one of http.client's."""

    response_class = BriefResponse
    _buffer: List[bytes]  # http.client's: the lines of the head
    _joined_body: Optional[bytes] = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send a request; a small one in one piece, which costs one system call and one wake-up instead of two."""
        if type(headers) is LeanHeaders and type(body) is bytes and 0 < len(body) <= _LARGEST_JOINED:
            self._joined_body, body = body, None
        try:
            super().request(method, url, body=body, headers=headers, **options)  # type: ignore[misc]
            if self._joined_body is not None:
                # Sent without http.client's _send_output: not a version this knows.
                self.send(self._joined_body)  # type: ignore[attr-defined]
        finally:
            self._joined_body = None

    def getresponse(self, *args: Any, **options: Any) -> Any:
        """The answer's head; urllib3 (from 2.0 on) would take it apart once more, header by header."""
        response = super().getresponse(*args, **options)  # type: ignore[misc]
        headers = getattr(getattr(response, "_original_response", response), "msg", None)
        if type(headers) is ParsedHeaders:
            headers.brief = False
            if type(getattr(response, "headers", None)) is HTTPHeaderDict:
                response.headers = headers.as_urllib3_has_them()
        return response

    def putheader(self, header: Any, *values: Any) -> None:
        """Add a header; those of LeanHeaders were checked when their template was made."""
        if self._joined_body is None or len(values) != 1 or not str(values[0]).isprintable():
            super().putheader(header, *values)  # type: ignore[misc]
        else:
            self._buffer.append(f"{header}: {values[0]}".encode("latin-1"))

    def _send_output(self, message_body: Any = None, encode_chunked: bool = False) -> None:
        if self._joined_body is None:
            super()._send_output(message_body, encode_chunked)  # type: ignore[misc]
            return
        message = b"\r\n".join((*self._buffer, b"", self._joined_body))
        self._buffer.clear()
        self._joined_body = None
        self.send(message)  # type: ignore[attr-defined]
