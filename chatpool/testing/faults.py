"""Steps in which something goes wrong between the two ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional

from ..errors import ConfigurationError
from .actions import Action, Break, Close, Send, Wait, cut, drip
from .received import ReceivedRequest
from .steps import Answer, Answerer, Step

__all__ = ["Delay", "Drip", "Garbage", "Hangup", "Reset", "Stall", "Truncate"]


@dataclass(frozen=True)
class Delay(Step):
    """Wait before another step.  Closing the server, or the client's going away, ends the wait at once.

    Args:
        seconds: how long (of real time, whatever clock is installed).
        then: what follows. Default: the server's usual answer.

    Example::

        FakeServer(script=[Delay(0.5), Delay(1, then=Error(503))])
    """

    seconds: float
    then: Step = Answer()

    def __post_init__(self) -> None:
        _at_least("seconds", self.seconds, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """A wait, and the other step's actions."""
        return [Wait(self.seconds), *self.then.actions(request, model)]


@dataclass(frozen=True)
class Stall(Step):
    """Never answer, or stop in the middle of an answer; the connection stays open.

    Args:
        after: how many bytes of the answer, head included, are sent before.
        then: the answer that is begun.
    """

    after: int = 0
    then: Step = Answer()

    def __post_init__(self) -> None:
        _at_least("after", self.after, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The beginning of the answer, and silence."""
        return [*_beginning(self.then, self.after, request, model), Wait(None)]


@dataclass(frozen=True)
class Drip(Step):
    """Send an answer in small pieces, so slowly that a timeout per read never ends it.

    Args:
        size: bytes per piece.
        every: seconds before each piece.
        part: what is sent so: ``"all"``, ``"headers"`` (the body follows in one piece) or ``"body"``.
        then: the answer that is sent.

    With ``Answer(framing="chunked", chunk_size=1)`` and ``size=6`` every piece is one whole chunk.
    """

    size: int = 1
    every: float = 0.05
    part: str = "all"
    then: Step = Answer()

    def __post_init__(self) -> None:
        _at_least("size", self.size, 1)
        _at_least("every", self.every, 0)
        if self.part not in ("all", "headers", "body"):
            raise ConfigurationError(f"part must be 'all', 'headers' or 'body', got {self.part!r}")

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The answer's actions in pieces."""
        whole = self.then.actions(request, model)
        return list(drip(whole, size=self.size, every=self.every, part=self.part))


@dataclass(frozen=True)
class Reset(Step):
    """Break the connection with a reset (RST), as a crashed server or a firewall does.

    Args:
        after: how many bytes of the answer, head included, are sent before.
        then: the answer that is begun.
    """

    after: int = 0
    then: Step = Answer()

    def __post_init__(self) -> None:
        _at_least("after", self.after, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The beginning of the answer, and a reset."""
        return [*_beginning(self.then, self.after, request, model), Break()]


@dataclass(frozen=True)
class Truncate(Step):
    """Close the connection in the middle of a body whose length was announced.

    Args:
        after: how many bytes of the body are sent. Default: half of them.
        then: the answer that is cut.
    """

    after: Optional[int] = None
    then: Step = Answer()

    def __post_init__(self) -> None:
        if self.after is not None:
            _at_least("after", self.after, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The answer without the end of its body."""
        whole = self.then.actions(request, model)
        sends = [action for action in whole if isinstance(action, Send)]
        head, body = (sum(len(send.head) for send in sends), sum(len(send.body) for send in sends))
        after = body // 2 if self.after is None else self.after
        return [*cut(whole, head + after), Close()]


@dataclass(frozen=True)
class Hangup(Step):
    """Close the connection in the orderly way (FIN): without an answer, or unannounced after one.

    Args:
        then: the answer that is sent first. ``Hangup(Answer())`` answers as usual and then closes a connection
            that the client believes to be alive. Default: none.
    """

    then: Optional[Step] = None

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The answer, if there is one, and the end."""
        return [Close()] if self.then is None else [*self.then.actions(request, model), Close()]


@dataclass(frozen=True)
class Garbage(Step):
    """Send bytes that are not HTTP, and close the connection."""

    data: bytes = b"\x00\x16\x03garbage, not HTTP\r\n\r\n\xff"

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The bytes as they are."""
        return [Send(self.data), Close()]


def _beginning(step: Step, size: int, request: ReceivedRequest, model: Answerer) -> List[Action]:
    return cut(step.actions(request, model), size) if size else []


def _at_least(name: str, value: float, minimum: float) -> None:
    if not minimum <= value < math.inf:
        raise ConfigurationError(f"{name} must be a number, at least {minimum}, got {value!r}")
