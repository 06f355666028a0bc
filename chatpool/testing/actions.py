"""What a server does on a connection, as plain values: a step of a script becomes a list of these."""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Sequence, Union

__all__ = ["Action", "Break", "Close", "Send", "Wait", "cut", "drip"]


class Send(NamedTuple):
    """Send these bytes, in one piece."""

    head: bytes
    body: bytes = b""


class Wait(NamedTuple):
    """Send nothing for a while; ``None`` seconds: until the client or the server goes away."""

    seconds: Optional[float]


class Close(NamedTuple):
    """End the connection in the orderly way (FIN)."""


class Break(NamedTuple):
    """End the connection with a reset (RST)."""


Action = Union[Send, Wait, Close, Break]


def cut(actions: Sequence[Action], size: int) -> List[Action]:
    """``actions`` up to the first ``size`` bytes they send."""
    kept: List[Action] = []
    for action in actions:
        if isinstance(action, Send):
            kept.append(Send(action.head[:size], action.body[: max(0, size - len(action.head))]))
            size -= len(action.head) + len(action.body)
            if size <= 0:
                break
        else:
            kept.append(action)
    return kept


def drip(actions: Sequence[Action], *, size: int, every: float, part: str) -> Iterator[Action]:
    """``actions`` with what they send of ``part`` (head, body or all) in pieces of ``size`` bytes."""
    for action in actions:
        if not isinstance(action, Send):
            yield action
            continue
        whole, dripped = {
            "all": (b"", action.head + action.body),
            "headers": (b"", action.head),
            "body": (action.head, action.body),
        }[part]
        if whole:
            yield Send(whole)
        for start in range(0, len(dripped), size):
            yield Wait(every)
            yield Send(dripped[start : start + size])
        if part == "headers" and action.body:
            yield Send(action.body)
