"""Reading the head of an answer, more strictly than http.client does."""

from __future__ import annotations

import http.client
from typing import Any, Tuple

__all__ = ["FinalResponse"]

_LONGEST_LINE = 65536


class FinalResponse(http.client.HTTPResponse):
    """The final answer: skips every interim one (1xx), not only 100, and takes no head that breaks off.

    Taken for the answer, a 103 would leave the real one on the connection, for the next exchange to read.
    """

    def begin(self) -> None:
        """Read the head."""
        file = self.fp
        self.fp = _WholeLines(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            self.fp = file

    def _read_status(self) -> Tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == http.client.SWITCHING_PROTOCOLS:
                raise http.client.BadStatusLine("101: the server changes to a protocol that was not asked for")
            if status >= http.client.OK or status == http.client.CONTINUE:  # begin() skips the latter
                return version, status, reason
            while self.fp.readline(_LONGEST_LINE).strip():
                pass


class _WholeLines:
    """Reads lines, and raises where one breaks off at the end of the connection."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lines = 0

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        self._lines += 1
        # No line at all is http.client's RemoteDisconnected; one as long as the limit is its LineTooLong.
        if not line.endswith(b"\n") and len(line) < limit and (line or self._lines > 1):
            raise http.client.IncompleteRead(line)
        return line
