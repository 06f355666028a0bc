"""A state as bytes and back; bytes that were not written to the end are recognised."""

from __future__ import annotations

import struct
import zlib
from typing import List, Optional

from .arithmetic import State

__all__ = ["pack", "unpack"]

_MAGIC = b"cpq1"
_HEAD = struct.Struct("<4sIHH5d")  # magic, checksum of what follows it, entries of window and seen, five times
_CHECKED_FROM = 8


def pack(state: State) -> bytes:
    """The state as bytes."""
    times = (state.touched, state.requests_due, state.tokens_due, state.last, state.paused_until)
    pairs = [number for entry in state.window + state.seen for number in entry]
    body = _HEAD.pack(_MAGIC, 0, len(state.window), len(state.seen), *times) + struct.pack(f"<{len(pairs)}d", *pairs)
    return _MAGIC + struct.pack("<I", zlib.crc32(body[_CHECKED_FROM:])) + body[_CHECKED_FROM:]


def unpack(data: bytes) -> Optional[State]:
    """The state, None if these bytes are none."""
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        return None
    _, checksum, in_window, in_seen, touched, requests_due, tokens_due, last, paused_until = _HEAD.unpack_from(data)
    end = _HEAD.size + 16 * (in_window + in_seen)
    if len(data) < end or zlib.crc32(data[_CHECKED_FROM:end]) != checksum:
        return None
    numbers = struct.unpack_from(f"<{2 * (in_window + in_seen)}d", data, _HEAD.size)
    pairs: List[List[float]] = [list(pair) for pair in zip(numbers[::2], numbers[1::2])]
    return State(touched, requests_due, tokens_due, last, paused_until, pairs[:in_window], pairs[in_window:])
