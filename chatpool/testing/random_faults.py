"""Faults at random, the same ones in every run of a test."""

from __future__ import annotations

import hashlib
from typing import Dict, List, Mapping, Tuple, Union

from ..errors import ConfigurationError
from .faults import Garbage, Hangup, Reset, Stall, Truncate
from .received import ReceivedRequest
from .script import Attempts, Entry, Script
from .steps import Error, Html, Step

__all__ = ["Faults"]

_NAMED: Dict[str, Step] = {
    "garbage": Garbage(),
    "hangup": Hangup(),
    "html": Html(),
    "reset": Reset(),
    "stall": Stall(),
    "truncate": Truncate(),
}


class Faults(Script):
    """Random faults, for a :class:`FakeServer`'s ``faults`` or as a script of its own.

    Args:
        rate: the share, from 0 to 1, of the requests that meet each fault: an HTTP status, one of the names
            ``"garbage" "hangup" "html" "reset" "stall" "truncate"``, or any step. The shares together are at most 1.
        seed: other seeds give other faults.

    What a request meets depends on the seed, its body and how often that body came before, not on the order in
    which requests arrive: a test with many threads meets the same faults in every run.

    Example, 500 prompts against a bad server::

        faults = Faults({503: 0.2, "reset": 0.02, "stall": 0.02}, seed=1)
        with FakeServer(faults=faults) as server:
            ...

    Raises:
        TypeError: a key is neither a status, a name nor a step.
        ConfigurationError: an unknown name, or shares out of range.
    """

    def __init__(self, rate: Mapping[Union[int, str, Step], float], *, seed: int = 0) -> None:
        self._seed = seed
        self._attempts = Attempts()
        self._edges: List[Tuple[float, Step]] = []
        edge = 0.0
        for fault, share in rate.items():
            if not 0 <= share <= 1:
                raise ConfigurationError(f"the share of {fault!r} must be from 0 to 1, got {share!r}")
            edge += share
            self._edges.append((edge, _fault(fault)))
        if edge > 1 + 1e-9:
            raise ConfigurationError(f"the shares together must be at most 1, got {edge:g}")

    def take(self, request: ReceivedRequest) -> Entry:
        """The fault for this attempt, None for none."""
        key = b"%d %d %s" % (self._seed, self._attempts.count(request), request.raw)
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
        return next((fault for edge, fault in self._edges if drawn < edge), None)


def _fault(fault: object) -> Step:
    if isinstance(fault, Step):
        return fault
    if isinstance(fault, bool):
        raise TypeError(f"a fault is a status, a name or a step, got {fault!r}")
    if isinstance(fault, int):
        return Error(fault)
    if isinstance(fault, str):
        if fault not in _NAMED:
            raise ConfigurationError(f"a fault's name must be one of {', '.join(_NAMED)}; got {fault!r}")
        return _NAMED[fault]
    raise TypeError(f"a fault is a status, a name or a step, got {fault!r}")
