"""A run in several processes: this one reads the input and writes the outputs, its worker processes make the calls."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .._client.batch_support import MAX_BATCH_TEXTS, RowBudget, WorkerPools, is_cached, max_workers_of, payload_of
from .._journal import PENDING, Journal, Record, StoredRecord, decode_record, decode_value, error_of, text_or_null
from .._values import Waiting
from ..errors import BudgetExceededError, ChatPoolError, ConfigurationError
from ..types import Outcome
from .jsonl import is_embedding
from .rows import RowRequest
from .run_status import Counts, sum_of_counts
from .runner import Runner, kept_samples
from .worker_process import END, STOP

__all__ = ["ProcessPoolRunner"]

logger = logging.getLogger("chatpool")

# Not ``-m``: that would look for modules in the working directory first, where anything may lie.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from chatpool.batch.worker_process import main; main()"

_PACKAGE = str(Path(__file__).parents[2])

_EXIT_SECONDS = 2.0  # that a worker process has to end by itself
_CHUNK_ROWS = 16  # sent to a worker process together; fewer where few threads would be long busy with them
_EMBEDDING_CHUNK_ROWS = 256  # the same, of texts to embed: one request takes many of them
_POLL_SECONDS = 0.1
_MAX_MESSAGES = 1000  # handled between two rounds of sending rows
_MAX_FAILURES = 3  # worker processes that may die in a run, and one more for every:
_ROWS_PER_FAILURE = 1000

RowRecord = Tuple[RowRequest, Record]


class _Message(NamedTuple):
    """A message of a worker process; ``content`` is None when the process has ended."""

    worker: _WorkerProcess
    content: Optional[Dict[str, Any]]


class _WorkerProcess:
    """One worker process, seen from the parent.

    It is in another session: Ctrl-C in a terminal is for the parent, which decides what follows.

    Args:
        journal: the path of the journal that it writes to.
        pool: the pickled pool.
        lock: the descriptor that it holds open, so that the journal stays locked while it lives.
        messages: takes its messages.
        start: the offset in the journal from which on it may write.
        ends_when_refused: as in :class:`~chatpool._engine.CallOptions`.

    Attributes:
        assigned: the rows that were sent to it and have not ended, by key.
        known_up_to: the offset in the journal up to which everything that it has written is known.
        counts: the counters of its pool, as it reported them last; see :func:`~.run_status.counts_of`.
    """

    def __init__(
        self,
        journal: str,
        pool: bytes,
        lock: Optional[int],
        messages: queue.SimpleQueue[_Message],
        start: int,
        *,
        ends_when_refused: bool,
    ) -> None:
        self.assigned: Dict[int, RowRequest] = {}
        self.counts: Counts = {}
        self.known_up_to = start
        self._messages = messages
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter and its own path
            [sys.executable, "-c", _PROGRAM, *sys.path, _PACKAGE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=() if lock is None or os.name == "nt" else (lock,),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_messages, name="chatpool-child", daemon=True)
        self._reader.start()
        settings = [os.path.abspath(journal), logger.getEffectiveLevel(), ends_when_refused]
        self.send(json.dumps(settings).encode() + b"\n" + base64.b64encode(pool) + b"\n")

    def _read_messages(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # the process died within a line
                self._messages.put(_Message(self, json.loads(line)))
        self._messages.put(_Message(self, None))

    def assign(self, row_requests: List[RowRequest], journal: Journal, samples: int) -> None:
        """Send rows of so many answers each, with what the journal knows of them."""
        self.assigned.update((row_request.key, row_request) for row_request in row_requests)
        self.send(b"".join(_encoded_row(row_request, journal, samples) for row_request in row_requests))

    def send(self, data: bytes) -> None:
        """Send lines as :mod:`.worker_process` reads them."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the process is dead; the reader reports it
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def kill(self) -> None:
        """End the process at once; what it has written to the journal stays."""
        self._process.kill()

    def close(self) -> int:
        """End the process, if it has not ended, and return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        return code


def _encoded_row(row_request: RowRequest, journal: Journal, samples: int) -> bytes:
    """Return a row as two lines: its identity, and its body as it is sent, or with files the whole request, pickled.

    Args:
        row_request: the row.
        journal: knows what an earlier run has brought of it.
        samples: how many answers it gets.
    """
    assert row_request.request is not None
    row = row_request.row
    meta = "null" if row.meta is None else json.dumps(row.meta)
    identity = (
        f'"key":{row_request.key},"hash":"{row_request.hash}","id":{text_or_null(row.custom_id)},"row":{row.number}'
    )
    request = row_request.request
    payload = payload_of(request)
    is_plain = isinstance(payload, bytes) and request.response == "json"
    if not (isinstance(payload, bytes) and is_plain):
        payload = base64.b64encode(pickle.dumps(replace(request, body=dict(request.body))))
    path, pickled = text_or_null(request.path), json.dumps(not is_plain)
    background = json.dumps(journal.pending(row_request.key, row_request.hash))
    identity += f',"occurrence":{row_request.occurrence}'
    kept = "null" if samples == 1 else json.dumps(kept_samples(journal, row_request))
    stored = f'"background":{background},"kept":{kept}'
    header = f'{{{identity},"path":{path},"meta":{meta},"pickled":{pickled},{stored}}}\n'
    return header.encode("ascii") + payload + b"\n"


class ProcessPoolRunner(Runner):
    """Runs rows in worker processes, each with its share of the pool's threads.

    Worker processes write outcomes to the journal themselves, before they take another row, and report the offset;
    outcomes of a process that died before it reported them are searched for in the journal.  They share limits
    through a file.  The budget is reserved in this process, before a row is sent to one of them.
    """

    _is_stopped = False  # by a signal: at once
    _is_ending = False  # no more rows are sent; the worker processes end by themselves
    _is_exhausted = False  # the input is at its end
    _processes: Dict[_WorkerProcess, bytes] = {}  # noqa: RUF012 - replaced, never changed

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._processes: Dict[_WorkerProcess, bytes] = {}  # with the pickled pool of each

    def _execute(self) -> None:
        all_threads = max_workers_of(self._pool)
        count = min(self._job.processes, all_threads)  # a process without a thread could do nothing
        pools = WorkerPools(self._pool, count)
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._budget = RowBudget(self._pool)
        threads = all_threads // count
        # Rows cannot be taken back when the budget is used up: with one, a process gets no more than it can send.
        self._max_assigned = threads if self._budget.limits else 64 + 4 * threads
        self._chunk_rows = 1 if self._budget.limits or self._rows.source.is_stream else min(_CHUNK_ROWS, 2 * threads)
        self._requeued: Deque[RowRequest] = deque()  # to be sent again, or held back by the budget
        self._failures = self._ended_rows = 0
        self._tail = self._journal.tail()
        try:
            for pool in pools:
                self._start_process(pool)
            self._run_processes(self._pending_rows())
        finally:
            for worker in self._processes:
                worker.close()
            pools.close()
            with contextlib.closing(self._tail):
                self._scan_journal()

    def counts(self) -> Counts:
        return sum_of_counts([worker.counts for worker in list(self._processes)])

    def _start_process(self, pool: bytes) -> None:
        journal = self._journal
        worker = _WorkerProcess(
            journal.path,
            pool,
            journal.lock_descriptor,
            self._messages,
            self._tail.end(),
            ends_when_refused=self._failure_limit.is_default,
        )
        self._processes[worker] = pool

    def stop(self) -> None:
        self._is_stopped = True
        for worker in list(self._processes):  # the main thread may be blocked, sending to one that reads no more
            worker.kill()

    def waiting(self) -> Waiting:
        counts = self.counts()
        return Waiting(counts["waits_for"], counts["in_flight"])

    def _run_processes(self, rows: Iterator[RowRequest]) -> None:
        """Send rows and collect outcomes, until there are neither."""
        while self._processes and not self._is_stopped:
            if not self._is_ending:
                self._assign_rows(rows)
                if self._is_exhausted and not self._requeued and not any(worker.assigned for worker in self._processes):
                    self._stop_processes(END)
            self._receive_messages()

    def _stop_processes(self, order: bytes) -> None:
        """Let the worker processes end by themselves."""
        self._is_ending = True
        for worker in self._processes:
            worker.send(order)

    # -- rows ---------------------------------------------------------------------------------------------

    def _assign_rows(self, rows: Iterator[RowRequest]) -> None:
        """Send every worker process as many rows as it may have."""
        while not (self._is_stopped or self._is_ending):
            worker = min(self._processes, key=lambda worker: len(worker.assigned))
            capacity = self._max_assigned - len(worker.assigned)
            if capacity < self._chunk_rows:
                return
            row_requests = self._next_rows(rows)
            if not row_requests:
                return
            worker.assign(row_requests, self._journal, self._job.samples)

    def _next_rows(self, rows: Iterator[RowRequest]) -> List[RowRequest]:
        """Return the next rows to send; none at the end of the input, and while the budget holds them back."""
        row_requests: List[RowRequest] = []
        source = itertools.chain(self._requeued_rows(), rows)
        while len(row_requests) < self._chunk_rows:
            row_request = next(source, None)
            if row_request is None:
                self._is_exhausted = True
                break
            self._adapt_to(row_request)
            if self._reserve_budget(row_request):
                row_requests.append(row_request)
            elif self._is_ending or row_request in self._requeued:
                break
        return row_requests

    def _requeued_rows(self) -> Iterator[RowRequest]:
        while self._requeued:
            yield self._requeued.popleft()

    def _adapt_to(self, row_request: RowRequest) -> None:
        """Send more rows at a time where one request takes many of them."""
        if not self._budget.limits and row_request.request is not None and is_embedding(row_request.request.path):
            self._max_assigned, self._chunk_rows = 2 * MAX_BATCH_TEXTS, _EMBEDDING_CHUNK_ROWS

    def _reserve_budget(self, row_request: RowRequest) -> bool:
        """Return True if the budget has enough for the row; otherwise requeue it, fail it, or end the run."""
        assert row_request.request is not None
        try:
            if self._budget.limits and is_cached(self._pool, row_request.request, row_request.occurrence):
                return True
            if self._budget.reserve(row_request.key, row_request.request):
                return True
            self._requeued.appendleft(row_request)  # until others have taken less than expected
        except ConfigurationError as error:  # of this row alone
            self._fail_unsent(Outcome(0, row_request, row_request.request, error=error))
        except BudgetExceededError as error:
            self._end_fatally(error)
        return False

    # -- outcomes -----------------------------------------------------------------------------------------

    def _receive_messages(self) -> None:
        """Handle the messages that have come; if there is none, wait for a short while."""
        records: List[RowRecord] = []
        try:
            with contextlib.suppress(queue.Empty):
                self._on_message(self._messages.get(timeout=_POLL_SECONDS), records)
                for _ in range(_MAX_MESSAGES):
                    self._on_message(self._messages.get_nowait(), records)
        finally:
            self._collect(records)

    def _on_message(self, message: _Message, records: List[RowRecord]) -> None:
        worker, content = message
        if content is None:
            self._on_exit(worker)
        elif "done" in content:
            key, start, length = content["done"]
            worker.known_up_to = start + length
            if key in worker.assigned:  # otherwise a scan of the journal has found it before
                entry = self._tail.at(start, length)
                if entry is None or entry.prefix.key != key:
                    self._on_lost_record(worker, key)
                else:
                    records.append(self._register(worker, entry))
        elif "pending" in content:
            worker.assigned.pop(content["pending"], None)
            self._budget.release(content["pending"])
        elif "counts" in content:
            self._on_counts(worker, content["counts"])
        elif "log" in content:
            level, text = content["log"]
            logger.log(level, "%s", text)
        elif "fatal" in content:
            self._end_fatally(error_of(content["fatal"], 0))
        else:
            self._raise_reported(content)

    def _on_counts(self, worker: _WorkerProcess, counts: Counts) -> None:
        if self._progress is not None:
            for name, count in self._progress.elsewhere.items():
                self._progress.elsewhere[name] = count + counts[name] - worker.counts.get(name, 0)
        worker.counts = counts

    def _scan_journal(self) -> None:
        """Find outcomes in the journal that a worker process has written and cannot report any more."""
        busy_workers = [worker for worker in self._processes if worker.assigned]
        if not busy_workers:
            return
        records: List[RowRecord] = []
        for entry in self._tail.since(min(worker.known_up_to for worker in busy_workers)):
            if entry.prefix.state == PENDING:
                self._journal.index_record(entry.prefix.key, PENDING, entry.start)
                continue
            owner = next((worker for worker in self._processes if entry.prefix.key in worker.assigned), None)
            if owner is not None:
                records.append(self._register(owner, entry))
        self._collect(records)

    def _register(self, worker: _WorkerProcess, entry: StoredRecord) -> RowRecord:
        key, state, _ = entry.prefix
        self._journal.index_record(key, state, entry.start)
        return worker.assigned.pop(key), decode_record(entry.line)

    def _collect(self, records: Sequence[RowRecord]) -> None:
        if not records:
            return
        self._ended_rows += len(records)
        for row_request, record in records:
            self._budget.settle(record, record.usage)
            if record.charges:
                self._bill.add_all(record.charges)
                continue
            model = None if row_request.request is None else row_request.request.model
            answer = decode_value(record.value) if self._bill.wants_answered(model) else None
            self._bill.add(record.usage, model, answer.get("model") if isinstance(answer, dict) else None)
        self._publish([record for _, record in records])
        self._count(_outcome_of(row_request, record) for row_request, record in records)

    def _on_lost_record(self, worker: _WorkerProcess, key: int) -> None:
        """Send a row again whose record cannot be read where it was written."""
        self._count_failure(f"the journal {self._journal.path} does not keep what is written to it")
        name = worker.assigned[key].row.custom_id
        logger.warning("row %r: its outcome is not in the journal; it is sent and paid again", name)
        self._budget.release(key)
        self._requeued.append(worker.assigned.pop(key))

    def _count_failure(self, reason: str) -> None:
        self._failures += 1
        if self._failures > _MAX_FAILURES + self._ended_rows // _ROWS_PER_FAILURE:
            raise ChatPoolError(reason)

    def _end_early(self, reason: ChatPoolError) -> None:
        self._end_fatally(reason)

    def _end_fatally(self, error: ChatPoolError) -> None:
        """Send no more rows; outcomes in flight are still collected, as they have been paid for."""
        self._result.fatal = self._result.fatal or error
        if not self._is_ending:
            self._stop_processes(STOP)

    def _raise_reported(self, content: Mapping[str, Any]) -> None:
        if "refused" in content:
            raise ConfigurationError(
                f"the pool cannot be made in another process ({content['refused']}): what it is made with has to be "
                "importable there, or leave out processes"
            )
        if "os_error" in content:
            raise OSError(*content["os_error"])

    def _on_exit(self, worker: _WorkerProcess) -> None:
        """Replace a worker process that has died, and send its rows again."""
        self._scan_journal()
        pool = self._processes.pop(worker)
        code = worker.close()
        if self._is_ending or self._is_stopped:
            return
        self._count_failure(f"child processes of the run keep dying, the last one with exit code {code}")
        logger.warning(
            "a process of this run has died with exit code %s: its %d rows without an outcome are sent again, and "
            "those that were in flight may be paid again",
            code,
            len(worker.assigned),
        )
        for key, row_request in worker.assigned.items():
            self._budget.release(key)
            self._requeued.append(row_request)
        self._start_process(pool)


def _outcome_of(row_request: RowRequest, record: Record) -> Outcome[Any]:
    """Return the outcome of a row without its answer."""
    error = None if record.error is None else error_of(record.error, len(record.attempts))
    return Outcome(0, row_request, row_request.request, None, error, record.attempts)
