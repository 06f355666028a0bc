"""A run by several processes: this one reads and writes, its children call."""

from __future__ import annotations

import contextlib
import itertools
import queue
from collections import deque
from typing import Deque, Dict, Iterator

from ..client.copies import packed_pools
from ..client.packs import MOST_TEXTS
from ..errors import ChatPoolError
from ..journal import OK, decode, decode_value, error_of
from ..wire.answers import usage_of
from .crew import Child, Message
from .lines import is_embedding
from .runner import Runner
from .work import Work

__all__ = ["CrewRunner"]

_AT_ONCE = 16  # rows handed over together
_LOOK_EVERY = 0.01  # seconds
_MOST_DEATHS = 3  # of children, in one run


class CrewRunner(Runner):
    """Runs rows in child processes, each with its share of the pool's workers.

    The children write outcomes to the journal themselves, before they take another row; this process reads there
    what they have done, and learns from their pipes only what the journal does not say.
    """

    _stopped = False
    _at_once = _AT_ONCE

    def _go(self) -> None:
        pools = packed_pools(self._pool, self._job.processes)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._ahead = 64 + 4 * max(1, self._pool._core.engine.max_workers // len(pools))
        self._again: Deque[Work] = deque()
        self._children: Dict[Child, bytes] = {}
        self._deaths = 0
        self._tail = self._journal.tail()
        try:
            for pool in pools:
                self._start(pool)
            self._serve(self._todo())
        finally:
            for child in self._children:
                child.close()
            with contextlib.closing(self._tail):
                self._catch_up()

    def _start(self, pool: bytes) -> None:
        child = Child(self._journal.path, pool, self._journal.lock_descriptor, self._messages)
        self._children[child] = pool

    def stop(self) -> None:
        self._stopped = True

    def _serve(self, rows: Iterator[Work]) -> None:
        """Hand rows over and take outcomes, until there are neither."""
        exhausted = False
        while not self._stopped:
            self._catch_up()
            if not exhausted:
                exhausted = not self._feed(rows)
            elif self._again:
                self._feed(iter(()))
            elif not any(child.waiting for child in self._children):
                break
            with contextlib.suppress(queue.Empty):
                self._hear(self._messages.get(timeout=_LOOK_EVERY))
        if not self._stopped:
            self._finish()

    def _finish(self) -> None:
        """Let the children end by themselves."""
        for child in list(self._children):
            child.end()
        while self._children and not self._stopped:
            with contextlib.suppress(queue.Empty):
                self._hear(self._messages.get(timeout=_LOOK_EVERY))

    def _feed(self, rows: Iterator[Work]) -> bool:
        """Give every child as much as it may have; False if there is no more."""
        while not self._stopped:
            child = min(self._children, key=lambda each: len(each.waiting))
            room = self._ahead - len(child.waiting)
            if room < min(_AT_ONCE, self._ahead // 2):
                return True
            works = list(itertools.islice(itertools.chain(self._retaken(), rows), self._at_once))
            if not works:
                return False
            self._look_at(works[0])
            child.give(works)
        return False

    def _look_at(self, work: Work) -> None:
        """Many texts go out in one request: then a child needs many."""
        if work.request is not None and is_embedding(work.request.path):
            self._ahead, self._at_once = 2 * MOST_TEXTS, 256

    def _retaken(self) -> Iterator[Work]:
        while self._again:
            yield self._again.popleft()

    def _catch_up(self) -> None:
        """Take what the children have written to the journal."""
        for start, line in self._tail.lines():
            record = decode(line)
            self._journal.learn(start, line)
            owner = next((child for child in self._children if record.key in child.waiting), None)
            if owner is None:
                continue  # this process wrote it itself
            del owner.waiting[record.key]
            self._keep([record], [usage_of(decode_value(record.value)) if record.state == OK else None])

    def _hear(self, message: Message) -> None:
        child, fact = message
        if fact is None:
            self._gone(child)
        elif "pending" in fact:
            child.waiting.pop(fact["pending"], None)
        elif "fatal" in fact:
            self._result.fatal = error_of(fact["fatal"], 0)
            self._stopped = True

    def _gone(self, child: Child) -> None:
        """A child has ended; what a dead one had not done is done by another in its place."""
        self._catch_up()
        pool = self._children.pop(child, None)
        if pool is None:
            return
        code = child.close()
        if code == 0 and not child.waiting:
            return
        self._deaths += 1
        if self._deaths > _MOST_DEATHS:
            raise ChatPoolError(f"child processes of the run keep dying, the last one with exit code {code}")
        self._again.extend(child.waiting.values())
        self._start(pool)
