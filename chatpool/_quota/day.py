"""Limits per day that several processes share, put before those per minute of :mod:`chatpool._quota.gcra`.

What was spent is remembered over restarts, of the process and of the host: a :class:`DayBook` is the day's count with
the time that it goes by.  :func:`pack_day` and :func:`unpack_day` turn it into bytes and back.

:mod:`chatpool._quota.redis` does the same as :func:`reserve_in_day`, step by step, inside Redis.
"""

from __future__ import annotations

import struct
import time
import zlib
from typing import NamedTuple, Optional

from .._policy.day_window import DayWindow
from . import gcra
from .gcra import Rates, ReserveResult, State

__all__ = ["DayBook", "DayCharge", "HostTime", "host_time", "pack_day", "reserve_in_day", "unpack_day"]


class DayCharge(NamedTuple):
    """Correction of a day's count.

    Attributes:
        at: the moment of the call, on the clock of the day.
        requests: requests more, or a negative number.
        tokens: tokens more, or a negative number.
    """

    at: float
    requests: float
    tokens: float


def reserve_in_day(
    state: State,
    window: DayWindow,
    now: float,
    day_now: float,
    rates: Rates,
    *,
    requests: float,
    tokens: float,
    max_wait: float,
    sharer: float,
) -> ReserveResult:
    """Reserve the next free moment of the minute, unless the day has no room: then nothing is taken.

    Args:
        state: of the limits per minute.
        window: the day's count.
        now, rates, requests, tokens, max_wait, sharer: as for :func:`~chatpool._quota.gcra.reserve`.
        day_now: the time on the clock of the day.
    """
    assert rates.day is not None
    day_now = window.advance(day_now)
    wait = window.wait(rates.day, requests, tokens)
    if wait > 0:
        return ReserveResult(False, wait, 0.0, max(1, len(state.seen)), day_now, rates.day.left(*window.used()))
    result = gcra.reserve(state, now, rates, requests=requests, tokens=tokens, max_wait=max_wait, sharer=sharer)
    at = day_now + result.wait
    if result.granted:
        window.take(at, requests, tokens)
    return result._replace(day_at=at, day_left=rates.day.left(*window.used()))


# -- the time of a host -----------------------------------------------------------------------------------------

_SKEW_SECONDS = 60.0  # between the clocks of hosts that share a home directory; more is a clock that was set back


class HostTime(NamedTuple):
    """Time of a host.

    Attributes:
        wall: seconds since the epoch; it may be set.
        uptime: seconds since the host's start, those in which it slept included; nobody can set it.
        boot: number of this start of the host.
    """

    wall: float
    uptime: float
    boot: int


def host_time(boot: int) -> HostTime:
    """Return the present; ``boot`` is the number of this start of the host."""
    # Linux has the first, macOS counts sleep in the second, and Windows has neither.
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return HostTime(time.time(), time.monotonic() if clock is None else time.clock_gettime(clock), boot)


class DayBook:
    """A day's count, and the host's time when it was used last.

    Its clock goes on by the host's uptime, so that setting the wall clock makes no day longer or shorter.  Over a
    restart of the host it goes on by the wall clock, and never back.
    """

    __slots__ = ("_last", "window")

    def __init__(self, window: Optional[DayWindow] = None, last: Optional[HostTime] = None) -> None:
        self.window = DayWindow() if window is None else window
        self._last = last

    def now(self, host: HostTime) -> float:
        """Return the present on the clock of the day."""
        last, self._last = self._last, host
        if last is None:
            return host.wall
        elapsed = host.uptime - last.uptime if host.boot == last.boot else -1.0
        if elapsed < 0:  # another start; not all systems number them
            elapsed = max(0.0, host.wall - last.wall)
        if 0 <= last.wall - host.wall < _SKEW_SECONDS:  # or hosts with different clocks would hurry the day along
            self._last = host._replace(wall=last.wall)
        return self.window.touched + elapsed

    @property
    def last(self) -> HostTime:
        """The host's time when it was used last."""
        return self._last or HostTime(0.0, 0.0, 0)


_MAGIC = b"cpd1"
_HEADER = struct.Struct("<4sIIQ3d")  # magic, checksum of what follows it, slots, boot, touched, wall, uptime
_CHECKSUM_END_BYTES = 8
_SLOT_BYTES = 24


def pack_day(book: DayBook) -> bytes:
    """Return the count as bytes."""
    slots, last = book.window.slots, book.last
    numbers = [number for slot in slots for number in slot]
    header = _HEADER.pack(_MAGIC, 0, len(slots), last.boot, book.window.touched, last.wall, last.uptime)
    checked = header[_CHECKSUM_END_BYTES:] + struct.pack(f"<{len(numbers)}d", *numbers)
    return _MAGIC + struct.pack("<I", zlib.crc32(checked)) + checked


def unpack_day(data: bytes) -> Optional[DayBook]:
    """Return the count in ``data``, None if it holds none."""
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        return None
    _, checksum, count, boot, touched, wall, uptime = _HEADER.unpack_from(data)
    end = _HEADER.size + _SLOT_BYTES * count
    if len(data) < end or zlib.crc32(data[_CHECKSUM_END_BYTES:end]) != checksum:
        return None
    numbers = struct.unpack_from(f"<{3 * count}d", data, _HEADER.size)
    slots = [list(numbers[start : start + 3]) for start in range(0, len(numbers), 3)]
    return DayBook(DayWindow(touched, slots), HostTime(wall, uptime, boot))
