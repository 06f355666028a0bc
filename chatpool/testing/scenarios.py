"""Scenarios: the states through which a batch or a background response goes, and when it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, Generic, Optional, Sequence, Tuple, TypeVar, Union

from ..errors import ConfigurationError
from .steps import Step

__all__ = ["BackgroundScenario", "BatchScenario", "Course", "Polls", "ScenarioQueue", "ScenarioRule"]

Polls = Union[int, None, Mapping[str, Optional[int]]]

_BATCH_ENDS = ("completed", "expired", "failed", "cancelled")
_BATCH_STATES = ("validating", "in_progress", "finalizing", "cancelling")
_BACKGROUND_ENDS = ("completed", "failed", "incomplete", "cancelled")
_BACKGROUND_STATES = ("queued", "in_progress")
_FILES = ("written", "missing", "deleted")


@dataclass(frozen=True)
class BatchScenario:
    """The course of one batch at a :class:`FakeServer`.

    Args:
        polls: how many requests for the batch see each state before it goes on: a number, or a dict from state to
            number in which a state that is not named has 1. None: the state lasts until :meth:`FakeServer.advance`.
            0: it passes unseen. States are ``"validating"``, ``"in_progress"``, ``"finalizing"``, ``"cancelling"``.
        rows: the rows that are not answered as usual: a dict from custom_id to step, or a function of the row (a
            dict) that returns a step or None. ``Error(400)`` refuses the row; a step without a whole answer, such as
            ``Stall()``, gives it the code ``request_timeout``.
        end: ``"completed"``, ``"expired"``, ``"failed"``, or ``"cancelled"`` by somebody else. A file that is not
            valid, or is beyond the :class:`BatchLimits`, makes the batch fail whatever is said here.
        done: how many rows, the first ones of the input, are answered before the batch expires or is cancelled, and
            how many ``request_counts`` shows while it is in progress. Default: half of them where it expires;
            otherwise as many as the share of polls that have seen it in progress.
        errors: ``errors.data`` of a batch that fails, as dicts with ``code``, ``message``, ``param`` and ``line``.
        output_file: ``"written"``; ``"missing"``, the batch has no id of it though rows were answered; or
            ``"deleted"``, it has one, but the file is not found.
        error_file: the same for the file of errors.

    Raises:
        ConfigurationError: an unknown word, or a number out of range.
    """

    polls: Polls = 1
    rows: Union[Mapping[str, Step], Callable[[Dict[str, Any]], Optional[Step]], None] = None
    end: str = "completed"
    done: Optional[int] = None
    errors: Sequence[Mapping[str, Any]] = ()
    output_file: str = "written"
    error_file: str = "written"

    def __post_init__(self) -> None:
        _check_polls(self.polls, _BATCH_STATES)
        _check_word("end", self.end, _BATCH_ENDS)
        _check_word("output_file", self.output_file, _FILES)
        _check_word("error_file", self.error_file, _FILES)
        if self.done is not None and self.done < 0:
            raise ConfigurationError(f"done must be None or at least 0, got {self.done!r}")
        if self.errors and self.end != "failed":
            raise ConfigurationError('errors are those of a batch that fails: give end="failed" with them')

    def step_for(self, row: Dict[str, Any]) -> Optional[Step]:
        """Return the step for a row; None answers it as usual."""
        if callable(self.rows):
            return self.rows(row)
        return None if self.rows is None else self.rows.get(row["custom_id"])


@dataclass(frozen=True)
class BackgroundScenario:
    """The course of one background response at a :class:`FakeServer`.

    Args:
        polls: as for :class:`BatchScenario`; the states are ``"queued"`` and ``"in_progress"``.
        end: ``"completed"``, ``"failed"``, ``"incomplete"``, or ``"cancelled"`` by somebody else.
        error: of a response that fails: its ``code`` and its message.
        reason: why a response is incomplete: ``"max_output_tokens"`` or ``"content_filter"``.

    Raises:
        ConfigurationError: an unknown word, or a number out of range.
    """

    polls: Polls = 1
    end: str = "completed"
    error: Tuple[str, str] = ("server_error", "The server had an error while processing your request.")
    reason: str = "max_output_tokens"

    def __post_init__(self) -> None:
        _check_polls(self.polls, _BACKGROUND_STATES)
        _check_word("end", self.end, _BACKGROUND_ENDS)


S = TypeVar("S")

ScenarioRule = Union[S, Sequence[Optional[S]], Callable[[Dict[str, Any]], Optional[S]], None]
"""A scenario for all; a list for the first, second, ...; or a function of the request's body."""


class ScenarioQueue(Generic[S]):
    """Gives each new batch or response its scenario; its owner does the locking.

    Args:
        name: the parameter's name, for errors.
        rule: a scenario, a list of them, or a function; None and the end of a list give the default.
        default: the scenario of all others.

    Raises:
        TypeError: ``rule`` is none of these.
    """

    def __init__(self, name: str, rule: ScenarioRule[S], default: S) -> None:
        self._default = default
        self._waiting: Deque[Optional[S]] = deque()
        self._function: Optional[Callable[[Dict[str, Any]], Optional[S]]] = None
        source: Any = rule
        if isinstance(source, type(default)):
            self._default = source
        elif isinstance(source, (list, tuple)):
            for entry in source:
                self._check(name, entry)
            self._waiting.extend(source)
        elif callable(source) and not isinstance(source, type):
            self._function = source
        else:
            self._check(name, source)
        self._name = name

    def take(self, body: Dict[str, Any]) -> S:
        """Return the scenario for what ``body`` creates."""
        scenario = self._waiting.popleft() if self._waiting else None
        if self._function is not None:
            scenario = self._function(body)
            self._check(self._name, scenario)
        return self._default if scenario is None else scenario

    def _check(self, name: str, scenario: object) -> None:
        wanted = type(self._default)
        if scenario is not None and not isinstance(scenario, wanted):
            raise TypeError(
                f"{name} must be a {wanted.__name__}, a list of them or a function that returns one, got {scenario!r}"
            )


class Course:
    """The course of one batch or response through its states.

    Args:
        shown: the API's object.
        polls: how many polls see each state.
        course: the states after the first.

    Attributes:
        shown: the API's object; replaced whole, so that any thread may read it.
        course: the states that are still to come.
        seen: how many polls have seen the state.
    """

    def __init__(self, shown: Dict[str, Any], polls: Polls, course: Sequence[str]) -> None:
        self.shown = shown
        self._polls = polls
        self.course = list(course)
        self.seen = 0

    @property
    def status(self) -> str:
        """The state."""
        return str(self.shown["status"])

    @property
    def polls(self) -> Optional[int]:
        """The number of polls that see the state; None for a state that lasts until the server is told."""
        return self._polls.get(self.status, 1) if isinstance(self._polls, Mapping) else self._polls

    def is_due(self) -> bool:
        """Return True if polls have seen the state often enough."""
        return bool(self.course) and self.polls is not None and self.seen >= self.polls

    def update(self, **fields: Any) -> None:
        """Change fields of the object."""
        self.shown = {**self.shown, **fields}

    def enter(self, status: str, **fields: Any) -> None:
        """Change the state, and fields with it."""
        self.seen = 0
        self.update(status=status, **fields)


def _check_polls(polls: Polls, states: Sequence[str]) -> None:
    for state in polls if isinstance(polls, Mapping) else ():
        _check_word("a state in polls", state, states)
    for number in polls.values() if isinstance(polls, Mapping) else [polls]:
        if number is not None and (not isinstance(number, int) or number < 0):
            raise ConfigurationError(f"polls must be None or an int, at least 0, got {number!r}")


def _check_word(name: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        raise ConfigurationError(f"{name} must be one of {', '.join(words)}, got {word!r}")
