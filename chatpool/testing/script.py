"""Scripts: they choose a step for each request; also random faults, the same ones in every run of a test."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, Deque, Dict, Iterator, List, Optional, Tuple, Union

from ..errors import ConfigurationError
from .received import ReceivedRequest
from .steps import Error, Garbage, Hangup, Html, Reset, Stall, Step, Truncate

__all__ = [
    "EachCall",
    "Entry",
    "Faults",
    "Script",
    "ScriptLike",
    "StepFunction",
    "StepQueue",
    "check_entry",
    "script_of",
]


StepFunction = Callable[[ReceivedRequest], Optional[Step]]
"""Returns the step for a request; None: answer as usual."""

Entry = Union[Step, StepFunction, None]


class Script:
    """Gives one step per request; the base class gives none, so that every request is answered as usual."""

    def take(self, request: ReceivedRequest) -> Entry:
        """Return the step for ``request``; called by one thread at a time, in the order of arrival."""
        return None


ScriptLike = Union[None, Step, StepFunction, Script, Mapping[str, "ScriptLike"], Iterable[Entry]]


class _Attempts:
    """Counts the attempts of each call: a request with the same body, or target, is the call's next attempt."""

    def __init__(self) -> None:
        self._seen: Dict[bytes, int] = {}

    def count(self, request: ReceivedRequest) -> int:
        """Return how many attempts there were before this one."""
        key = request.call_key
        count = self._seen.get(key, 0)
        self._seen[key] = count + 1
        return count


class EachCall(Script):
    """Every call goes through these steps by itself, then it is answered as usual.

    A call is known by its body: a request with the same body is taken for its next attempt. A call without a body,
    such as a GET, is known by its target.

    Args:
        steps: what the first, second, ... attempt of each call meets; None answers as usual.

    Example, every call fails twice before it succeeds::

        with FakeServer(script=EachCall(Error(503), Reset())) as server:
            ...
    """

    def __init__(self, *steps: Entry) -> None:
        for step in steps:
            check_entry(step)
        self._steps: Sequence[Entry] = steps
        self._attempts = _Attempts()

    def take(self, request: ReceivedRequest) -> Entry:
        """Return the step for this attempt of the call."""
        attempt = self._attempts.count(request)
        return self._steps[attempt] if attempt < len(self._steps) else None


class _Always(Script):
    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def take(self, request: ReceivedRequest) -> Entry:
        return self._entry


class _Sequence(Script):
    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries: Iterator[Entry] = iter(entries)

    def take(self, request: ReceivedRequest) -> Entry:
        return next(self._entries, None)


class _ByPrompt(Script):
    def __init__(self, scripts: Mapping[str, ScriptLike]) -> None:
        self._scripts = {prompt: script_of(script) for prompt, script in scripts.items()}

    def take(self, request: ReceivedRequest) -> Entry:
        script = self._scripts.get(request.prompt)
        return None if script is None else script.take(request)


def script_of(script: ScriptLike) -> Script:
    """Return the :class:`Script` for all that :class:`FakeServer` takes as ``script``.

    Raises:
        TypeError: ``script`` is none of these.
    """
    source: object = script
    if isinstance(source, Script):
        return source
    if source is None:
        return Script()
    if isinstance(source, type):
        check_entry(source)
    if isinstance(source, Step) or callable(source):
        return _Always(source)
    if isinstance(source, Mapping):
        return _ByPrompt(source)
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        for entry in source:
            check_entry(entry)
        return _Sequence(source)
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes)):
        return _Sequence(source)
    raise TypeError(
        "script must be a step such as Error(503), a list of steps, a dict from prompt to script, "
        f"a function of the request or a Script, got {script!r}"
    )


def check_entry(entry: object) -> None:
    """Refuse values that are not entries of a script.

    Raises:
        TypeError: ``entry`` is no step, function or None.
    """
    if isinstance(entry, type):
        raise TypeError(f"a script holds steps, not classes: {entry.__name__}(...)")
    if entry is not None and not isinstance(entry, Step) and not callable(entry):
        raise TypeError(f"a script holds steps such as Answer('text'), functions or None, got {entry!r}")


class StepQueue(Script):
    """Steps that are added while the server runs; false when it has none.  Its owner does the locking."""

    def __init__(self) -> None:
        self._entries: Deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entries: Sequence[Entry]) -> None:
        """Append ``entries``."""
        for entry in entries:
            check_entry(entry)
        self._entries.extend(entries)

    def take(self, request: ReceivedRequest) -> Entry:
        """Return the first of the waiting steps."""
        return self._entries.popleft()


_FAULTS_BY_NAME: Dict[str, Step] = {
    "garbage": Garbage(),
    "hangup": Hangup(),
    "html": Html(),
    "reset": Reset(),
    "stall": Stall(),
    "truncate": Truncate(),
}


class Faults(Script):
    """Random faults, for a :class:`FakeServer`'s ``faults`` or as its whole script.

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
        self._attempts = _Attempts()
        self._bounds: List[Tuple[float, Step]] = []
        bound = 0.0
        for fault, share in rate.items():
            if not 0 <= share <= 1:
                raise ConfigurationError(f"the share of {fault!r} must be between 0 and 1, got {share!r}")
            bound += share
            self._bounds.append((bound, _fault(fault)))
        if bound > 1 + 1e-9:
            raise ConfigurationError(f"the shares together must be at most 1, got {bound:g}")

    def take(self, request: ReceivedRequest) -> Entry:
        """Return the fault for this attempt, None for none."""
        key = b"%d %d %s" % (self._seed, self._attempts.count(request), request.call_key)
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
        return next((fault for bound, fault in self._bounds if drawn < bound), None)


def _fault(fault: object) -> Step:
    if isinstance(fault, Step):
        return fault
    if isinstance(fault, bool):
        raise TypeError(f"a fault must be a status, a name or a step, got {fault!r}")
    if isinstance(fault, int):
        return Error(fault)
    if isinstance(fault, str):
        if fault not in _FAULTS_BY_NAME:
            raise ConfigurationError(f"a fault's name must be one of {', '.join(_FAULTS_BY_NAME)}, got {fault!r}")
        return _FAULTS_BY_NAME[fault]
    raise TypeError(f"a fault must be a status, a name or a step, got {fault!r}")
