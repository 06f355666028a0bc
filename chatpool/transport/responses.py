"""Reading the head of an answer, more strictly than http.client does and, where it is plain, at less cost."""

from __future__ import annotations

import http.client
import re
from typing import Any, Dict, Optional, Tuple

from .headers import Field, ParsedHeaders, parse_fields

__all__ = ["BriefResponse", "FinalResponse"]

_LONGEST_LINE = 65536
_MOST_FIELDS = 100  # http.client's own limit
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)(?: ([ -~]*))?\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")


class FinalResponse(http.client.HTTPResponse):
    """The final answer: skips every interim one (1xx), not only 100, and takes no head that breaks off.

    Taken for the answer, a 103 would leave the real one on the connection, for the next exchange to read.
    """

    fp: Any
    headers: Any
    brief = False  # whether the headers show only some of them, until they are told otherwise
    _method: str

    def begin(self, **options: Any) -> None:
        """Read the head; ``options`` are those of later Pythons."""
        if self.headers is None and (options or not self._begin_plainly()):
            self._begin_by_lines(**options)

    def _begin_by_lines(self, **options: Any) -> None:
        file: Any = self.fp
        self.fp = _WholeLines(file)
        try:
            super().begin(**options)
        finally:
            # None: http.client has given it up, and closed the file.
            self.fp = file if self.fp is not None else None

    def _begin_plainly(self) -> bool:
        """Take the head from what has arrived; False, and nothing read, if it is not all there or not plain."""
        buffered: bytes = self.fp.peek(1)
        end = buffered.find(b"\r\n\r\n")
        status_line = _STATUS_LINE.match(buffered)
        if end < 0 or status_line is None:
            return False
        fields = parse_fields(buffered[status_line.end() : end + 2])
        if fields is None or len(fields.all) > _MOST_FIELDS or not self._frame(int(status_line[1]), fields.merged):
            return False
        self.reason = (status_line[2] or b"").decode("ascii").strip()
        self.headers = self.msg = ParsedHeaders(fields)
        self.msg.brief = self.brief
        self.fp.read(end + 4)
        return True

    def _frame(self, status: int, fields: Dict[str, Field]) -> bool:
        """Settle where the body ends (RFC 9112, 6.3); False if that takes more than this knows."""
        coding, length = _value(fields, "transfer-encoding"), _value(fields, "content-length")
        if coding is not None and (coding.lower() != "chunked" or length is not None):
            return False
        if length is not None and not _LENGTH.fullmatch(length):
            return False
        self.version = 11
        self.code = self.status = status
        self.chunked = coding is not None
        if self.chunked:
            self.chunk_left = None
        self.length = None if length is None else int(length)
        if status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED) or self._method == "HEAD":
            self.length = 0
        closes = "close" in (_value(fields, "connection") or "").lower()
        self.will_close = closes or (not self.chunked and self.length is None)
        return True

    def _read_status(self) -> Tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == http.client.SWITCHING_PROTOCOLS:
                raise http.client.BadStatusLine("101: the server changes to a protocol that was not asked for")
            if status >= http.client.OK or status == http.client.CONTINUE:  # begin() skips the latter
                return version, status, reason
            while self.fp.readline(_LONGEST_LINE).strip():
                pass


class BriefResponse(FinalResponse):
    """One whose headers its connection completes."""

    brief = True


def _value(fields: Dict[str, Field], name: str) -> Optional[str]:
    field = fields.get(name)
    return None if field is None else field[1]


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

    def close(self) -> None:
        self._file.close()
