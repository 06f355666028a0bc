"""A run by several processes: this one reads and writes, its children call."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Mapping, Sequence, Tuple

from ..client.copies import PackedPools
from ..client.packs import MOST_TEXTS
from ..client.row_budget import RowBudget
from ..errors import BudgetExceededError, ChatPoolError, ConfigurationError
from ..journal import Found, Record, decode, decode_value, error_of
from ..types import Outcome
from .child import END, STOP
from .crew import Child, Message
from .lines import is_embedding
from .runner import Runner
from .work import Work

__all__ = ["CrewRunner"]

logger = logging.getLogger("chatpool")

_AT_ONCE = 16  # rows handed over together
_LOOK_EVERY = 0.1  # seconds
_MOST_AT_ONCE = 1000  # messages of children between two looks at what they may have
_MOST_SETBACKS = 3  # children that die, and one more for every so many rows:
_ROWS_PER_SETBACK = 1000


Ended = Tuple[Work, Record]


class CrewRunner(Runner):
    """Runs rows in child processes, each with its share of the pool's workers.

    The children write outcomes to the journal themselves, before they take another row, and tell this process where
    they stand; those of a child that died before it could are searched for.  Limits they share through a file; the
    budget is asked here, before a row is handed over.
    """

    _stopped = False  # by a signal: at once
    _ending = False  # nothing more is handed over; the children end by themselves
    _exhausted = False

    def _go(self) -> None:
        all_workers = self._pool._core.engine.max_workers
        count = min(self._job.processes, all_workers)  # so many calls may be in flight, and no more
        pools = PackedPools(self._pool, count)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._budget = RowBudget(self._pool)
        workers = all_workers // count
        # What is handed over cannot be taken back when the budget is used up: then it is no more than can be sent.
        self._ahead = workers if self._budget.limits else 64 + 4 * workers
        self._at_once = 1 if self._budget.limits or self._rows.source.is_stream else _AT_ONCE
        self._again: Deque[Work] = deque()  # rows that were handed over or held back, and have not ended
        self._children: Dict[Child, bytes] = {}
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
        child = Child(
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

    def _serve(self, rows: Iterator[Work]) -> None:
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

    def _feed(self, rows: Iterator[Work]) -> None:
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

    def _next(self, rows: Iterator[Work]) -> List[Work]:
        """The next rows that may be handed over; none at the end, and while the budget holds them back."""
        works: List[Work] = []
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

    def _retaken(self) -> Iterator[Work]:
        while self._again:
            yield self._again.popleft()

    def _look_at(self, work: Work) -> None:
        """Many texts go out in one request: then a child needs many."""
        if not self._budget.limits and work.request is not None and is_embedding(work.request.path):
            self._ahead, self._at_once = 2 * MOST_TEXTS, 256

    def _is_paid(self, work: Work) -> bool:
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

    def _noted(self, child: Child, found: Found) -> Ended:
        key, state, _ = found.prefix
        self._journal.learn(key, state, found.start)
        return child.waiting.pop(key), decode(found.line)

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

    def _lost(self, child: Child, key: int) -> None:
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

    def _gone(self, child: Child) -> None:
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


def _outcome_of(work: Work, record: Record) -> Outcome[Any]:
    """How a row has ended, without its answer."""
    error = None if record.error is None else error_of(record.error, len(record.attempts))
    return Outcome(0, work, work.request, None, error, record.attempts)
