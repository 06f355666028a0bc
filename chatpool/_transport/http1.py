"""Reading the head of an answer, more strictly than http.client does and, where it is plain, at less cost.

Where the body of an answer ends: the fields that say so, brought to their plain form (RFC 9112, 6.3).
"""

from __future__ import annotations

import http.client
import re
from typing import Any, Dict, List, Optional, Tuple

from .._wire import UnreadableAnswer
from .headers import Field, Fields, ParsedHeaders, parse_fields, parse_loosely

__all__ = ["BriefResponse", "FinalResponse", "plain_framing"]


_CONTENT_LENGTH, _TRANSFER_CODING = "content-length", "transfer-encoding"
_DIGITS = re.compile(r"[0-9]{1,18}")


def plain_framing(fields: Fields, *, closes: bool, bodiless: bool = False) -> Fields:
    """``fields`` with nothing about the body's end but one length, or ``chunked`` alone, or neither.

    Gateways repeat what the server behind them has said already: the same length twice is that length.

    Args:
        fields: the fields of an answer.
        bodiless: whether the answer has no body, whatever they say.
        closes: whether the connection ends with the answer: then a body of unknown length ends with it too.

    Raises:
        UnreadableAnswer: nobody can tell where the body ends; the message names the field.
    """
    coding, length = fields.merged.get(_TRANSFER_CODING), fields.merged.get(_CONTENT_LENGTH)
    if coding is None and (length is None or _DIGITS.fullmatch(length[1])):
        return fields
    if bodiless:
        return _with(fields, {})
    if coding is not None and _is_chunked(coding[1]):
        return _with(fields, {_TRANSFER_CODING: (coding[0], "chunked")})
    count = None if length is None else _count(length[1], closes=closes)
    if count is not None and length is not None:
        return _with(fields, {_CONTENT_LENGTH: (length[0], count)})
    if coding is not None and _codings(coding[1]) and not closes:
        raise UnreadableAnswer(f"Transfer-Encoding {coding[1][:80]!r} does not tell where the body ends")
    return _with(fields, {})


def _codings(value: str) -> List[str]:
    names = (name.partition(";")[0].strip().lower() for name in value.split(","))
    return [name for name in names if name not in ("", "identity")]


def _is_chunked(value: str) -> bool:
    names = _codings(value)
    if "chunked" not in names:
        return False
    if set(names) != {"chunked"}:
        raise UnreadableAnswer(f"Transfer-Encoding {value[:80]!r}: only 'chunked' is understood")
    return True


def _count(value: str, *, closes: bool) -> Optional[str]:
    """The one length in ``value``; None where there is none and none is needed."""
    stated = [part for part in (part.strip() for part in value.split(",")) if part]
    counts = {int(part) for part in stated if _DIGITS.fullmatch(part)}
    if len(counts) == 1 and all(map(_DIGITS.fullmatch, stated)):
        return str(counts.pop())
    if closes and not counts:
        return None
    what = "names several lengths" if len(counts) > 1 else "is not a length"
    raise UnreadableAnswer(f"Content-Length {value[:80]!r} {what}")


def _with(fields: Fields, framing: Dict[str, Field]) -> Fields:
    """``fields`` with ``framing`` in the place of what they say about the body's end."""
    merged = {name: field for name, field in fields.merged.items() if name not in (_CONTENT_LENGTH, _TRANSFER_CODING)}
    every: List[Tuple[str, str]] = [
        field for field in fields.all if field[0].lower() not in (_CONTENT_LENGTH, _TRANSFER_CODING)
    ]
    return Fields([*every, *framing.values()], {**merged, **framing})


_LONGEST_LINE = 65536
_MOST_FIELDS = 1000  # gateways add one for each of their decisions: http.client's own 100 are too few
_LARGEST_HEAD = 1024 * 1024
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
        """Read the head; ``options`` are those of later Pythons, whose limits the own ones replace.

        Raises:
            UnreadableAnswer: it does not tell where the body ends, or has no end itself.
        """
        if self.headers is None and not self._begin_plainly():
            self._begin_by_lines()

    def _begin_by_lines(self) -> None:
        file: Any = self.fp
        self.fp = _WholeLines(file)
        try:
            version, status, reason = self._read_status()
            stated = parse_loosely(self._read_lines())
        finally:
            # None: http.client has given it up, and closed the file.
            self.fp = file if self.fp is not None else None
        if not version.startswith("HTTP/1.") and version != "HTTP/0.9":
            raise http.client.UnknownProtocol(version)
        number = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        bodiless = self._has_no_body(status)
        fields = plain_framing(stated, closes=_closes(stated.merged, number), bodiless=bodiless)
        self._frame(status, fields.merged, number)
        if bodiless and "transfer-encoding" in stated.merged:
            self.will_close = True  # chunks may follow all the same
        self.reason = reason.strip()
        self._show(fields)

    def _read_lines(self) -> List[bytes]:
        """The lines up to the blank one."""
        lines: List[bytes] = []
        size = 0
        while True:
            line: bytes = self.fp.readline(_LONGEST_LINE + 1)
            if len(line) > _LONGEST_LINE:
                raise UnreadableAnswer(f"a line of the head or trailer is longer than {_LONGEST_LINE:,} bytes")
            if line in (b"\r\n", b"\n", b""):
                return lines
            lines.append(line)
            size += len(line)
            if len(lines) > _MOST_FIELDS or size > _LARGEST_HEAD:
                most = f"{_MOST_FIELDS:,} lines or {_LARGEST_HEAD:,} bytes"
                raise UnreadableAnswer(f"the head or trailer has more than {most}")

    def _show(self, fields: Fields) -> None:
        self.headers = self.msg = ParsedHeaders(fields)
        self.msg.brief = self.brief

    def _begin_plainly(self) -> bool:
        """Take the head from what has arrived; False, and nothing read, if it is not all there or not plain."""
        buffered: bytes = self.fp.peek(1)
        end = buffered.find(b"\r\n\r\n")
        status_line = _STATUS_LINE.match(buffered)
        if status_line is None or not 0 <= end <= _LONGEST_LINE:  # Python 3.15 buffers more than a line may have
            return False
        fields = parse_fields(buffered[status_line.end() : end + 2])
        if fields is None or len(fields.all) > _MOST_FIELDS or not self._frame(int(status_line[1]), fields.merged):
            return False
        self.reason = (status_line[2] or b"").decode("ascii").strip()
        self._show(fields)
        self.fp.read(end + 4)
        return True

    def _has_no_body(self, status: int) -> bool:
        return status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED) or self._method == "HEAD"

    def _frame(self, status: int, fields: Dict[str, Field], version: int = 11) -> bool:
        """Settle where the body ends (RFC 9112, 6.3); False if that takes more than this knows."""
        coding, length = _value(fields, "transfer-encoding"), _value(fields, "content-length")
        bodiless = self._has_no_body(status)
        if coding is not None and (coding.lower() != "chunked" or length is not None or bodiless):
            return False
        if length is not None and not _LENGTH.fullmatch(length):
            return False
        self.version = version
        self.code = self.status = status
        self.chunked = coding is not None
        if self.chunked:
            self.chunk_left = None
        self.length = None if length is None else int(length)
        if bodiless:
            self.length = 0
        self.will_close = _closes(fields, version) or (not self.chunked and self.length is None)
        return True

    def _read_status(self) -> Tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == http.client.SWITCHING_PROTOCOLS:
                raise http.client.BadStatusLine("101: the server changes to a protocol that was not asked for")
            if status >= http.client.OK:
                return version, status, reason
            while self.fp.readline(_LONGEST_LINE).strip():
                pass

    def _read_and_discard_trailer(self) -> None:
        self._read_lines()  # http.client has no bound for it, or, from 3.14 on, that of 100

    # A length below nothing would be read as "to the end", by http.client and by urllib3.

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        return _not_negative(size)

    def _safe_read(self, amt: int) -> bytes:
        data: bytes = super()._safe_read(_not_negative(amt))  # type: ignore[misc]
        return data


class BriefResponse(FinalResponse):
    """One whose headers its connection completes."""

    brief = True


def _not_negative(size: int) -> int:
    if size < 0:
        raise UnreadableAnswer(f"a chunk of the body has the length {size}")
    return size


def _closes(fields: Dict[str, Field], version: int) -> bool:
    """Whether the connection ends with the answer, by what its head says of the connection."""
    said = (_value(fields, "connection") or "").lower()
    if version == 11:
        return "close" in said
    kept = "keep-alive" in said or "keep-alive" in fields
    return not (kept or "keep-alive" in (_value(fields, "proxy-connection") or "").lower())


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
        # No line at all is http.client's RemoteDisconnected; one as long as the limit is an error of its own.
        if not line.endswith(b"\n") and len(line) < limit and (line or self._lines > 1):
            raise http.client.IncompleteRead(line)
        return line

    def close(self) -> None:
        self._file.close()
