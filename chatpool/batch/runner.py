"""One batch run: rows in, outcomes to the journal, then to the outputs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from functools import partial
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Sequence

from .._client.batch_support import (
    ChatPool,
    FailureLimit,
    StoredRowsRun,
    has_cache,
    needs_model,
    record_of,
    recorded_options_of,
    seconds_left,
    start_rows,
    state_of,
)
from .._journal import OK, SET_ASIDE, DigestTable, Journal, Record, decode_record, decode_value, pending_mark
from .._observe.progress import RunProgress
from .._values import Waiting
from .._wire.response import usage_of
from ..clock import Clock, current_clock
from ..errors import CallCancelledError, ChatPoolError, ConfigurationError, DeadlineExceededError
from ..prices import Bill
from ..types import ChatRequest, Outcome
from .job import BatchResult, Job
from .jsonl import is_embedding
from .output_files import Outputs
from .rows import RowRequest, Rows
from .run_status import Counts, counts_of
from .signals import SignalGuard

__all__ = [
    "Runner",
    "ThreadRunner",
    "invalid_row_error",
    "kept_samples",
    "record_of_row",
    "refuse_without_model",
    "time_limit",
]

logger = logging.getLogger("chatpool")

_HASH_DIGITS = 16  # of a row's request: 64 bits


class Runner:
    """Runs rows and stores their outcomes: in the journal first, then in the outputs and the progress.

    Args:
        pool: makes the calls.
        rows: the rows of the input.
        job: the options of the run.
        journal: takes and knows outcomes.
        outputs: take lines.
        result: takes the counts.

    Attributes:
        report: called whenever the counts have changed, in the thread that runs.
    """

    def __init__(
        self, pool: ChatPool, rows: Rows, job: Job, journal: Journal, outputs: Outputs, result: BatchResult
    ) -> None:
        self._pool = pool
        self._rows = rows
        self._job = job
        self._journal = journal
        self._outputs = outputs
        self._result = result
        self._bill = job.bill()
        self._clock = current_clock()
        self._signal_guard = SignalGuard()
        self._progress: Optional[RunProgress] = None
        self._failure_limit = FailureLimit(job.max_failures)
        self._end_reason: Optional[ChatPoolError] = None
        self._has_begun = False
        self._time_error: Optional[ChatPoolError] = None
        self._occurrences = DigestTable() if has_cache(pool) else None
        self.report: Callable[[], None] = lambda: None

    def run(self, signal_guard: SignalGuard, progress: Optional[RunProgress]) -> None:
        """Run to the end, or until a signal or a fatal error.

        Raises:
            BaseException: the reason why the run ended early; the outcomes that it had by then are stored.
        """
        self._signal_guard, self._progress = signal_guard, progress
        try:
            self._execute()
        finally:
            self._result.fatal = self._result.fatal or self._time_error

    def _execute(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End the run; called in another thread."""
        raise NotImplementedError

    def end_for_time(self, limit: str) -> None:
        """End the run because its time is over, which ``limit`` has set; called in another thread."""
        self._time_error = DeadlineExceededError(f"the run's time ({limit}) ran out")
        self.stop()

    def counts(self) -> Counts:
        """Return what the calls of the run do at this moment; called in another thread."""
        return counts_of(self._pool.stats())

    def waiting(self) -> Waiting:
        """Return why the run waits; called in another thread."""
        raise NotImplementedError

    # -- rows in ----------------------------------------------------------------------------------------

    def _pending_rows(self) -> Iterator[RowRequest]:
        """Yield the rows to send; the others get their outcomes here."""
        for row_request in self._interruptible(self._rows.row_requests()):
            if self._rows.source.is_stream and not self._journal.register(row_request.key):
                self._rows.input_error = self._rows.duplicate_error(row_request.row)
                return
            self._outputs.on_row(row_request)
            self._count_occurrence(row_request)
            if not self._is_wanted(row_request):
                self._outputs.on_done_before(row_request)
                continue
            if row_request.request is None:
                self._fail_invalid(row_request)
                if self._end_reason is not None:
                    return
                continue
            self._begin()
            yield row_request

    def _count_occurrence(self, row_request: RowRequest) -> None:
        """Number a row among those with the same request, whether they run or not: a cache has an answer for each."""
        if self._occurrences is not None:
            hash_ = (
                row_request.hash or self._rows.row_request(row_request.row).hash
            )  # not known of rows that do not run
            short = int(hash_[:_HASH_DIGITS], 16) or 1
            row_request.occurrence = self._occurrences.get(short)
            self._occurrences[short] = row_request.occurrence + 1

    def _begin(self) -> None:
        """Note the run in the journal, once it has something to send."""
        if not self._has_begun:
            self._has_begun = True
            processes = self._job.processes if self._job.processes > 1 else None
            recorded = recorded_options_of(self._pool, self._rows.make_request, processes=processes)
            self._journal.begin_run(recorded, self._clock.wall())

    def _interruptible(self, rows: Iterator[RowRequest]) -> Iterator[RowRequest]:
        """Yield the rows; a signal ends the wait for a line of standard input."""
        if not self._rows.source.is_stream:
            yield from rows
            return
        while True:
            self._signal_guard.is_blocked = True
            try:
                row_request = next(rows, None)
            finally:
                self._signal_guard.is_blocked = False
            if row_request is None:
                return
            yield row_request

    def _is_wanted(self, row_request: RowRequest) -> bool:
        retries_failed = self._job.retry_failed is not False
        if self._rows.source.is_stream and (retries_failed or not self._journal.was_empty):
            row_request.wanted = self._recall(row_request)
        self._result.rows += row_request.wanted or not retries_failed
        if not row_request.wanted and self._progress is not None:
            self._progress.skip(1)
        is_sent = row_request.wanted and row_request.request is not None
        if (
            is_sent
            and self._journal.has_answer(row_request.key)
            and self._journal.state(row_request.key, row_request.hash) is None
        ):
            self._warn_resent(row_request)
        return row_request.wanted

    def _recall(self, row_request: RowRequest) -> bool:
        """Look up a row of standard input; a row that has come back to the input comes back to the output."""
        journal, retries_failed = self._journal, self._job.retry_failed is not False
        line_before = journal.line(row_request.key)
        recalled = self._rows.recall(row_request, journal)
        line = journal.line(row_request.key)
        if recalled.state is not None and line is not None and line != line_before:
            self._outputs.on_restored(decode_record(line))
        if recalled.is_stale and not retries_failed:
            journal.mark(row_request.key, SET_ASIDE)
        if not (retries_failed or recalled.wanted or recalled.state is None):
            self._result.ended_before(recalled.state == OK)
        return recalled.wanted

    def _warn_resent(self, row_request: RowRequest) -> None:
        """Count a row that is sent and paid again, and warn of the first; the summary has their number."""
        self._result.changed += 1
        if self._result.changed == 1:
            logger.warning(
                "row %r has an answer to another request: its text, the model or a parameter has changed, and it is "
                "sent and paid again, as are others like it",
                row_request.row.custom_id,
            )

    def _fail_invalid(self, row_request: RowRequest) -> None:
        """Fail a row that no request can be made of."""
        self._fail_unsent(Outcome(0, row_request, error=invalid_row_error(self._rows, row_request)))

    def _fail_unsent(self, outcome: Outcome[Any]) -> None:
        self._persist(outcome)
        assert outcome.item.record is not None
        self._publish([outcome.item.record])
        self._count([outcome])

    def _count(self, outcomes: Iterable[Outcome[Any]]) -> None:
        """End the run if too many rows have failed with these."""
        reason = self._failure_limit.reached_by(outcomes)
        if reason is not None:
            self._end_reason = reason
            self._end_early(reason)

    def _end_early(self, reason: ChatPoolError) -> None:
        """Send nothing more; requests in flight run to their end."""
        raise NotImplementedError

    # -- outcomes out -------------------------------------------------------------------------------------

    def _persist(self, outcome: Outcome[Any]) -> None:
        """Write an outcome to the journal; called in the pool's threads."""
        state = state_of(outcome)
        if state is None:  # the row stays pending
            return
        row_request: RowRequest = outcome.item
        record = record_of_row(row_request, outcome, state, at=self._clock.wall())
        self._journal.append(record)
        row_request.record = record

    @property
    def bill(self) -> Bill:
        """Tokens and costs of this run's answers."""
        return self._bill

    def _publish(self, records: Sequence[Record]) -> None:
        """Pass records that are in the journal to the outputs, the result and the progress."""
        self._outputs.add(records)
        result, succeeded, failed = self._result, 0, 0
        for record in records:
            if record.state == OK:
                succeeded += 1
            else:
                failed += 1
                cause = str((record.error or {}).get("class"))
                result.causes[cause] = result.causes.get(cause, 0) + 1
        result.succeeded += succeeded
        result.failed += failed
        result.count(self._bill)
        if self._progress is not None:
            self._progress.advance(succeeded, failed)
        self.report()


class _JournalledBackgrounds:
    """Where rows are made in the background, as the journal of the run has it.

    Args:
        journal: the journal.
        clock: tells when.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock

    def note(self, item: RowRequest, facts: Mapping[str, str]) -> None:
        mark = pending_mark(item.key, item.hash, item.row.number, self._clock.wall(), facts)
        self._journal.note_pending(mark)

    def noted(self, item: RowRequest) -> Optional[Mapping[str, Any]]:
        return self._journal.pending(item.key, item.hash)


class ThreadRunner(Runner):
    """Runs rows in the pool's own threads."""

    _run: Optional[StoredRowsRun] = None

    def _execute(self) -> None:
        run = self._start()
        try:
            while True:
                outcomes = run.take()
                if not outcomes:
                    break
                self._collect(outcomes)
                run.consumed(len(outcomes))
        except BaseException:
            self._drain_after_error(run)
            raise
        finally:
            self._result.fatal = run.fatal

    def _start(self) -> StoredRowsRun:
        rows = self._pending_rows()
        first = list(itertools.islice(rows, 1))
        packed = any(
            row_request.request is not None and is_embedding(row_request.request.path) for row_request in first
        )
        run = self._run = start_rows(
            self._pool,
            itertools.chain(first, rows),
            _request_of,
            self._persist,
            backgrounds=_JournalledBackgrounds(self._journal, self._clock),
            is_batched=packed,
            listeners=[] if self._progress is None else [self._progress],
            failure_limit=self._failure_limit,
            ends_when_refused=self._failure_limit.is_default,
            kept=partial(kept_samples, self._journal),
            occurrence_of=lambda row_request: row_request.occurrence,
        )
        if self._end_reason is not None:
            run.end(self._end_reason)
        if not (packed or self._rows.source.is_stream):
            run.read_ahead()
        if self._signal_guard.number is not None or self._time_error is not None:
            self.stop()
        return run

    def waiting(self) -> Waiting:
        return Waiting() if self._run is None else self._run.waiting()

    def stop(self) -> None:
        if self._run is not None:
            self._run.stop(CallCancelledError("the run was stopped"))

    def _end_early(self, reason: ChatPoolError) -> None:
        if self._run is not None:
            self._run.end(reason)

    def _drain_after_error(self, run: StoredRowsRun) -> None:
        reason = CallCancelledError("the run was cancelled")
        run.resync()
        run.stop(reason)
        try:
            self._collect(run.drain(reason))
        except OSError:
            return  # the error that is raised says so already

    def _collect(self, outcomes: List[Outcome[Any]]) -> None:
        ended = [outcome for outcome in outcomes if outcome.item.record is not None]
        for outcome in ended:
            value, request = outcome.value, outcome.item.request
            answered = value.get("model") if isinstance(value, dict) else getattr(value, "model", None)
            model, tier = (None, None) if request is None else (request.model, request.service_tier)
            if outcome.fallback:
                self._bill.add_all(outcome.charges)
            else:
                self._bill.add(outcome.usage or usage_of(value), model, answered, tier=tier)
        self._publish([outcome.item.record for outcome in ended])


def kept_samples(journal: Journal, row_request: RowRequest) -> Any:
    """Return the JSON of the samples of a row that has failed in part, None without any."""
    record = journal.read(row_request.key, row_request.hash)
    return None if record is None or record.state == OK else decode_value(record.value)


def record_of_row(row_request: RowRequest, outcome: Outcome[Any], state: str, *, at: float) -> Record:
    """Return the journal's record of a row that has ended at this time, in seconds since the epoch."""
    row = row_request.row
    return record_of(
        outcome,
        state,
        row_request.key,
        row_request.hash,
        at=at,
        custom_id=row.custom_id,
        row=row.number,
        meta=row.meta,
    )


def invalid_row_error(rows: Rows, row_request: RowRequest) -> ConfigurationError:
    """Return the error of a row that no request can be made of."""
    error = ConfigurationError(f"{rows.location_of(row_request.row)}: {row_request.problem}")
    error.__cause__ = row_request.problem
    return error


def _request_of(row_request: RowRequest) -> ChatRequest:
    assert row_request.request is not None
    return row_request.request


def refuse_without_model(pool: ChatPool, rows: Rows, row_request: RowRequest) -> None:
    """Refuse rows without a model at once: OpenAI's server would refuse each request of them.

    Raises:
        ConfigurationError: neither the row nor the pool names a model.
    """
    if row_request.request is not None and row_request.request.model is None and needs_model(pool):
        raise ConfigurationError(f"{rows.location_of(row_request.row)} names no model: pass model= (--model NAME)")


@contextlib.contextmanager
def time_limit(seconds: Optional[float], runner: Runner) -> Iterator[None]:
    """Within the block, end the run when its time is over, or that of a deadline around it."""
    left, limit = seconds_left(), "run_timeout"
    if left is not None and (seconds is None or left < seconds):
        seconds, limit = max(left, 0.0), "chatpool.deadline"
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, runner.end_for_time, [limit])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
