"""Runs that persist each outcome before the consumer gets it.

* :class:`StoredRowsRun`: rows of a batch, whose outcomes the batch persists itself.
* :class:`JournalledRun`: items of ``map(journal=...)``, and :class:`JournalledRetry` for those of ``retry``.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import operator
import os
import pathlib
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Protocol, Tuple, Union

from .._engine import Call, CallOptions, Engine
from .._journal import (
    RETRY,
    DigestTable,
    Journal,
    Record,
    decode_record,
    decode_value,
    encode_value,
    error_facts,
    error_of,
    hash_of,
    key_of,
    one_line,
    pending_mark,
)
from .._reentrancy import runs_user_code
from .._structured.answer_review import PARSE_FAILED
from .._transport import identity_of, payload_of
from .._wire.response import answering_model, decode_response, usage_of
from ..clock import Clock
from ..errors import CallCancelledError, ChatPoolError, ConfigurationError, ParseError
from ..types import ChatCompletion, ChatRequest, Outcome, Usage
from .failures import state_of
from .run import Run, RunOrigin, merged_outcome, unusable_item

__all__ = ["Backgrounds", "JournalledRetry", "JournalledRun", "StoredRowsRun", "record_of", "samples_mark"]


logger = logging.getLogger("chatpool")

_BASE64, _FILE, _SIZE = "base64", "file", "bytes"  # of answers that are no JSON: bytes, and those in files

_CHUNK_ROWS = 128  # read before they are submitted
_TAKE_EVERY_SECONDS = 0.2


class _PersistedRun(Run):
    """A run that passes the outcome of each call to :meth:`persist`, in the worker that has it.

    The worker takes no other call before: if the process dies, only calls in flight are lost.

    Args:
        engine, items, prepare, options, window: as for :class:`Run`.

    Attributes:
        storage_error: the error of :meth:`persist` that has ended the run; the consumer gets it.
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
        self.storage_error: Optional[Exception] = None
        self._is_draining = False

    def persist(self, outcome: Outcome[Any]) -> None:
        """Persist an outcome; called in workers, several at a time.

        Raises:
            OSError: it cannot be written; the run ends, and its consumer gets the error.
        """
        raise NotImplementedError

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        self._try_to_persist(outcome)
        super().deliver(call, outcome)

    def _try_to_persist(self, outcome: Outcome[Any]) -> None:
        self._try(lambda: self.persist(outcome))

    def keep_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        return self._try(lambda: self.persist_background(call, facts))

    def persist_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        """Persist where a call is made in the background, as :meth:`persist` does; return whether that was done."""
        return False

    def _try(self, persist: Callable[[], Optional[bool]]) -> bool:
        """Call what persists something; return True if it says so.  Its error ends the run."""
        if self.storage_error is None:
            try:
                return bool(persist())
            except Exception as error:
                self.storage_error = error
                self.stop(CallCancelledError("what came back could not be kept any more"))
        return False

    def _take_ready(self) -> List[Outcome[Any]]:
        if self.storage_error is not None and not self._is_draining:
            raise self.storage_error
        return super()._take_ready()

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        self._is_draining = True
        return super().drain(reason)


class Backgrounds(Protocol):
    """The place that knows where rows are made in the background."""

    def note(self, item: Any, facts: Mapping[str, str]) -> None:
        """Store the facts of one row; called in workers.

        Raises:
            OSError: they cannot be written.
        """

    def noted(self, item: Any) -> Optional[Mapping[str, Any]]:
        """Return the facts that are stored of a row, None without any."""


class StoredRowsRun(_PersistedRun):
    """A run over rows of a batch.

    Args:
        engine, items, prepare, options, window: as for :class:`_PersistedRun`.
        persist: stores an outcome; called in workers, and in the consumer's thread for a row that was not sent.
        backgrounds: knows where rows are made in the background; None where nothing does.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
        *,
        persist: Callable[[Outcome[Any]], None],
        backgrounds: Optional[Backgrounds] = None,
    ) -> None:
        super().__init__(engine, items, prepare, options, window)
        self._persist = persist
        self._backgrounds = backgrounds

    def persist(self, outcome: Outcome[Any]) -> None:
        self._persist(outcome)

    def persist_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        if self._backgrounds is None:
            return False
        self._backgrounds.note(call.item, facts)
        return True

    def _make_call(self, index: int, item: Any, request: ChatRequest) -> Optional[Call]:
        call = super()._make_call(index, item, request)
        facts = None if call is None or self._backgrounds is None else self._backgrounds.noted(item)
        if call is not None and facts is not None:
            self._engine.resume(call, facts)
        return call

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        self._try_to_persist(outcome)
        super()._end_unsent(outcome)

    def stop_sending(self, reason: ChatPoolError) -> None:
        """Send nothing new: calls that wait end with ``reason``, calls in flight go on to their end."""
        with self._changed:
            self._stop_reason = self._stop_reason or reason
        self._engine.give_up(lambda call: call.sink is self, lambda call: reason.copied(), in_flight=False)

    @property
    def ended_by(self) -> Optional[ChatPoolError]:
        """The error for which nothing new is sent, None while calls are sent."""
        return self._stop_reason or self._closed_error

    def _stops_reading(self) -> bool:
        """Return whether nothing more is sent: a row that was not sent stays pending, read or not."""
        return self.ended_by is not None

    def take(self, at_least: int = 0) -> List[Outcome[Any]]:
        """Return the outcomes that are ready, about five times a second; an empty list at the end of the run.

        No more often, as they are persisted already.
        """
        at_least = at_least or max(1, self._window // 4)
        while True:
            self._feed(at_least)
            self._wait_a_moment(at_least)
            ready = self._take_ready()
            if ready or self._fed == self._taken:
                return ready

    def _wait_a_moment(self, at_least: int) -> None:
        with self._engine.waiting(), self._changed:
            if self._enough(at_least):
                return
            self._wake_at, self._sleeping = at_least, True
            try:
                self._changed.wait(_TAKE_EVERY_SECONDS)  # in real time: it is for a person who looks at the progress
            finally:
                self._sleeping = False

    def read_ahead(self) -> None:
        """Read several rows before they are submitted: for inputs that never make the reader wait."""
        self._chunk_items = max(self._chunk_items, _CHUNK_ROWS)


class JournalledRun(_PersistedRun):
    """A run that goes on where an earlier one with the same journal ended.

    An item is known by its key and its request; without ``item_key`` its place is its key.  If the journal has its
    answer, or a final failure, it is not sent.
    ``parse=`` and ``accept=`` are those of this run: a stored answer is reviewed anew, also one that an earlier run did
    not accept, and the item is sent again if it cannot be parsed.

    Args:
        engine, items, prepare, options, window: as for :class:`_PersistedRun`.
        journal: the journal's file. It is open from the first item to the end of the run.
        recorded: options of the run for the journal, which gets them before the first item is sent.
        item_key: returns the key of an item, a str or an int; None if its place is its key.

    Raises:
        ConfigurationError: while it is consumed, the journal was written with keys and now there are none, or the other
            way round.
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
        recorded: Mapping[str, Any],
        item_key: Optional[Callable[[Any], Union[str, int]]] = None,
    ) -> None:
        super().__init__(engine, items, prepare, options, window)
        self._clock: Clock = engine.clock
        self._journal_path = journal
        self._item_key = item_key
        self._names: Dict[int, str] = {}  # of items that are under way, by place
        self._hashes: Dict[int, str] = {}  # of their requests, with attachments as they were when these were made
        self._places = DigestTable()  # of all items with names, plus 1
        self._journal: Optional[Journal] = None
        self._recorded: Optional[Mapping[str, Any]] = recorded  # None once the journal has them
        self._is_abandoned = False
        self._has_warned = False

    @property
    def origin(self) -> RunOrigin:
        return super().origin._replace(journal=self._journal_path, item_key=self._item_key)

    def _call_for(self, item: Any) -> Optional[Call]:
        call = super()._call_for(item)
        if call is None or not self._note_name(call):
            return None
        place, _ = self._place_of(call)
        with contextlib.suppress(TypeError, ValueError, ChatPoolError):  # the attempt will fail with it
            self._hashes[place] = _request_hash(call)
        known = self._recorded_outcome(call)
        if known is None:
            self._begin()
            self._resume(call)
            return call
        if self.progress is not None:
            self.progress.skip(1)
        self._forget(place)
        self._put(known)
        return None

    def _place_of(self, call: Call) -> Tuple[int, Any]:
        """Return the place of an item and the item."""
        return call.index, call.item

    def _forget(self, place: int) -> Tuple[Optional[str], Optional[str]]:
        """Return the name and the hash of an item that has ended, and keep neither."""
        return self._names.pop(place, None), self._hashes.pop(place, None)

    def _note_name(self, call: Call) -> bool:
        """Note the name of an item; return False if it has none that can be used, which is its outcome then."""
        if self._item_key is None:
            return True
        place, item = self._place_of(call)
        try:
            name = _checked_name(self._key_of_item(item))
            digest = _key(name)
            if digest in self._places:
                first = self._places.get(digest) - 1
                raise ConfigurationError(f"key= returns {name!r} for it and for item {first}; keys are unique in a run")
        except Exception as error:
            self._end_unsent(Outcome(call.index, call.item, call.request, error=unusable_item(place, error)))
            return False
        self._places[digest] = place + 1
        self._names[place] = name
        return True

    @runs_user_code
    def _key_of_item(self, item: Any) -> Any:
        assert self._item_key is not None
        return self._item_key(item)

    def _begin(self) -> None:
        """Note the run in its journal, once it has something to send."""
        if self._recorded is not None:
            self._open_journal().begin_run(self._recorded, self._clock.wall())
            self._recorded = None

    def _resume(self, call: Call) -> None:
        """Have a call go on with what an earlier run had made in the background."""
        key, hash_ = self._identity_of(call)
        facts = None if hash_ is None else self._open_journal().pending(key, hash_)
        if facts is not None:
            self._engine.resume(call, facts)

    def _identity_of(self, call: Call) -> Tuple[int, Optional[str]]:
        """Return the key of an item under way, and the hash of its request; None without one."""
        place, _ = self._place_of(call)
        return _key(self._names.get(place, place)), self._hashes.get(place)

    def persist_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        key, hash_ = self._identity_of(call)
        if hash_ is None or self._is_abandoned:
            return False
        place, _ = self._place_of(call)
        self._open_journal().note_pending(pending_mark(key, hash_, place, self._clock.wall(), facts))
        return True

    def recorded_samples(self, call: Call) -> Optional[ChatCompletion]:
        """Return the answers of an item that is to get several, of which an earlier run has brought a part."""
        key, hash_ = self._identity_of(call)
        record = None if hash_ is None else self._open_journal().read(key, hash_)
        value = None if record is None else _value(call.request, record)
        return value if isinstance(value, ChatCompletion) else None

    def _recorded_outcome(self, call: Call) -> Optional[Outcome[Any]]:
        hash_ = self._hashes.get(call.index)
        if hash_ is None:
            return None
        journal, key = self._open_journal(), _key(self._names.get(call.index, call.index))
        record = journal.read(key, hash_)
        if record is None and not self._has_warned and journal.has_answer(key):
            self._has_warned = True
            logger.warning(
                "item %d has an answer to another request in %s: it is sent and paid again, as are others like it "
                "(items are known by their %s)",
                call.index,
                journal.path,
                "place" if self._item_key is None else "key",
            )
        if record is None or record.state == RETRY:
            return None
        return _outcome_of(call, record)

    def take(self, at_least: int = 1) -> List[Outcome[Any]]:
        self._open_journal()
        taken = super().take(at_least)
        if not taken:
            self._close_journal()
        return taken

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        try:
            return super().drain(reason)
        finally:
            self._close_journal()

    def abandon(self) -> None:
        super().abandon()
        self._is_abandoned = True
        if self._journal is not None:
            self._journal.abandon()

    def persist(self, outcome: Outcome[Any]) -> None:
        state, at = state_of(outcome), self._clock.wall()
        name, hash_ = self._forget(outcome.index)
        # Without a hash it was never sent, and to fail again costs nothing.
        if state is None or outcome.request is None or hash_ is None or self._is_abandoned:
            return
        key = _key(outcome.index if name is None else name)
        self._open_journal().append(record_of(outcome, state, key, hash_, at=at, row=outcome.index, custom_id=name))

    def _open_journal(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self._journal_path)
            self._refuse_other_keys(self._journal)
        return self._journal

    def _refuse_other_keys(self, journal: Journal) -> None:
        """Raise ConfigurationError if the items in the journal are known in another way than those of this run."""
        _, line = next(journal.lines(), (None, None))
        if line is None or (decode_record(line).custom_id is not None) == (self._item_key is not None):
            return
        journal.close()
        if self._item_key is None:
            raise ConfigurationError(f"{journal.path} was written with key=: pass the same key=, or another journal=")
        raise ConfigurationError(
            f"{journal.path} was written without key=, its items are known by their place: leave out key=, or pass "
            "another journal="
        )

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()


class JournalledRetry(JournalledRun):
    """A retry of failed items of such a run: its items are their outcomes, and it writes to their places."""

    def _recorded_outcome(self, call: Call) -> Optional[Outcome[Any]]:
        return None  # the journal has the failure

    def persist(self, outcome: Outcome[Any]) -> None:
        super().persist(merged_outcome(outcome))

    def _place_of(self, call: Call) -> Tuple[int, Any]:
        first: Outcome[Any] = call.item
        return first.index, first.item


def _checked_name(name: Any) -> str:
    """Return what ``key=`` has returned for an item as a str.

    Raises:
        TypeError: it is neither a str nor a whole number.
    """
    if isinstance(name, str):
        return str(name)
    try:
        if not isinstance(name, bool):
            return str(operator.index(name))  # numpy's and pandas' too
    except TypeError:
        pass
    raise TypeError(
        f"key= must return a str or an int, got {type(name).__name__}; str() makes a key of a UUID or a date"
    )


def _key(name: Union[str, int]) -> int:
    """Return the key of an item in the journal: a str is its name, an int its place."""
    return key_of(f"item {name}" if isinstance(name, int) else f"key {name}")


def _outcome_of(call: Call, record: Record) -> Optional[Outcome[Any]]:
    """Return the outcome in a record; None if this run cannot parse its answer, or the file with it is gone."""
    attempts = len(record.attempts)
    is_in_file = record.error is None and not isinstance(call.request.response, str)
    if is_in_file and not _is_there(decode_value(record.value)):
        return None
    value, error = _value(call.request, record), None
    is_partial = isinstance(value, ChatCompletion) and len(value.choices) < call.options.samples
    if record.error is not None and (value is None or is_partial):
        error = error_of(record.error, attempts)
        if is_partial:
            error.samples, value = value, None
        if is_partial and isinstance(error, ParseError):
            return None
    elif call.options.review is not None:
        review = call.options.review(call.request, value, 0)
        if review.reason == PARSE_FAILED:
            return None
        value, error = review.value, review.error
        if error is not None:
            value, error.attempts = None, attempts
    if isinstance(value, ChatCompletion):
        value._fallback = record.fallback
    outcome = call.index, call.item, call.request, value, error, record.attempts, record.elapsed, record.usage
    return Outcome(*outcome, record.fallback, record.charges)


def _value(request: ChatRequest, record: Record) -> Any:
    stored = decode_value(record.value)
    if not isinstance(stored, dict):  # a vector, or a text
        return stored
    if request.response == "bytes":
        return base64.b64decode(stored[_BASE64])
    if request.response != "json":
        return pathlib.Path(request.response)
    request_id = record.attempts[-1].request_id if record.attempts else None
    return decode_response(request, stored, request_id)


def _is_there(stored: Any) -> bool:
    """Return whether an answer that went to a file is still there, as long as it was."""
    try:
        return bool(os.path.getsize(stored[_FILE]) == stored[_SIZE])
    except OSError:
        return False


def _request_hash(call: Call) -> str:
    """Return a digest of the path, the body and the files of a call's request, and of the form of its answer.

    Raises:
        TypeError, ConfigurationError: its body cannot be sent.
    """
    request = call.request
    # Not the payload of every request, as it may ask for a stream; that of a form has read open files already.
    payload = call.payload if request.files else payload_of(request)
    form = "" if request.response == "json" else f" {request.response}"
    return hash_of(f"{request.path}{form}{samples_mark(call.options.samples)}", identity_of(payload))


def samples_mark(samples: int) -> str:
    """Return the part of a hash that tells requests for several answers each from those for one."""
    return "" if samples == 1 else f" samples={samples}"


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
    """Return the journal's record of an outcome; it has an answer that was not accepted too, as that was paid for."""
    error = None if outcome.error is None else error_facts(outcome.error)
    answer = outcome.value if outcome.error is None else _answer_with(outcome.error)
    usage = outcome.usage
    # A usage that the answer's JSON has is not written twice.  An answer that was shared with an identical item has
    # none, while its JSON has one.
    if usage == _usage_in(outcome.value) and usage != Usage():
        usage = None
    is_unpaid = outcome.request is None or (answer is None and outcome.usage is None)
    charges = outcome.charges
    requested_model = None if is_unpaid or not charges else charges[-1].model
    model = None if requested_model == answering_model(answer) else requested_model
    in_parts = charges if not is_unpaid and any(outcome.fallback or charge.tier for charge in charges) else ()
    values = error, meta, _encoded(answer), usage, model, in_parts, outcome.fallback
    return Record(key, state, hash_, custom_id, row, at, outcome.elapsed, outcome.history, *values)


def _answer_with(error: ChatPoolError) -> Any:
    """Return the answers that came although the item has failed, None without any."""
    return getattr(error, "completion", None) if error.samples is None else error.samples


def _usage_in(value: Any) -> Optional[Usage]:
    """Return the tokens that a value's JSON has."""
    return value.usage if isinstance(value, ChatCompletion) else usage_of(value)


def _encoded(value: Any) -> bytes:
    """Return an answer's JSON on one line; as it came, where that is possible."""
    if isinstance(value, bytes):
        return encode_value({_BASE64: base64.b64encode(value).decode("ascii")})
    if isinstance(value, pathlib.Path):
        return encode_value({_FILE: os.path.abspath(value), _SIZE: value.stat().st_size})
    if not isinstance(value, ChatCompletion):
        return encode_value(value)
    content = value._raw  # bytes, unless the caller has asked for .raw
    line = one_line(content) if isinstance(content, bytes) else None
    return encode_value(value.raw) if line is None else line
