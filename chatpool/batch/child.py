"""One of several processes of a run: takes rows from its standard input and writes their outcomes to the journal.

The input is the journal's path, the packed pool, and then one row per line; a line ``end`` is the end.  The end of the
input without it means that the parent is gone or wants no more: then so does the child, at once.  On its standard
output it says what the journal does not: rows that were given up, and the error that ended the run.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import sys
import threading
from typing import Any, Dict, Iterator, Optional

from ..client.batch_runs import start_rows
from ..client.copies import unpacked_pool
from ..client.final import state_of
from ..client.journalled import record_of
from ..client.packs import PAUSE
from ..clock import current_clock
from ..journal import SharedAppender, error_facts
from ..types import ChatRequest, Outcome
from .lines import is_embedding

__all__ = ["main"]

_END = b"end\n"


def main() -> None:
    """Run until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    source = sys.stdin.buffer
    journal = SharedAppender(json.loads(source.readline()))
    pool = unpacked_pool(base64.b64decode(source.readline()))
    child = _Child(journal)
    with pool:
        first = child.rows_from(source)
        packed = first is not None and is_embedding(first["path"])
        run = start_rows(pool, child.rows(first, pauses=packed), _request_of, child.keep, packed=packed)
        while True:
            taken = run.take()
            if not taken:
                break
            run.consumed(len(taken))
        if run.fatal is not None:
            child.say({"fatal": error_facts(run.fatal)})
    journal.close()
    child.say({"ended": True})


class _Child:
    def __init__(self, journal: SharedAppender) -> None:
        self._journal = journal
        self._clock = current_clock()
        self._said = threading.Lock()
        self._rows: queue.SimpleQueue[Optional[Dict[str, Any]]] = queue.SimpleQueue()

    def rows_from(self, source: Any) -> Optional[Dict[str, Any]]:
        """Read the input in a thread of its own; returns the first row."""
        threading.Thread(target=self._read, args=(source,), name="chatpool-rows", daemon=True).start()
        return self._rows.get()

    def _read(self, source: Any) -> None:
        for line in source:
            if line == _END:
                self._rows.put(None)
                return
            self._rows.put(json.loads(line))
        # What is in flight is lost with this process, as it would be with the parent; what was answered is written.
        os._exit(1)

    def rows(self, first: Optional[Dict[str, Any]], *, pauses: bool) -> Iterator[Any]:
        """The rows as they come.

        Args:
            first: the first one.
            pauses: whether to say when there is none at the moment.
        """
        row = first
        while row is not None:
            yield row
            if pauses and self._rows.empty():
                yield PAUSE
            row = self._rows.get()

    def keep(self, outcome: Outcome[Any]) -> None:
        """Have an outcome in the journal."""
        row = outcome.item
        state = state_of(outcome)
        if state is None:
            self.say({"pending": row["key"]})
            return
        at = self._clock.wall()
        record = record_of(
            outcome, state, row["key"], row["hash"], at=at, custom_id=row["id"], row=row["row"], meta=row["meta"]
        )
        self._journal.append(record)

    def say(self, fact: Dict[str, Any]) -> None:
        """Tell the parent."""
        with self._said:
            sys.stdout.buffer.write(json.dumps(fact).encode() + b"\n")
            sys.stdout.buffer.flush()


def _request_of(row: Dict[str, Any]) -> ChatRequest:
    return ChatRequest(row["body"], row["path"])


if __name__ == "__main__":
    main()
    os._exit(0)  # the thread that reads may still hold standard input
