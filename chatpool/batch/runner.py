"""One batch run: rows in, outcomes to the journal, lines out."""

from __future__ import annotations

import itertools
import logging
from typing import Any, Iterable, Iterator, List, Optional, Sequence

from .._client.batch_support import (
    ChatPool,
    FailureLimit,
    StoredRowsRun,
    needs_model,
    record_of,
    start_rows,
    state_of,
)
from .._journal import ASIDE, OK, Journal, Record, decode_record
from .._observe.progress import RowProgress
from .._wire.usage import usage_of
from ..clock import current_clock
from ..errors import CallCancelledError, ChatPoolError, ConfigurationError
from ..prices import Bill
from ..types import ChatRequest, Outcome
from .batch_format import is_embedding
from .job import BatchResult, Job
from .output_files import Outputs
from .rows import RowRequest, Rows
from .signals import SignalGuard

__all__ = ["Runner", "ThreadRunner", "refuse_without_model"]

logger = logging.getLogger("chatpool")


class Runner:
    """Runs rows and keeps their outcomes: in the journal first, then in the outputs and the progress.

    Args:
        pool: makes the calls.
        rows: the rows.
        job: which of them, and how.
        journal: what is known of them.
        outputs: where lines go.
        result: what is counted.
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
        self._stopper = SignalGuard()
        self._progress: Optional[RowProgress] = None
        self._failure_limit = FailureLimit(job.max_failures)
        self._over: Optional[ChatPoolError] = None

    def run(self, stopper: SignalGuard, progress: RowProgress) -> None:
        """Run to the end, or until a signal or a fatal error.

        Raises:
            BaseException: what ended the run; everything that had an outcome by then is kept.
        """
        self._stopper, self._progress = stopper, progress
        self._go()

    def _go(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End the run; for another thread."""
        raise NotImplementedError

    # -- rows in ----------------------------------------------------------------------------------------

    def _todo(self) -> Iterator[RowRequest]:
        """The rows to send; whatever else there is gets its outcome here."""
        for work in self._blocking(self._rows.works()):
            if self._rows.source.is_stream and not self._journal.claim(work.key):
                self._rows.trouble = self._rows.twice(work.row)
                return
            self._outputs.met(work)
            if not self._wanted(work):
                self._outputs.ended_before(work)
                continue
            if work.request is None:
                self._refuse(work)
                if self._over is not None:
                    return
                continue
            yield work

    def _blocking(self, rows: Iterator[RowRequest]) -> Iterator[RowRequest]:
        """The same, in a way that lets a signal end the wait for somebody to type."""
        if not self._rows.source.is_stream:
            yield from rows
            return
        while True:
            self._stopper.is_blocked = True
            try:
                work = next(rows, None)
            finally:
                self._stopper.is_blocked = False
            if work is None:
                return
            yield work

    def _wanted(self, work: RowRequest) -> bool:
        again = self._job.retry_failed is not False
        if self._rows.source.is_stream and not self._journal.was_empty:
            work.wanted = self._recall(work)
        self._result.rows += work.wanted or not again
        if not work.wanted and self._progress is not None:
            self._progress.skip(1)
        is_sent = work.wanted and work.request is not None
        if is_sent and self._journal.has_answer(work.key) and self._journal.state(work.key, work.hash) is None:
            self._pays_again(work)
        return work.wanted

    def _recall(self, work: RowRequest) -> bool:
        """Look up a row of standard input; what has come back to the input comes back to the output."""
        journal, again = self._journal, self._job.retry_failed is not False
        counted = journal.line(work.key)
        found = self._rows.recall(work, journal)
        line = journal.line(work.key)
        if found.state is not None and line is not None and line != counted:
            self._outputs.returned(decode_record(line))
        if found.is_stale and not again:
            journal.mark(work.key, ASIDE)
        if not (again or found.wanted or found.state is None):
            self._result.ended_before(found.state == OK)
        return found.wanted

    def _pays_again(self, work: RowRequest) -> None:
        """Say that a row is sent again, and paid again: once, the summary has their number."""
        self._result.changed += 1
        if self._result.changed == 1:
            logger.warning(
                "row %r has an answer to another request: its text, the model or a parameter has changed, and it is "
                "sent and paid again, as are others like it",
                work.row.custom_id,
            )

    def _refuse(self, work: RowRequest) -> None:
        """A row of which no request can be made."""
        error = ConfigurationError(f"{self._rows.place_of(work.row)}: {work.problem}")
        error.__cause__ = work.problem
        self._fail_unsent(Outcome(0, work, error=error))

    def _fail_unsent(self, outcome: Outcome[Any]) -> None:
        self._record(outcome)
        assert outcome.item.record is not None
        self._keep([outcome.item.record])
        self._count([outcome])

    def _count(self, outcomes: Iterable[Outcome[Any]]) -> None:
        """End the run if too many rows have failed with these."""
        reason = self._failure_limit.reached_by(outcomes)
        if reason is not None:
            self._over = reason
            self._end_for(reason)

    def _end_for(self, reason: ChatPoolError) -> None:
        """Send nothing more; what is in flight goes on to its end."""
        raise NotImplementedError

    # -- outcomes out -------------------------------------------------------------------------------------

    def _record(self, outcome: Outcome[Any]) -> None:
        """Have it in the journal; called in workers."""
        state = state_of(outcome)
        if state is None:  # it is pending still
            return
        work: RowRequest = outcome.item
        row = work.row
        at = self._clock.wall()
        record = record_of(
            outcome, state, work.key, work.hash, at=at, custom_id=row.custom_id, row=row.number, meta=row.meta
        )
        self._journal.append(record)
        work.record = record

    @property
    def bill(self) -> Bill:
        """What the answers of this run took."""
        return self._bill

    def _keep(self, records: Sequence[Record]) -> None:
        """What is in the journal goes to the outputs."""
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
            self._progress.add(succeeded, failed)


class ThreadRunner(Runner):
    """Runs rows in the pool's own workers."""

    _run: Optional[StoredRowsRun] = None

    def _go(self) -> None:
        rows = self._todo()
        first = list(itertools.islice(rows, 1))
        packed = any(work.request is not None and is_embedding(work.request.path) for work in first)
        todo = itertools.chain(first, rows)
        run = self._run = start_rows(
            self._pool,
            todo,
            _request_of,
            self._record,
            is_batched=packed,
            failure_limit=self._failure_limit,
            ends_when_refused=self._failure_limit.is_default,
        )
        if self._over is not None:
            run.end(self._over)
        if not (packed or self._rows.source.is_stream):
            run.read_ahead()
        if self._stopper.number is not None:
            self.stop()
        try:
            while True:
                taken = run.take()
                if not taken:
                    break
                self._take(taken)
                run.consumed(len(taken))
        except BaseException:
            self._rescue(run)
            raise
        finally:
            self._result.fatal = run.fatal

    def stop(self) -> None:
        if self._run is not None:
            self._run.stop(CallCancelledError("the run was stopped"))

    def _end_for(self, reason: ChatPoolError) -> None:
        if self._run is not None:
            self._run.end(reason)

    def _rescue(self, run: StoredRowsRun) -> None:
        reason = CallCancelledError("the run was cancelled")
        run.resync()
        run.stop(reason)
        try:
            self._take(run.drain(reason))
        except OSError:
            return  # what is raised says so already

    def _take(self, outcomes: List[Outcome[Any]]) -> None:
        ended = [outcome for outcome in outcomes if outcome.item.record is not None]
        for outcome in ended:
            value, request = outcome.value, outcome.item.request
            answered = value.get("model") if isinstance(value, dict) else getattr(value, "model", None)
            self._bill.add(outcome.usage or usage_of(value), None if request is None else request.model, answered)
        self._keep([outcome.item.record for outcome in ended])


def _request_of(work: RowRequest) -> ChatRequest:
    assert work.request is not None
    return work.request


def refuse_without_model(pool: ChatPool, rows: Rows, work: RowRequest) -> None:
    """OpenAI's server refuses requests without a model, one by one: better said once.

    Raises:
        ConfigurationError: the row names none, and neither does the pool.
    """
    if work.request is not None and work.request.model is None and needs_model(pool):
        raise ConfigurationError(f"{rows.place_of(work.row)} names no model: pass model= (--model NAME)")
