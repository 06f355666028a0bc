"""A run by several processes: this one reads and writes, its children call.

The child processes of a run: started, fed, listened to.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .._client.batch_support import MAX_BATCH_TEXTS, RowBudget, WorkerPools, max_workers_of
from .._journal import Found, Record, decode_record, decode_value, error_of, text_or_null
from .._wire import encode
from ..errors import BudgetExceededError, ChatPoolError, ConfigurationError
from ..types import Outcome
from .batch_format import is_embedding
from .rows import RowRequest
from .runner import Runner
from .worker_process import END, STOP

__all__ = ["Message", "ProcessPoolRunner", "WorkerProcess"]


logger = logging.getLogger("chatpool")

# Not ``-m``: that would look for modules in the working directory first, where anything may lie.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from chatpool.batch.worker_process import main; main()"

_PACKAGE = str(Path(__file__).parents[2])

_PATIENCE = 2.0  # seconds that a child has to end by itself


class Message(NamedTuple):
    """What a child has said; ``fact`` is None when it is gone."""

    child: WorkerProcess
    fact: Optional[Dict[str, Any]]


class WorkerProcess:
    """One child process.

    It is in a session of its own: Ctrl-C in a terminal is for the parent, which decides what follows.

    Args:
        journal: the journal that it writes to.
        pool: the packed pool.
        lock: what it holds open, so that the journal stays locked while it lives.
        messages: where what it says goes.
        start: where it may begin to write in the journal.
        ends_when_refused: as in :class:`~chatpool._engine.CallOptions`.

    Attributes:
        waiting: the rows that it has and has not ended, by key.
        told: up to where in the journal everything is known that it has written.
    """

    def __init__(
        self,
        journal: str,
        pool: bytes,
        lock: Optional[int],
        messages: queue.SimpleQueue[Message],
        start: int,
        *,
        ends_when_refused: bool,
    ) -> None:
        self.waiting: Dict[int, RowRequest] = {}
        self.told = start
        self._messages = messages
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter and its own path
            [sys.executable, "-c", _PROGRAM, *sys.path, _PACKAGE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=() if lock is None or os.name == "nt" else (lock,),
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name="chatpool-child", daemon=True)
        self._listener.start()
        facts = [os.path.abspath(journal), logger.getEffectiveLevel(), ends_when_refused]
        self._write(json.dumps(facts).encode() + b"\n" + base64.b64encode(pool) + b"\n")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # it died in the middle of it
                self._messages.put(Message(self, json.loads(line)))
        self._messages.put(Message(self, None))

    def give(self, works: List[RowRequest]) -> None:
        """Hand rows over."""
        self.waiting.update((work.key, work) for work in works)
        self._write(b"".join(_lines(work) for work in works))

    def tell(self, order: bytes) -> None:
        """Send one of the orders of :mod:`.child`."""
        self._write(order)

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead; its listener says so
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once; what it has written to the journal is there."""
        self._process.kill()

    def close(self) -> int:
        """Have it end at once, if it has not; returns its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._listener.join()
        self._process.stdout.close()
        return code


def _lines(work: RowRequest) -> bytes:
    """A row as two lines: what it is known by, and its body as it is to be sent."""
    assert work.request is not None
    row = work.row
    meta = "null" if row.meta is None else json.dumps(row.meta)
    known = f'"key":{work.key},"hash":"{work.hash}","id":{text_or_null(row.custom_id)},"row":{row.number}'
    facts = f'{{{known},"path":{text_or_null(work.request.path)},"meta":{meta}}}\n'
    return facts.encode("ascii") + encode(work.request.body) + b"\n"


_AT_ONCE = 16  # rows handed over together
_LOOK_EVERY = 0.1  # seconds
_MOST_AT_ONCE = 1000  # messages of children between two looks at what they may have
_MOST_SETBACKS = 3  # children that die, and one more for every so many rows:
_ROWS_PER_SETBACK = 1000


Ended = Tuple[RowRequest, Record]


class ProcessPoolRunner(Runner):
    """Runs rows in child processes, each with its share of the pool's workers.

    The children write outcomes to the journal themselves, before they take another row, and tell this process where
    they stand; those of a child that died before it could are searched for.  Limits they share through a file; the
    budget is asked here, before a row is handed over.
    """

    _stopped = False  # by a signal: at once
    _ending = False  # nothing more is handed over; the children end by themselves
    _exhausted = False

    def _go(self) -> None:
        all_workers = max_workers_of(self._pool)
        count = min(self._job.processes, all_workers)  # so many calls may be in flight, and no more
        pools = WorkerPools(self._pool, count)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._budget = RowBudget(self._pool)
        workers = all_workers // count
        # What is handed over cannot be taken back when the budget is used up: then it is no more than can be sent.
        self._ahead = workers if self._budget.limits else 64 + 4 * workers
        self._at_once = 1 if self._budget.limits or self._rows.source.is_stream else _AT_ONCE
        self._again: Deque[RowRequest] = deque()  # rows that were handed over or held back, and have not ended
        self._children: Dict[WorkerProcess, bytes] = {}
        self._setbacks = self._ended = 0
        self._tail = self._journal.tail()
        try:
            for pool in pools:
                self._start(pool)
            self._serve(self._todo())
        finally:
            for child in self._children:
                child.close()
            pools.close()
            with contextlib.closing(self._tail):
                self._search()

    def _start(self, pool: bytes) -> None:
        journal = self._journal
        child = WorkerProcess(
            journal.path,
            pool,
            journal.lock_descriptor,
            self._messages,
            self._tail.end(),
            ends_when_refused=self._failure_limit.is_default,
        )
        self._children[child] = pool

    def stop(self) -> None:
        self._stopped = True
        for child in list(self._children):  # this process may be handing rows over to one that does not take them
            child.kill()

    def _serve(self, rows: Iterator[RowRequest]) -> None:
        """Hand rows over and take outcomes, until there are neither."""
        while self._children and not self._stopped:
            if not self._ending:
                self._feed(rows)
                if self._exhausted and not self._again and not any(child.waiting for child in self._children):
                    self._end(END)
            self._hear_all()

    def _end(self, order: bytes) -> None:
        """Let the children end by themselves."""
        self._ending = True
        for child in self._children:
            child.tell(order)

    # -- rows ---------------------------------------------------------------------------------------------

    def _feed(self, rows: Iterator[RowRequest]) -> None:
        """Give every child as much as it may have."""
        while not (self._stopped or self._ending):
            child = min(self._children, key=lambda each: len(each.waiting))
            room = self._ahead - len(child.waiting)
            if room < self._at_once:
                return
            works = self._next(rows)
            if not works:
                return
            child.give(works)

    def _next(self, rows: Iterator[RowRequest]) -> List[RowRequest]:
        """The next rows that may be handed over; none at the end, and while the budget holds them back."""
        works: List[RowRequest] = []
        source = itertools.chain(self._retaken(), rows)
        while len(works) < self._at_once:
            work = next(source, None)
            if work is None:
                self._exhausted = True
                break
            self._look_at(work)
            if self._is_paid(work):
                works.append(work)
            elif self._ending or work in self._again:
                break
        return works

    def _retaken(self) -> Iterator[RowRequest]:
        while self._again:
            yield self._again.popleft()

    def _look_at(self, work: RowRequest) -> None:
        """Many texts go out in one request: then a child needs many."""
        if not self._budget.limits and work.request is not None and is_embedding(work.request.path):
            self._ahead, self._at_once = 2 * MAX_BATCH_TEXTS, 256

    def _is_paid(self, work: RowRequest) -> bool:
        """Whether the budget has enough for it; otherwise it has been dealt with."""
        assert work.request is not None
        try:
            if self._budget.reserve(work.key, work.request):
                return True
            self._again.appendleft(work)  # until others have taken less than expected
        except ConfigurationError as error:  # of this row alone
            self._fail_unsent(Outcome(0, work, work.request, error=error))
        except BudgetExceededError as error:
            self._fatal(error)
        return False

    # -- outcomes -----------------------------------------------------------------------------------------

    def _hear_all(self) -> None:
        """Take what the children have said by now; if that is nothing, wait for a short while."""
        records: List[Ended] = []
        try:
            with contextlib.suppress(queue.Empty):
                self._hear(self._messages.get(timeout=_LOOK_EVERY), records)
                for _ in range(_MOST_AT_ONCE):
                    self._hear(self._messages.get_nowait(), records)
        finally:
            self._take(records)

    def _hear(self, message: Message, records: List[Ended]) -> None:
        child, fact = message
        if fact is None:
            self._gone(child)
        elif "done" in fact:
            key, start, length = fact["done"]
            child.told = start + length
            if key in child.waiting:  # otherwise a search has found it before
                found = self._tail.at(start, length)
                if found is None or found.prefix.key != key:
                    self._lost(child, key)
                else:
                    records.append(self._noted(child, found))
        elif "pending" in fact:
            child.waiting.pop(fact["pending"], None)
            self._budget.release(fact["pending"])
        elif "log" in fact:
            level, words = fact["log"]
            logger.log(level, "%s", words)
        elif "fatal" in fact:
            self._fatal(error_of(fact["fatal"], 0))
        else:
            self._in_trouble(fact)

    def _search(self) -> None:
        """Look in the journal for what a child has written and cannot tell any more."""
        busy = [child for child in self._children if child.waiting]
        if not busy:
            return
        records: List[Ended] = []
        for found in self._tail.since(min(child.told for child in busy)):
            owner = next((child for child in self._children if found.prefix.key in child.waiting), None)
            if owner is not None:
                records.append(self._noted(owner, found))
        self._take(records)

    def _noted(self, child: WorkerProcess, found: Found) -> Ended:
        key, state, _ = found.prefix
        self._journal.learn(key, state, found.start)
        return child.waiting.pop(key), decode_record(found.line)

    def _take(self, records: Sequence[Ended]) -> None:
        if not records:
            return
        self._ended += len(records)
        for work, record in records:
            self._budget.settle(record, record.usage)
            asked = None if work.request is None else work.request.model
            answer = decode_value(record.value) if self._bill.wants_answered(asked) else None
            self._bill.add(record.usage, asked, answer.get("model") if isinstance(answer, dict) else None)
        self._keep([record for _, record in records])
        self._count(_outcome_of(work, record) for work, record in records)

    def _lost(self, child: WorkerProcess, key: int) -> None:
        """A record cannot be read where it was written: the row is done once more."""
        self._set_back(f"the journal {self._journal.path} does not keep what is written to it")
        name = child.waiting[key].row.custom_id
        logger.warning("row %r: its outcome is not in the journal; it is sent and paid again", name)
        self._budget.release(key)
        self._again.append(child.waiting.pop(key))

    def _set_back(self, why: str) -> None:
        self._setbacks += 1
        if self._setbacks > _MOST_SETBACKS + self._ended // _ROWS_PER_SETBACK:
            raise ChatPoolError(why)

    def _end_for(self, reason: ChatPoolError) -> None:
        self._fatal(reason)

    def _fatal(self, error: ChatPoolError) -> None:
        """Nothing more is sent; what is in flight is taken, as it has been paid for."""
        self._result.fatal = self._result.fatal or error
        if not self._ending:
            self._end(STOP)

    def _in_trouble(self, fact: Mapping[str, Any]) -> None:
        if "refused" in fact:
            raise ConfigurationError(
                f"the pool cannot be made in another process ({fact['refused']}): what it is made with has to be "
                "importable there, or leave out processes"
            )
        if "trouble" in fact:
            raise OSError(*fact["trouble"])

    def _gone(self, child: WorkerProcess) -> None:
        """A child has ended; what a dead one had not done is done by another in its place."""
        self._search()
        pool = self._children.pop(child)
        code = child.close()
        if self._ending or self._stopped:
            return
        self._set_back(f"child processes of the run keep dying, the last one with exit code {code}")
        logger.warning(
            "a process of this run has died with exit code %s: its %d rows without an outcome are sent again, and "
            "those that were in flight may be paid again",
            code,
            len(child.waiting),
        )
        for key, work in child.waiting.items():
            self._budget.release(key)
            self._again.append(work)
        self._start(pool)


def _outcome_of(work: RowRequest, record: Record) -> Outcome[Any]:
    """How a row has ended, without its answer."""
    error = None if record.error is None else error_of(record.error, len(record.attempts))
    return Outcome(0, work, work.request, None, error, record.attempts)
