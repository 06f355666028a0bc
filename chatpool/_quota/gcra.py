"""GCRA of a limit per minute that several processes share: state and time in, the moment of a call out.

The generic cell rate algorithm, as one that reserves: a caller is given the next free moment at once and keeps it.  So
callers are served in the order in which they asked, each waits once, and none wakes up in vain.  Tokens that were not
needed are given back.  :func:`pack` and :func:`unpack` turn a state into bytes and back; bytes that were not written to
the end are recognised.

:mod:`chatpool._quota.redis` does the same, step by step, inside Redis; the two agree to the last bit.
"""

from __future__ import annotations

import copy
import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import List, NamedTuple, Optional

from .._policy.day_window import DayLimits
from .._values import LATENESS_SECONDS

__all__ = [
    "MAX_SHARERS",
    "LimitStatus",
    "Rate",
    "Rates",
    "ReserveResult",
    "State",
    "correct",
    "pack",
    "pause",
    "reserve",
    "status",
    "unpack",
]


_MINUTE_SECONDS = 60.0
# From the start of a second of the window to when no minute holds anything that was reserved in it.
_WINDOW_SECONDS = _MINUTE_SECONDS + 1 + LATENESS_SECONDS
_SHARER_TTL_SECONDS = 120.0  # without a sign of life
MAX_SHARERS = 256
"""Number of sharers that are counted; there may be more."""

_ROUNDING_TOKENS = 1e-9


class Rate(NamedTuple):
    """A limit per minute, in the terms of the algorithm.

    Attributes:
        limit: units in any minute.
        emission: seconds between two units.
        burst: units that may be taken at once.
    """

    limit: float
    emission: float
    burst: float

    @classmethod
    def of(cls, per_minute: Optional[float], burst_seconds: float, *, unit: float = 0.0) -> Rate:
        """Return the rate for a limit; None is no limit.

        A minute holds a burst and the units emitted meanwhile: so the emission is that of the limit less the burst, and
        one unit more where units are whole.  A call reserved just before the minute may be sent in it, up to
        ``LATENESS_SECONDS`` seconds late.
        """
        if per_minute is None:
            return cls(1e300, 0.0, 0.0)  # Lua can read it, and cannot read infinity
        burst = min(max(per_minute / _MINUTE_SECONDS * burst_seconds, unit, 1.0), per_minute)
        # With a burst of nearly a minute's worth there would be nothing left to emit.
        emission = (_MINUTE_SECONDS + LATENESS_SECONDS) / max(per_minute - burst + unit, per_minute / 2)
        return cls(per_minute, emission, burst)


class Rates(NamedTuple):
    """The rates of both resources, and their limits per day; None without any."""

    requests: Rate
    tokens: Rate
    day: Optional[DayLimits] = None

    @classmethod
    def of(
        cls,
        requests_per_minute: Optional[float],
        tokens_per_minute: Optional[float],
        burst: float,
        day: Optional[DayLimits] = None,
    ) -> Rates:
        """Return the rates for the limits of a user; ``burst`` is in seconds' worth."""
        return cls(Rate.of(requests_per_minute, burst, unit=1.0), Rate.of(tokens_per_minute, burst), day)


class ReserveResult(NamedTuple):
    """Result of :func:`reserve`.

    Attributes:
        granted: whether it was reserved; otherwise nothing was taken.
        wait: seconds until its moment.
        at: its moment, on the clock of the state; :func:`correct` wants it back.
        sharers: number of sharers that have asked lately, this one included.
        day_at: its moment, on the clock of the day; a correction of the day's count wants it back.
        day_left: what the day has left after it; None without limits per day.
    """

    granted: bool
    wait: float
    at: float
    sharers: int
    day_at: float = 0.0
    day_left: Optional[DayLimits] = None


class LimitStatus(NamedTuple):
    """A shared limit at one moment.

    Attributes:
        wait: seconds that a small call would wait now.
        paused_for: seconds for which it is paused; 0 when it is not.
        sharers: number of sharers that have asked lately.
    """

    wait: float
    paused_for: float
    sharers: int


@dataclass
class State:
    """State that all sharers have in common; times are on one clock that all of them read.

    Attributes:
        touched: when it was last used.
        requests_due: until when the requests reserved so far last at their rate (the theoretical arrival time).
        tokens_due: the same for tokens.
        last: the latest moment reserved; no earlier one is given any more.
        paused_until: nothing is sent before.
        window: ``[second, tokens]`` of the last minute, oldest first.
        seen: ``[sharer, time]``, when each asked last.
    """

    touched: float = 0.0
    requests_due: float = 0.0
    tokens_due: float = 0.0
    last: float = 0.0
    paused_until: float = 0.0
    window: List[List[float]] = field(default_factory=list)
    seen: List[List[float]] = field(default_factory=list)


def reserve(
    state: State, now: float, rates: Rates, *, requests: float, tokens: float, max_wait: float, sharer: float
) -> ReserveResult:
    """Reserve the next free moment, unless it is more than ``max_wait`` seconds away."""
    now = _advance(state, now)
    _record_sharer(state, now, sharer)
    latest = max(now, state.last)
    state.window = [entry for entry in state.window if entry[0] + _WINDOW_SECONDS > latest]
    at = _earliest_in_window(state, _earliest(state, now, rates, requests, tokens), rates.tokens.limit, tokens)
    wait = at - now
    if wait > max_wait:
        return ReserveResult(False, wait, at, len(state.seen))
    state.last = at
    state.requests_due = max(state.requests_due, at) + requests * rates.requests.emission
    state.tokens_due = max(state.tokens_due, at) + tokens * rates.tokens.emission
    _add_to_window(state, math.floor(at), tokens)
    return ReserveResult(True, wait, at, len(state.seen))


def correct(state: State, now: float, rates: Rates, *, at: float, tokens: float) -> None:
    """Charge ``tokens`` more for the call reserved for ``at``, or give so many back where the number is negative.

    Only tokens: the moment itself has been given, and others come after it.  All that calls took more than they
    reserved is made up for within about a minute of the latest moment given.
    """
    now = _advance(state, now)
    due = max(state.tokens_due, now)
    state.tokens_due = due + tokens * rates.tokens.emission
    if tokens > 0:
        max_due = max(now, state.last) + rates.tokens.limit * rates.tokens.emission
        state.tokens_due = max(due, min(state.tokens_due, max_due))
    for entry in state.window:
        if entry[0] == math.floor(at):
            entry[1] = max(0.0, entry[1] + tokens)


def pause(state: State, now: float, rates: Rates, *, seconds: float) -> None:
    """Let nothing be sent for so long, and then without a burst, or all sharers would come at once."""
    now = _advance(state, now)
    state.paused_until = max(state.paused_until, now + seconds)
    burst_of_requests = rates.requests.burst * rates.requests.emission
    burst_of_tokens = rates.tokens.burst * rates.tokens.emission
    state.requests_due = max(state.requests_due, state.paused_until + burst_of_requests)
    state.tokens_due = max(state.tokens_due, state.paused_until + burst_of_tokens)


def status(state: State, now: float, rates: Rates) -> LimitStatus:
    """Return the status of the limit; changes nothing."""
    state = copy.deepcopy(state)
    now = _advance(state, now)
    wait = _earliest(state, now, rates, 1.0, 0.0) - now
    return LimitStatus(wait, max(0.0, state.paused_until - now), len(state.seen))


def _advance(state: State, now: float) -> float:
    """Return the present; on a clock that was set back, or began anew, as if no time had passed."""
    back = math.floor(state.touched - now)
    if back > 0:
        state.touched -= back
        state.requests_due -= back
        state.tokens_due -= back
        state.last -= back
        state.paused_until -= back
        for entry in state.window:
            entry[0] -= back
        for entry in state.seen:
            entry[1] -= back
    state.touched = max(state.touched, now)
    return state.touched


def _record_sharer(state: State, now: float, sharer: float) -> None:
    seen = [entry for entry in state.seen if entry[0] != sharer and entry[1] + _SHARER_TTL_SECONDS > now]
    seen.append([sharer, now])
    state.seen = seen[-MAX_SHARERS:]


def _earliest(state: State, now: float, rates: Rates, requests: float, tokens: float) -> float:
    """Return the earliest moment that the rates allow.

    More than the burst may be taken at once when nothing is owed, and is paid for afterwards.
    """
    requests_free = state.requests_due - max(0.0, rates.requests.burst - requests) * rates.requests.emission
    tokens_free = state.tokens_due - max(0.0, rates.tokens.burst - tokens) * rates.tokens.emission
    return max(now, state.paused_until, state.last, requests_free, tokens_free)


def _earliest_in_window(state: State, at: float, limit: float, tokens: float) -> float:
    """Return the earliest moment from ``at`` on whose minute has capacity for so many tokens.

    The rate alone does not see to that: a call larger than the burst is paid for afterwards, and what is given back
    late was reserved in an earlier minute.
    """
    total = tokens
    for second, amount in state.window:
        if second + _WINDOW_SECONDS > at:
            total += amount
    for second, amount in state.window:
        if total <= limit + _ROUNDING_TOKENS:
            break
        if second + _WINDOW_SECONDS > at:
            total -= amount
            at = second + _WINDOW_SECONDS
    return at


def _add_to_window(state: State, second: float, tokens: float) -> None:
    if tokens == 0:
        return
    if state.window and state.window[-1][0] == second:
        state.window[-1][1] += tokens
    else:
        state.window.append([second, tokens])


_MAGIC = b"cpq1"
_HEADER = struct.Struct("<4sIHH5d")  # magic, checksum of what follows it, entries of window and seen, five times
_CHECKSUM_END_BYTES = 8
_ENTRY_BYTES = 16


def pack(state: State) -> bytes:
    """Return the state as bytes."""
    times = (state.touched, state.requests_due, state.tokens_due, state.last, state.paused_until)
    numbers = [number for entry in state.window + state.seen for number in entry]
    header = _HEADER.pack(_MAGIC, 0, len(state.window), len(state.seen), *times)
    checked = header[_CHECKSUM_END_BYTES:] + struct.pack(f"<{len(numbers)}d", *numbers)
    return _MAGIC + struct.pack("<I", zlib.crc32(checked)) + checked


def unpack(data: bytes) -> Optional[State]:
    """Return the state in ``data``, None if it holds none."""
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        return None
    _, checksum, in_window, in_seen, touched, requests_due, tokens_due, last, paused_until = _HEADER.unpack_from(data)
    end = _HEADER.size + _ENTRY_BYTES * (in_window + in_seen)
    if len(data) < end or zlib.crc32(data[_CHECKSUM_END_BYTES:end]) != checksum:
        return None
    numbers = struct.unpack_from(f"<{2 * (in_window + in_seen)}d", data, _HEADER.size)
    entries: List[List[float]] = [list(pair) for pair in zip(numbers[::2], numbers[1::2])]
    return State(touched, requests_due, tokens_due, last, paused_until, entries[:in_window], entries[in_window:])
