"""The arithmetic of a shared limit: state and time in, the moment of a call out.

A GCRA that reserves: whoever asks is given the next free moment at once and keeps it, so that callers are served in
the order in which they asked, each waits once, and nobody wakes up for nothing.  What is not needed is given back.

:mod:`chatpool._quota.redis` does the same, step by step, inside Redis; the two agree to the last bit.

A state as bytes and back; bytes that were not written to the end are recognised.
"""

from __future__ import annotations

import copy
import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import List, NamedTuple, Optional

from .._values import LATENESS_SECONDS

__all__ = [
    "LimitStatus",
    "Rate",
    "Rates",
    "SlotReservation",
    "State",
    "correct",
    "pack",
    "pause",
    "reserve",
    "status",
    "unpack",
]


_MINUTE = 60.0
# From the start of a second of the window to when no minute holds anything that was given in it.
_FORGOTTEN_AFTER = _MINUTE + 1 + LATENESS_SECONDS
_SHARER_GONE_AFTER = 120.0  # seconds without a sign of life
_MOST_SHARERS = 256  # that are counted
_ROUNDING = 1e-9


class Rate(NamedTuple):
    """A limit per minute, in the terms of the arithmetic.

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
        """The rate for a limit; None is no limit.

        What goes out in a minute is a burst and what is emitted meanwhile: so the emission is that of the limit less
        the burst, and one unit more where units are whole.  What was given just before it may be sent in it, up to
        ``LATENESS_SECONDS`` seconds late.
        """
        if per_minute is None:
            return cls(1e300, 0.0, 0.0)  # Lua reads it, and infinity it does not
        burst = min(max(per_minute / _MINUTE * burst_seconds, unit, 1.0), per_minute)
        # With a burst of nearly a minute's worth there would be nothing left to emit.
        return cls(per_minute, (_MINUTE + LATENESS_SECONDS) / max(per_minute - burst + unit, per_minute / 2), burst)


class Rates(NamedTuple):
    """The rates of both resources."""

    requests: Rate
    tokens: Rate

    @classmethod
    def of(cls, requests_per_minute: Optional[float], tokens_per_minute: Optional[float], burst: float) -> Rates:
        """The rates for the limits of a user's; ``burst`` is in seconds' worth."""
        return cls(Rate.of(requests_per_minute, burst, unit=1.0), Rate.of(tokens_per_minute, burst))


class SlotReservation(NamedTuple):
    """The answer to :func:`reserve`.

    Attributes:
        granted: whether it was reserved; otherwise nothing was taken.
        wait: seconds until its moment.
        at: its moment, on the clock of the state; to be named when it is corrected.
        sharers: how many have asked lately, the asking one included.
    """

    granted: bool
    wait: float
    at: float
    sharers: int


class LimitStatus(NamedTuple):
    """A shared limit at one moment.

    Attributes:
        wait: seconds that a small call would wait now.
        paused_for: seconds for which it is paused; 0 when it is not.
        sharers: how many have asked lately.
    """

    wait: float
    paused_for: float
    sharers: int


@dataclass
class State:
    """What all sharers know; times are on one clock that all of them read.

    Attributes:
        touched: when anybody asked last.
        requests_due: until when the requests reserved so far last at their rate (the theoretical arrival time).
        tokens_due: the same for tokens.
        last: the latest moment given; nobody is given an earlier one.
        paused_until: nothing is sent before.
        window: ``[second, tokens]`` of the last minute, oldest first.
        seen: ``[sharer, time]``, when each was there last.
    """

    touched: float = 0.0
    requests_due: float = 0.0
    tokens_due: float = 0.0
    last: float = 0.0
    paused_until: float = 0.0
    window: List[List[float]] = field(default_factory=list)
    seen: List[List[float]] = field(default_factory=list)


def reserve(
    state: State, now: float, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float
) -> SlotReservation:
    """Reserve the next free moment, unless it is more than ``patience`` seconds away."""
    now = _settle(state, now)
    _see(state, now, sharer)
    given = max(now, state.last)
    state.window = [entry for entry in state.window if entry[0] + _FORGOTTEN_AFTER > given]
    at = _free_in_window(state, _free(state, now, rates, requests, tokens), rates.tokens.limit, tokens)
    wait = at - now
    if wait > patience:
        return SlotReservation(False, wait, at, len(state.seen))
    state.last = at
    state.requests_due = max(state.requests_due, at) + requests * rates.requests.emission
    state.tokens_due = max(state.tokens_due, at) + tokens * rates.tokens.emission
    _note(state, math.floor(at), tokens)
    return SlotReservation(True, wait, at, len(state.seen))


def correct(state: State, now: float, rates: Rates, *, at: float, tokens: float) -> None:
    """What was reserved for ``at`` took so many tokens more, or (negative) less.

    Only tokens: the moment itself has been given, and others come after it.  Whatever they all took more, it is made up
    for within about a minute of the latest moment given.
    """
    now = _settle(state, now)
    due = max(state.tokens_due, now)
    state.tokens_due = due + tokens * rates.tokens.emission
    if tokens > 0:
        most = max(now, state.last) + rates.tokens.limit * rates.tokens.emission
        state.tokens_due = max(due, min(state.tokens_due, most))
    for entry in state.window:
        if entry[0] == math.floor(at):
            entry[1] = max(0.0, entry[1] + tokens)


def pause(state: State, now: float, rates: Rates, *, seconds: float) -> None:
    """Nothing more is given for so long; after that without a burst, or everybody would come at once."""
    now = _settle(state, now)
    state.paused_until = max(state.paused_until, now + seconds)
    burst_of_requests = rates.requests.burst * rates.requests.emission
    burst_of_tokens = rates.tokens.burst * rates.tokens.emission
    state.requests_due = max(state.requests_due, state.paused_until + burst_of_requests)
    state.tokens_due = max(state.tokens_due, state.paused_until + burst_of_tokens)


def status(state: State, now: float, rates: Rates) -> LimitStatus:
    """What the next one would meet; changes nothing."""
    state = copy.deepcopy(state)
    now = _settle(state, now)
    wait = _free(state, now, rates, 1.0, 0.0) - now
    return LimitStatus(wait, max(0.0, state.paused_until - now), len(state.seen))


def _settle(state: State, now: float) -> float:
    """The present; on a clock that was set back, or began anew, it is as if no time had passed."""
    back = math.floor(state.touched - now)
    if back > 0:
        state.touched -= back
        state.requests_due -= back
        state.tokens_due -= back
        state.last -= back
        state.paused_until -= back
        for entry in state.window:
            entry[0] -= back
        for one in state.seen:
            one[1] -= back
    state.touched = max(state.touched, now)
    return state.touched


def _see(state: State, now: float, sharer: float) -> None:
    seen = [one for one in state.seen if one[0] != sharer and one[1] + _SHARER_GONE_AFTER > now]
    seen.append([sharer, now])
    state.seen = seen[-_MOST_SHARERS:]


def _free(state: State, now: float, rates: Rates, requests: float, tokens: float) -> float:
    """The earliest moment that the rates allow.

    Something larger than the burst may be taken when nothing is owed, and is paid for afterwards.
    """
    requests_free = state.requests_due - max(0.0, rates.requests.burst - requests) * rates.requests.emission
    tokens_free = state.tokens_due - max(0.0, rates.tokens.burst - tokens) * rates.tokens.emission
    return max(now, state.paused_until, state.last, requests_free, tokens_free)


def _free_in_window(state: State, at: float, limit: float, tokens: float) -> float:
    """The earliest moment from ``at`` on whose minute has room for so many tokens.

    The rate alone does not see to that: a call larger than the burst is paid for afterwards, and what is given back
    late was reserved in an earlier minute.
    """
    total = tokens
    for second, amount in state.window:
        if second + _FORGOTTEN_AFTER > at:
            total += amount
    for second, amount in state.window:
        if total <= limit + _ROUNDING:
            break
        if second + _FORGOTTEN_AFTER > at:
            total -= amount
            at = second + _FORGOTTEN_AFTER
    return at


def _note(state: State, second: float, tokens: float) -> None:
    if tokens == 0:
        return
    if state.window and state.window[-1][0] == second:
        state.window[-1][1] += tokens
    else:
        state.window.append([second, tokens])


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
