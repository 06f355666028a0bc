"""One batch run: rows in, outcomes to the journal, lines out."""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Optional

from ..client import ChatPool
from ..client.final import state_of
from ..client.journalled import record_of, request_hash
from ..client.rows import RowsRun, needs_model, start_rows
from ..clock import current_clock
from ..errors import CallCancelledError, ChatPoolError, ConfigurationError
from ..journal import Journal, Record, hash_of, key_of
from ..observe.row_progress import RowProgress
from ..types import ChatCompletion, ChatRequest, Outcome
from .job import Job, Selection
from .outputs import Outputs
from .reading import Reading, Row
from .result import BatchResult
from .sources import Line, Source
from .stopping import Stopper

__all__ = ["Rows", "Runner", "Work"]


class Work:
    """A row with its whole request.

    Attributes:
        row: the row.
        key, hash: what it is known by in the journal.
        request: what is sent; None where none can be made, because of ``problem``.
        record: what the journal has of its end in this run.
    """

    __slots__ = ("hash", "key", "problem", "record", "request", "row")

    def __init__(
        self, row: Row, key: int, hash_: str, request: Optional[ChatRequest], problem: Optional[Exception] = None
    ) -> None:
        self.row = row
        self.key = key
        self.hash = hash_
        self.request = request
        self.problem = problem
        self.record: Optional[Record] = None


class Rows:
    """The selected rows of an input, read as often as it is asked for (once, of standard input).

    Args:
        source: the input.
        reading: how its lines are read.
        job: which rows.
        make: fills in what a request lacks.
        result: bad lines are noted there, and what the input is.
        recognised: called when that is known.

    Attributes:
        source: the input.
        trouble: the line that ended the reading, as an error.
    """

    def __init__(
        self,
        source: Source,
        reading: Reading,
        job: Job,
        make: Callable[[Any], ChatRequest],
        result: BatchResult,
        recognised: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self._reading = reading
        self._job = job
        self._make = make
        self._result = result
        self._recognised = recognised
        self._total: Optional[int] = None
        self.trouble: Optional[ConfigurationError] = None

    def check(self, journal: Optional[Journal]) -> int:
        """Look at the whole input before anything is sent; returns how many rows are selected.

        Raises:
            ConfigurationError: a line cannot be used, or a custom_id comes twice.
        """
        total = 0
        for row in self._read(journal, tell=True):
            del row
            total += 1
        if self.trouble is not None:
            raise self.trouble
        self._total = total
        return min(total, self._job.sample or total)

    def works(self) -> Iterator[Work]:
        """The selected rows; ends early, with :attr:`trouble` set, at a line that cannot be used."""
        selection = Selection(self._job, self._total)
        for place, row in enumerate(self._read(None, tell=self._total is None)):
            if selection.has(place):
                yield self.work(row)

    def _read(self, journal: Optional[Journal], *, tell: bool) -> Iterator[Row]:
        """The rows up to the limit; with ``journal`` each custom_id is noted there."""
        selection, place, started = Selection(Job(limit=self._job.limit), None), 0, False
        for line in self.source:
            if selection.is_over(place):
                return
            if not started:
                self._reading.recognise(line)
                self._result.kind, started = self._reading.kind, True
                self._recognised()
            row = self._row(line, tell)
            if row is not None and journal is not None and not journal.claim(_key(row)):
                self.trouble = ConfigurationError(
                    f"line {row.number} of {self.source.name}: the custom_id {row.custom_id!r} was there before; "
                    "each row needs its own"
                )
            if self.trouble is not None:
                return
            if row is not None:
                place += 1
                yield row

    def _row(self, line: Line, tell: bool) -> Optional[Row]:
        try:
            return self._reading.row(line)
        except ValueError as error:
            if tell:
                self._result.bad_line(line.number, str(error))
            if not self._job.skip_bad_lines:
                self.trouble = ConfigurationError(
                    f"line {line.number} of {self.source.name} cannot be used: {error}; correct it, or leave such "
                    "lines out (skip_bad_lines, --skip-bad-lines)"
                )
            return None

    def work(self, row: Row) -> Work:
        """A row with its whole request, or with what is wrong with it."""
        key = _key(row)
        try:
            request = self._make(row.request)
            return Work(row, key, request_hash(request), request)
        except (TypeError, ValueError, ChatPoolError) as error:
            body = repr(row.request.body).encode("utf-8", "surrogatepass")
            return Work(row, key, hash_of("", body), None, error)


def _key(row: Row) -> int:
    return key_of(row.custom_id)


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
        self._clock = current_clock()
        self._run: Optional[RowsRun] = None
        self._stopper = Stopper()
        self._progress: Optional[RowProgress] = None

    def run(self, stopper: Stopper, progress: RowProgress) -> None:
        """Run to the end, or until a signal or a fatal error.

        Raises:
            BaseException: what ended the run; everything that had an outcome by then is kept.
        """
        self._stopper, self._progress = stopper, progress
        run = self._run = start_rows(self._pool, self._todo(), _request_of, self._record)
        if not self._rows.source.is_stream:
            run.read_ahead()
        if stopper.number is not None:
            self.stop()
        try:
            while True:
                taken = run.take()
                if not taken:
                    break
                self._keep(taken)
                run.consumed(len(taken))
        except BaseException:
            self._rescue(run)
            raise
        finally:
            self._result.fatal = run.fatal

    def stop(self) -> None:
        """End the run; for another thread."""
        if self._run is not None:
            self._run.stop(CallCancelledError("the run was stopped"))

    def _rescue(self, run: RowsRun) -> None:
        reason = CallCancelledError("the run was cancelled")
        run.repair()
        run.stop(reason)
        try:
            self._keep(run.drain(reason))
        except OSError:
            return  # what is raised says so already

    # -- rows in ----------------------------------------------------------------------------------------

    def _todo(self) -> Iterator[Work]:
        """The rows to send; whatever else there is gets its outcome here."""
        for work in self._blocking(self._rows.works()):
            if self._rows.source.is_stream and not self._journal.claim(work.key):
                self._rows.trouble = ConfigurationError(
                    f"line {work.row.number} of {self._rows.source.name}: the custom_id {work.row.custom_id!r} was "
                    "there before; each row needs its own"
                )
                return
            self._outputs.met(work.key)
            if not self._wanted(work):
                continue
            if work.request is None:
                self._refuse(work)
                continue
            yield work

    def _blocking(self, rows: Iterator[Work]) -> Iterator[Work]:
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

    def _wanted(self, work: Work) -> bool:
        state = self._journal.state(work.key, work.hash)
        again = self._job.retry_failed is not False
        record = self._journal.read(work.key, work.hash) if again else None
        wanted = self._job.wants(state, record)
        self._result.rows += wanted or not again
        if wanted:
            return True
        if not again and state is not None:
            self._result.ended_before(state)
        if self._progress is not None:
            self._progress.skip(1)
        return False

    def _refuse(self, work: Work) -> None:
        """A row of which no request can be made."""
        error = ConfigurationError(f"line {work.row.number}: {work.problem}")
        error.__cause__ = work.problem
        outcome: Outcome[Any] = Outcome(0, work, error=error)
        self._record(outcome)
        self._keep([outcome])

    # -- outcomes out -------------------------------------------------------------------------------------

    def _record(self, outcome: Outcome[Any]) -> None:
        """Have it in the journal; called in workers."""
        state = state_of(outcome)
        if state is None:  # it is pending still
            return
        work: Work = outcome.item
        row = work.row
        at = self._clock.wall()
        record = record_of(
            outcome, state, work.key, work.hash, at=at, custom_id=row.custom_id, row=row.number, meta=row.meta
        )
        self._journal.append(record)
        work.record = record

    def _keep(self, outcomes: List[Outcome[Any]]) -> None:
        """What is in the journal goes to the outputs."""
        ended = [outcome for outcome in outcomes if outcome.item.record is not None]
        self._outputs.add([outcome.item.record for outcome in ended])
        for outcome in ended:
            self._count(outcome)

    def _count(self, outcome: Outcome[Any]) -> None:
        result = self._result
        usage = outcome.value.usage if isinstance(outcome.value, ChatCompletion) else None
        if usage is not None:
            result.usage = result.usage + usage
        if outcome.ok:
            result.succeeded += 1
        else:
            result.failed += 1
            cause = type(outcome.error).__name__
            result.causes[cause] = result.causes.get(cause, 0) + 1
        if self._progress is not None:
            self._progress.add(outcome.ok, usage)


def _request_of(work: Work) -> ChatRequest:
    assert work.request is not None
    return work.request


def refuse_without_model(pool: ChatPool, work: Work) -> None:
    """OpenAI's server refuses requests without a model, one by one: better said once.

    Raises:
        ConfigurationError: the row names none, and neither does the pool.
    """
    if work.request is not None and work.request.model is None and needs_model(pool):
        raise ConfigurationError(f"line {work.row.number} names no model: pass model= (--model NAME)")
