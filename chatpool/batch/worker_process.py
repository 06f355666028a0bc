"""One of several processes of a run: takes rows from its standard input and writes their outcomes to the journal.

The input is a line of facts (the journal's path, the log's level, whether refusals in the same words may end the run),
the packed pool, and then two lines per row: what it is known by, and its body.
``end`` says that there are no more, ``stop`` that nothing more is to be sent.  The end of the input means that the
parent is gone: then so is the child, at once.  On its standard output it says where in the journal it has written the
outcome of which row, which rows were given up, errors that concern more than one row, and the lines of the log.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO, Dict, Iterator, Optional

from .._client.batch_support import (
    PAUSE,
    ChatPool,
    StoredRowsRun,
    record_of,
    start_rows,
    state_of,
    unpickle_pool,
)
from .._journal import OK, SharedAppender, error_facts
from .._wire.codec import Encoded
from .._wire.usage import usage_of
from ..clock import current_clock
from ..errors import CallCancelledError
from ..types import ChatRequest, Outcome
from .batch_format import is_embedding

__all__ = ["END", "STOP", "main"]

END = b"end\n"
STOP = b"stop\n"


def main() -> None:
    """Run until the input ends; does not return."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # where Ctrl-C reaches it, the parent decides
        _run(sys.stdin.buffer)
        code = 0
    except OSError as error:
        _say({"trouble": [error.errno, error.strerror or str(error)]})
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)  # the thread that reads may still hold standard input


def _run(source: BinaryIO) -> None:
    journal_path, packed = source.readline(), source.readline()
    if not packed.endswith(b"\n"):
        return  # the parent is gone already
    path, level, ends_when_refused = json.loads(journal_path)
    logger = logging.getLogger("chatpool")
    logger.setLevel(level)
    logger.addHandler(_ToParent())
    logger.propagate = False
    journal = SharedAppender(path)
    try:
        pool = unpickle_pool(base64.b64decode(packed))
    except Exception as error:  # whatever is in a pool may fail in any way when it is made again
        _say({"refused": f"{type(error).__name__}: {error}"})
        return
    with pool:
        _Child(journal).run(pool, source, ends_when_refused=ends_when_refused)
    journal.close()
    _say({"ended": True})


class _Child:
    def __init__(self, journal: SharedAppender) -> None:
        self._journal = journal
        self._clock = current_clock()
        self._rows: queue.SimpleQueue[Optional[Dict[str, Any]]] = queue.SimpleQueue()
        self._run: Optional[StoredRowsRun] = None
        self._stopping = False
        self._fatal_is_said = False

    def run(self, pool: ChatPool, source: BinaryIO, *, ends_when_refused: bool) -> None:
        """Run the rows of the input to its end."""
        threading.Thread(target=self._read, args=(source,), name="chatpool-rows", daemon=True).start()
        first = self._rows.get()
        packed = first is not None and is_embedding(first["path"])
        run = self._run = start_rows(
            pool,
            self._rows_from(first, packed),
            _request_of,
            self._keep,
            is_batched=packed,
            ends_when_refused=ends_when_refused,
        )
        if self._stopping:
            self._stop(run)
        while True:
            taken = run.take()
            if not taken:
                break
            run.consumed(len(taken))
        self._say_fatal(run)

    def _read(self, source: BinaryIO) -> None:
        """Take rows as they come, in a thread of its own."""
        with contextlib.suppress(ValueError):  # half a row: the parent was cut short
            for line in source:
                if line == STOP:
                    self._stopping = True
                    if self._run is not None:
                        self._stop(self._run)
                self._rows.put(None if line in (END, STOP) else _row(json.loads(line), source.readline()))
        # What is in flight is lost with this process, as it would be with the parent; what was answered is written.
        os._exit(1)

    def _stop(self, run: StoredRowsRun) -> None:
        run.stop_sending(CallCancelledError("the run has ended"))

    def _rows_from(self, first: Optional[Dict[str, Any]], pauses: bool) -> Iterator[Any]:
        """The rows as they come; with ``pauses`` also where there is none at the moment."""
        row = first
        while row is not None:
            yield row
            if pauses and self._rows.empty():
                yield PAUSE
            row = self._rows.get()

    def _keep(self, outcome: Outcome[Any]) -> None:
        """Have an outcome in the journal."""
        state = state_of(outcome)
        if state is None:
            _say({"pending": outcome.item["key"]})
        else:
            self._record(outcome, state)
        if self._run is not None and self._run.ended_by is not None:
            self._say_fatal(self._run)

    def _record(self, outcome: Outcome[Any], state: str) -> None:
        row = outcome.item
        names = {"custom_id": row["id"], "row": row["row"], "meta": row["meta"]}
        record = record_of(outcome, state, row["key"], row["hash"], at=self._clock.wall(), **names)
        if record.state == OK:  # so that the parent need not look for it in the answer
            record = record._replace(usage=outcome.usage or usage_of(outcome.value))
        try:
            with _saying:  # what is told has been written in the same order
                start, length = self._journal.append(record)
                _tell({"done": [record.key, start, length]})
        except OSError as error:
            _say({"trouble": [error.errno, error.strerror or str(error)]})
            raise

    def _say_fatal(self, run: StoredRowsRun) -> None:
        if run.fatal is not None and not self._fatal_is_said:
            self._fatal_is_said = True
            _say({"fatal": error_facts(run.fatal)})


class _ToParent(logging.Handler):
    """Has the parent log what is logged here: it is one run, whose lines come once."""

    def emit(self, record: logging.LogRecord) -> None:
        _say({"log": [record.levelno, record.getMessage()]})


_saying = threading.RLock()


def _say(fact: Dict[str, Any]) -> None:
    """Tell the parent."""
    with _saying:
        _tell(fact)


def _tell(fact: Dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # it is gone, and the reader ends this process
        sys.stdout.buffer.write(json.dumps(fact).encode() + b"\n")
        sys.stdout.buffer.flush()


def _row(row: Dict[str, Any], line: bytes) -> Dict[str, Any]:
    row["body"] = Encoded(json.loads(line), line[:-1])
    return row


def _request_of(row: Dict[str, Any]) -> ChatRequest:
    return ChatRequest(row["body"], row["path"])


if __name__ == "__main__":
    main()
