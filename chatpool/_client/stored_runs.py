"""Runs whose outcomes are in a journal before anybody sees them.

Runs of which every outcome is kept somewhere before anybody sees it.

Runs over rows whose outcomes somebody else keeps.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Callable, Iterable, List, Optional, Union

from .._engine import Call, CallOptions, Engine
from .._journal import (
    RETRY,
    Journal,
    Record,
    decode_value,
    encode_value,
    error_facts,
    error_of,
    hash_of,
    key_of,
    one_line,
)
from .._structured.validation import PARSE_FAILED
from .._wire import encode
from .._wire.response import decode_response
from .._wire.usage import usage_of
from ..clock import Clock
from ..errors import CallCancelledError, ChatPoolError
from ..types import ChatCompletion, ChatRequest, Outcome, Usage
from .failure_limit import state_of
from .run import Run, RunOrigin
from .second_try import both_times

__all__ = ["JournalledRetry", "JournalledRun", "PersistedRun", "StoredRowsRun", "record_of", "request_hash"]


class PersistedRun(Run):
    """A run that hands every outcome of a call to :meth:`keep`, in the worker that has it and before it takes
    another call: so that the death of the process costs no more than what was in flight.

    Args:
        engine, items, prepare, options, window: as for :class:`Run`.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
    ) -> None:
        super().__init__(engine, items, prepare, options, window)
        self.trouble: Optional[Exception] = None
        self._gives_up = False

    def keep(self, outcome: Outcome[Any]) -> None:
        """Keep an outcome; called in workers, several at a time.

        Raises:
            OSError: that is not possible any more; the run ends, and whoever consumes it gets the error.
        """
        raise NotImplementedError

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        self._try_to_keep(outcome)
        super().deliver(call, outcome)

    def _try_to_keep(self, outcome: Outcome[Any]) -> None:
        if self.trouble is None:
            try:
                self.keep(outcome)
            except Exception as error:
                self.trouble = error
                self.stop(CallCancelledError("what came back could not be kept any more"))

    def _take_ready(self) -> List[Outcome[Any]]:
        if self.trouble is not None and not self._gives_up:
            raise self.trouble
        return super()._take_ready()

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        self._gives_up = True
        return super().drain(reason)


_STRIDE = 128  # rows read before they are sent
_LOOK_EVERY = 0.2  # seconds


class StoredRowsRun(PersistedRun):
    """A run of rows.

    Args:
        engine, items, prepare, options, window: as for :class:`PersistedRun`.
        keep: keeps an outcome; called in workers, and in the consumer's thread for a row that was not sent.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
        *,
        keep: Callable[[Outcome[Any]], None],
    ) -> None:
        super().__init__(engine, items, prepare, options, window)
        self._keep = keep

    def keep(self, outcome: Outcome[Any]) -> None:
        self._keep(outcome)

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        self._try_to_keep(outcome)
        super()._end_unsent(outcome)

    def send_no_more(self, reason: ChatPoolError) -> None:
        """Send nothing new: what waits ends with ``reason``, what is in flight goes on to its end."""
        with self._changed:
            self._stopped = self._stopped or reason
        self._engine.give_up(lambda call: call.sink is self, lambda call: reason.copied(), in_flight=False)

    @property
    def ended_by(self) -> Optional[ChatPoolError]:
        """Why nothing new is sent, None while something may be."""
        return self._stopped or self._refused

    def _reads_no_more(self) -> bool:
        """As soon as nothing more is sent: rows that were not sent stay pending, read or not."""
        return self.ended_by is not None

    def take(self, at_least: int = 0) -> List[Outcome[Any]]:
        """Outcomes that are ready, about five times a second: as they are kept already, nobody waits for each.

        An empty list means that the run has ended.
        """
        at_least = at_least or max(1, self._window // 4)
        while True:
            self._feed(at_least)
            self._doze(at_least)
            ready = self._take_ready()
            if ready or self._fed == self._taken:
                return ready

    def _doze(self, at_least: int) -> None:
        with self._engine.waiting(), self._changed:
            if self._enough(at_least):
                return
            self._wake_at, self._sleeping = at_least, True
            try:
                self._changed.wait(_LOOK_EVERY)  # in plain time: it is people who look
            finally:
                self._sleeping = False

    def read_ahead(self) -> None:
        """Read several rows before sending them: for inputs that never keep one waiting."""
        self._stride = max(self._stride, _STRIDE)


logger = logging.getLogger("chatpool")


def request_hash(request: ChatRequest) -> str:
    """Digest of what a request asks for.

    Raises:
        TypeError, ConfigurationError: its body cannot be sent.
    """
    return hash_of(request.path, encode(request.body))


def record_of(
    outcome: Outcome[Any],
    state: str,
    key: int,
    hash_: str,
    *,
    at: float,
    custom_id: Optional[str] = None,
    row: int = 0,
    meta: Any = None,
) -> Record:
    """An outcome as a record; an answer that was not taken is in it too, as it was paid for."""
    error = None if outcome.error is None else error_facts(outcome.error)
    answer = outcome.value if outcome.error is None else getattr(outcome.error, "completion", None)
    usage = outcome.usage
    if usage == _told(outcome.value) and usage != Usage():  # one that was shared took nothing, and its JSON says more
        usage = None
    asked = None if outcome.request is None or (answer is None and outcome.usage is None) else outcome.request.model
    model = None if asked == _model_in(answer) else asked
    history, value = outcome.history, _encoded(answer)
    return Record(key, state, hash_, custom_id, row, at, outcome.elapsed, history, error, meta, value, usage, model)


def _model_in(value: Any) -> Any:
    return value.get("model") if isinstance(value, dict) else getattr(value, "model", None)


def _told(value: Any) -> Optional[Usage]:
    """The tokens that a value's JSON tells of."""
    return value.usage if isinstance(value, ChatCompletion) else usage_of(value)


def _encoded(value: Any) -> bytes:
    """An answer's JSON, on one line; as it came, where that is possible."""
    if not isinstance(value, ChatCompletion):
        return encode_value(value)
    content = value._raw  # nobody has asked for it decoded yet, as a rule
    line = one_line(content) if isinstance(content, bytes) else None
    return encode_value(value.raw) if line is None else line


class JournalledRun(PersistedRun):
    """A run that goes on where an earlier one with the same journal ended.

    An item is known by its place and its request: one that has an answer in the journal, or a failure that would
    only repeat itself, is not sent.  What is to be made of an answer is this run's business: a stored one is looked at
    anew, also one that an earlier run did not take, and is asked for again if nothing can be made of it.

    Args:
        engine, items, prepare, options, window: as for :class:`PersistedRun`.
        journal: the journal's file. It is open from the first item to the end of the run.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
        *,
        journal: Union[str, os.PathLike[str]],
    ) -> None:
        super().__init__(engine, items, prepare, options, window)
        self._clock: Clock = engine.clock
        self._path = journal
        self._journal: Optional[Journal] = None
        self._forsaken = False
        self._pays_again = False

    @property
    def origin(self) -> RunOrigin:
        return super().origin._replace(journal=self._path)

    def _call_for(self, item: Any) -> Optional[Call]:
        call = super()._call_for(item)
        if call is None:
            return None
        known = self._recall(call)
        if known is None:
            return call
        self._put(known)
        return None

    def _recall(self, call: Call) -> Optional[Outcome[Any]]:
        try:
            hash_ = request_hash(call.request)
        except (TypeError, ValueError, ChatPoolError):  # the attempt will say it
            return None
        journal, key = self._opened(), _key(call.index)
        record = journal.read(key, hash_)
        if record is None and not self._pays_again and journal.has_answer(key):
            self._pays_again = True
            logger.warning(
                "item %d has an answer to another request in %s: it is sent and paid again, as are others like it "
                "(items are known by their place)",
                call.index,
                journal.path,
            )
        if record is None or record.state == RETRY:
            return None
        return _recalled(call, record)

    def take(self, at_least: int = 1) -> List[Outcome[Any]]:
        self._opened()
        taken = super().take(at_least)
        if not taken:
            self._close()
        return taken

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        try:
            return super().drain(reason)
        finally:
            self._close()

    def forsake(self) -> None:
        super().forsake()
        self._forsaken = True
        if self._journal is not None:
            self._journal.abandon()

    def keep(self, outcome: Outcome[Any]) -> None:
        state = state_of(outcome)
        if state is None or outcome.request is None or self._forsaken:
            return
        try:
            hash_ = request_hash(outcome.request)
        except (TypeError, ValueError, ChatPoolError):  # it was never sent, and fails again for nothing
            return
        at = self._clock.wall()
        self._opened().append(record_of(outcome, state, _key(outcome.index), hash_, at=at, row=outcome.index))

    def _opened(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self._path)
        return self._journal

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()


class JournalledRetry(JournalledRun):
    """Sends again what has failed in such a run: its items are the first outcomes, whose places it keeps."""

    def _recall(self, call: Call) -> Optional[Outcome[Any]]:
        return None  # it would be the failure

    def keep(self, outcome: Outcome[Any]) -> None:
        super().keep(both_times(outcome))


def _key(index: int) -> int:
    return key_of(f"item {index}")


def _recalled(call: Call, record: Record) -> Optional[Outcome[Any]]:
    """The outcome that the record tells of; None if there is an answer that this run can make nothing of."""
    sent = len(record.attempts)
    value, error = _value(call.request, record), None
    if value is None and record.error is not None:
        error = error_of(record.error, sent)
    elif call.options.review is not None:
        found = call.options.review(call.request, value, 0)
        if found.reason == PARSE_FAILED:
            return None
        value, error = found.value, found.error
        if error is not None:
            value, error.attempts = None, sent
    return Outcome(call.index, call.item, call.request, value, error, record.attempts, record.elapsed, record.usage)


def _value(request: ChatRequest, record: Record) -> Any:
    stored = decode_value(record.value)
    if not isinstance(stored, dict):  # a vector
        return stored
    request_id = record.attempts[-1].request_id if record.attempts else None
    return decode_response(request, stored, request_id)
