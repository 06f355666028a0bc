"""Single flight: identical requests of one run are sent once and answered everywhere."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, Dict, List, NamedTuple, Optional

from .._engine import Call
from .._engine.call import report_end
from .._locks import new_lock
from ..types import ChatCompletion, Outcome, Usage

__all__ = ["SingleFlight", "follower_outcome"]


class _Flight(NamedTuple):
    """One request that was sent, and the calls that wait for its answer."""

    leader: Call
    twins: List[Call]


class FlightPart(NamedTuple):
    """What becomes of a call: it is sent (``leads``), has its answer, or (neither) waits for the one under way."""

    leads: bool
    answer: Optional[Outcome[Any]] = None


class SingleFlight:
    """Knows which requests of a run are under way or answered; thread-safe.

    Requests are identical when path, method and the bytes of the body are.  Every answer is kept until the run ends.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._flights: Dict[bytes, _Flight] = {}
        self._keys: Dict[int, bytes] = {}  # of the leaders under way, by their ids
        self._answers: Dict[bytes, Outcome[Any]] = {}

    def join(self, call: Call) -> FlightPart:
        """Whether ``call`` is the first of its kind, and what those before it have got."""
        key = _key(call)
        with self._lock:
            flight, answer = self._flights.get(key), self._answers.get(key)
            if flight is not None:
                flight.twins.append(call)
            elif answer is None:
                self._flights[key] = _Flight(call, [])
                self._keys[call.id] = key
            return FlightPart(leads=flight is None and answer is None, answer=answer)

    def ended(self, call: Call, outcome: Outcome[Any]) -> List[Call]:
        """``call`` has got its outcome; returns those that wait for it."""
        with self._lock:
            key = self._keys.pop(call.id, None)
            if key is None:
                return []
            self._answers[key] = Outcome(outcome.index, None, None, outcome.value, outcome.error)
            return self._flights.pop(key).twins

    def after_fork_in_child(self) -> None:
        """A thread of the parent's may have held the lock."""
        self._lock = new_lock()


def _key(call: Call) -> bytes:
    digest = hashlib.blake2b(call.payload, digest_size=16)
    digest.update(f"\n{call.request.method} {call.request.path}".encode())
    return digest.digest()


def follower_outcome(twin: Call, leader: Outcome[Any], now: float) -> Outcome[Any]:
    """The outcome of a call that was not sent, from that of the one that was; its listeners hear of it.

    It took no tokens, so that those of the run are counted once; the error is a copy, as its ``attempts`` are its own,
    and so is what was made of the text.
    """
    value, error = copy.copy(leader.value), leader.error
    if isinstance(value, ChatCompletion):
        value.usage, value.message = Usage(), dict(value.message)
        _parse_again(twin, value)
    if error is not None:
        cause, error = error.__cause__, copy.copy(error)
        error.__cause__ = cause
    twin.payload = b""
    outcome = twin.outcome(now, value=value, error=error)
    report_end(twin, now, error=error, usage=None)
    return outcome


def _parse_again(twin: Call, value: ChatCompletion) -> None:
    """Give the twin a value of its own in ``.parsed``; should none come this time, it keeps its leader's."""
    if twin.options.review is not None:
        first = value.parsed
        found = twin.options.review(twin.request, value, 0)
        if found.error is not None or found.request is not None:
            value.parsed = first
