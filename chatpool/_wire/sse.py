"""Server-sent events, parsed from the bytes of a body as they arrive.

The rules are those of the WHATWG's HTML standard, "Interpreting an event stream":
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional

__all__ = ["BARE", "ERROR", "EventParser", "ServerEvent"]

ERROR = "error"
"""The name of events that are an error: by their ``event:`` line, or a field ``error:`` (llama.cpp, up to 9/2025)."""

BARE = "bare"
"""The name given to a block that is JSON without any field, as it comes from a server that breaks off."""

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event.

    Attributes:
        name: value of its ``event:`` line, ``"message"`` without one; :data:`ERROR` where the server means an error.
        data: its ``data:`` lines, joined by newlines.
    """

    name: str
    data: str


class EventParser:
    """Finds the events in a stream of bytes, wherever it has been split.

    Args:
        max_event_bytes: the longest event that is accepted, its lines without the blank one at its end, in bytes.

    Attributes:
        overflowed: whether an event was longer than that; nothing that comes after it is parsed.
        signs: number of reads with a comment, or a block without data, and no event.
    """

    def __init__(self, max_event_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_event_bytes = max_event_bytes
        self.overflowed = False
        self.signs = 0
        # The bytes since the last blank line, in pieces: joined once, however many reads a long event takes.
        self._pieces: List[bytes] = []
        self._size = 0
        self._ends_line = False
        self._after_cr = False
        self._start: Optional[bytes] = b""  # bytes that may be a byte order mark; None once that is decided

    def feed(self, data: bytes) -> List[ServerEvent]:
        """Return the events that ``data``, the next bytes of the body, completes."""
        data = self._with_plain_line_ends(self._without_mark(data))
        if not data or self.overflowed:
            return []
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            # A blank line may have had its first newline before.
            end = 1 if self._ends_line and data.startswith(b"\n") else 0
        starts_line = self._ends_line or not self._size
        events = self._events_of(self._take_block(data, end)) if end else []
        self._keep(data[end:])
        if not events and _has_comment(data, starts_line=starts_line):
            self.signs += 1
        return events

    @property
    def unfinished(self) -> bool:
        """True if an event has begun and not ended.  At the end of the body the standard drops such an event."""
        return any(line and not line.startswith(b":") for line in b"".join(self._pieces).split(b"\n"))

    def end(self) -> List[ServerEvent]:
        """Return the event that the end of the body cut off, as far as it goes; none where it cut off nothing.

        It is not an event by the standard: it may lack lines, and its last line may be half of one.
        """
        rest = b"".join(self._pieces)
        self._pieces = []
        return self._event_of(rest.rstrip(b"\n"))

    def _without_mark(self, data: bytes) -> bytes:
        """Return ``data`` without the byte order mark that a body may start with."""
        if self._start is None:
            return data
        start = self._start + data
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        """Return ``data`` with a newline for every end of line."""
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" not in data:
            return data
        self._after_cr = data[-1] == 13
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _take_block(self, data: bytes, end: int) -> bytes:
        """Take all bytes since the last block, up to ``end``, a place in ``data`` after a blank line."""
        block = b"".join([*self._pieces, data[:end]]) if self._pieces else data[:end]
        self._pieces.clear()
        self._size = 0
        self._ends_line = False
        return block

    def _keep(self, rest: bytes) -> None:
        """Keep the bytes that have no blank line after them yet."""
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            self._ends_line = rest.endswith(b"\n")
        # Newlines at both its ends do not count.
        if self._size > self._max_event_bytes + 2:
            self.overflowed = True
        if self.overflowed:
            self._pieces.clear()

    def _events_of(self, block: bytes) -> List[ServerEvent]:
        """Return the events in whole lines, the last of them blank."""
        events = []
        for part in block[:-2].split(b"\n\n"):
            if len(part) > self._max_event_bytes and len(part.strip(b"\n")) > self._max_event_bytes:
                self.overflowed = True
                break
            # Nearly all events are one such line.
            if part.startswith(b"data: ") and b"\n" not in part:
                events.append(ServerEvent("message", part[6:].decode("utf-8", "replace")))
            else:
                events += self._event_of(part)
        return events

    def _event_of(self, lines: bytes) -> List[ServerEvent]:
        """Return the event that lines make, none where they have no data."""
        name, data = "", []
        for line in lines.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field in (b"data", b"error"):
                data.append(value)
            if field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"error":
                name = ERROR
        if not data and lines.lstrip().startswith((b"{", b"[")):
            name, data = BARE, [lines]
        if data:
            return [ServerEvent(name or "message", b"\n".join(data).decode("utf-8", "replace"))]
        self.signs += bool(lines.strip())
        return []


def _has_comment(data: bytes, *, starts_line: bool) -> bool:
    """Return whether a comment begins in ``data``: enough to know that the server is alive."""
    return (starts_line and data.startswith(b":")) or b"\n:" in data
