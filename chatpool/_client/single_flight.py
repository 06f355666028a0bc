"""Single flight: of identical requests of one run only the first is sent; the others get its outcome."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, Dict, List, NamedTuple, Optional

from .._engine import Call
from .._engine.call import report_end
from .._locks import new_lock
from .._transport import identity_of
from ..errors import ConfigurationError
from ..types import ChatCompletion, Outcome, Usage

__all__ = ["SingleFlight", "follower_outcome"]


class _FlightRole(NamedTuple):
    """Role of a call among identical ones.

    Attributes:
        leads: whether it is sent; otherwise it is a follower.
        answer: the outcome of its leader, None while that is in flight.
    """

    leads: bool
    answer: Optional[Outcome[Any]] = None


class SingleFlight:
    """The requests of a run that are in flight or answered; thread-safe.

    Requests are identical when path, method, the bytes of the body and the content of its files are.  Every answer is
    kept until the run ends.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._followers: Dict[bytes, List[Call]] = {}  # of the leaders in flight
        self._leader_keys: Dict[int, bytes] = {}  # of the leaders in flight, by the ids of their calls
        self._answers: Dict[bytes, Outcome[Any]] = {}

    def join(self, call: Call) -> _FlightRole:
        """Return the role of ``call``; a follower of a leader in flight is returned by :meth:`ended`."""
        try:
            key = _key(call)
        except ConfigurationError:  # an attached file is gone: the call fails with that when it is sent
            return _FlightRole(leads=True)
        with self._lock:
            followers, answer = self._followers.get(key), self._answers.get(key)
            if followers is not None:
                followers.append(call)
            elif answer is None:
                self._followers[key] = []
                self._leader_keys[call.id] = key
            return _FlightRole(leads=followers is None and answer is None, answer=answer)

    def ended(self, call: Call, outcome: Outcome[Any]) -> List[Call]:
        """Note the outcome of ``call``; return its followers."""
        with self._lock:
            key = self._leader_keys.pop(call.id, None)
            if key is None:
                return []
            self._answers[key] = Outcome(
                outcome.index, None, None, outcome.value, outcome.error, fallback=outcome.fallback
            )
            return self._followers.pop(key)

    def after_fork_in_child(self) -> None:
        """Make a new lock: a thread of the parent process may have held the old one."""
        self._lock = new_lock()


def _key(call: Call) -> bytes:
    digest = hashlib.blake2b(identity_of(call.payload), digest_size=16)
    request = call.request
    digest.update(f"\n{request.method} {request.path} {request.response}".encode("utf-8", "surrogatepass"))
    return digest.digest()


def follower_outcome(follower: Call, leader: Outcome[Any], now: float) -> Outcome[Any]:
    """Return the outcome of a call that was not sent, and tell its listeners, in its own context.

    It has no tokens, so that the tokens of the run are counted once.  Its error and its parsed value are its own.

    Args:
        follower: the call.
        leader: the outcome of the call that was sent.
        now: the time on the engine's clock.
    """
    return follower.context.run(_follower_outcome, follower, leader, now)


def _follower_outcome(follower: Call, leader: Outcome[Any], now: float) -> Outcome[Any]:
    value, error = copy.copy(leader.value), leader.error
    if isinstance(value, ChatCompletion):
        value.usage, value.message = Usage(), dict(value.message)
        _parse_again(follower, value)
    if error is not None:
        cause, error = error.__cause__, copy.copy(error)
        error.__cause__ = cause
    follower.payload = b""
    outcome = follower.outcome(now, value=value, error=error)
    outcome.fallback = leader.fallback
    report_end(follower, now, error=error, usage=None)
    return outcome


def _parse_again(follower: Call, value: ChatCompletion) -> None:
    """Give the follower a value of its own in ``.parsed``; if that fails this time, it keeps the leader's."""
    if follower.options.review is not None:
        leaders_value = value.parsed
        review = follower.options.review(follower.request, value, 0)
        if review.error is not None or review.request is not None:
            value.parsed = leaders_value
