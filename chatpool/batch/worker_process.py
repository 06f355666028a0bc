"""A worker process of a run: it reads rows from standard input and writes their outcomes to the journal.

The input is a line of settings (the journal's path, the log's level, whether equal refusals may end the run), the
pickled pool in base64, and then two lines per row: its identity, and its body.  ``end`` says that there are no more
rows, ``stop`` that no more requests may be sent.  The end of the input means that the parent is gone: then the worker
process ends at once.  On standard output it reports at which offset of the journal it has written the outcome of a
row, which rows stay pending, the counters of its pool, errors that concern more than one row, and the lines of the log.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO, Dict, Iterator, Mapping, Optional

from .._client.batch_support import (
    PAUSE,
    ChatPool,
    Encoded,
    StoredRowsRun,
    record_of,
    start_rows,
    state_of,
    unpickle_pool,
)
from .._journal import OK, SharedAppender, error_facts, pending_mark
from .._observe.bar import Ticker
from .._wire.response import usage_of
from ..clock import current_clock
from ..errors import CallCancelledError
from ..types import ChatRequest, Outcome
from .jsonl import is_embedding
from .run_status import Counts, counts_of

__all__ = ["END", "STOP", "main"]

_COUNTS_EVERY_SECONDS = 0.5

END = b"end\n"
STOP = b"stop\n"

_STATUS_SECONDS = 1.0  # between two reports of the pool's counters


def main() -> None:
    """Run until the input ends, then end the process."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # where Ctrl-C reaches this process, the parent decides
        _run(sys.stdin.buffer)
        code = 0
    except OSError as error:
        _send_os_error(error)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)  # the thread that reads may still hold standard input


def _run(source: BinaryIO) -> None:
    settings, pickled_pool = source.readline(), source.readline()
    if not pickled_pool.endswith(b"\n"):
        return  # the parent is gone already
    path, level, ends_when_refused = json.loads(settings)
    logger = logging.getLogger("chatpool")
    logger.setLevel(level)
    logger.addHandler(_ParentHandler())
    logger.propagate = False
    journal = SharedAppender(path)
    try:
        pool = unpickle_pool(base64.b64decode(pickled_pool))
    except Exception as error:  # a user's object in the pool may fail in any way when it is unpickled
        _send({"refused": f"{type(error).__name__}: {error}"})
        return
    count_reports = _CountReports(pool)
    ticker = Ticker(count_reports.send_changes, _COUNTS_EVERY_SECONDS)
    with pool:
        _RowRunner(journal).run(pool, source, ends_when_refused=ends_when_refused)
    ticker.at_exit()
    count_reports.send_changes()
    journal.close()
    _send({"ended": True})


class _RowRunner:
    """Runs the rows that the parent sends.

    Args:
        journal: takes the outcomes.
    """

    def __init__(self, journal: SharedAppender) -> None:
        self._journal = journal
        self._clock = current_clock()
        self._rows: queue.SimpleQueue[Optional[Dict[str, Any]]] = queue.SimpleQueue()
        self._run: Optional[StoredRowsRun] = None
        self._is_stopping = False
        self._is_fatal_reported = False

    def run(self, pool: ChatPool, source: BinaryIO, *, ends_when_refused: bool) -> None:
        """Run rows until the parent sends no more."""
        threading.Thread(target=self._read, args=(source,), name="chatpool-rows", daemon=True).start()
        first = self._rows.get()
        packed = first is not None and is_embedding(first["path"])
        run = self._run = start_rows(
            pool,
            self._rows_from(first, packed),
            _request_of,
            self._on_outcome,
            backgrounds=self,
            is_batched=packed,
            ends_when_refused=ends_when_refused,
            kept=lambda row: row["kept"],
            occurrence_of=lambda row: int(row["occurrence"]),
        )
        if self._is_stopping:
            self._stop(run)
        while True:
            outcomes = run.take()
            if not outcomes:
                break
            run.consumed(len(outcomes))
        self._report_fatal(run)

    def _read(self, source: BinaryIO) -> None:
        """Read rows and orders; the target of a thread."""
        with contextlib.suppress(ValueError):  # half a row: the parent has died
            for line in source:
                if line == STOP:
                    self._is_stopping = True
                    if self._run is not None:
                        self._stop(self._run)
                self._rows.put(None if line in (END, STOP) else _decoded_row(json.loads(line), source.readline()))
        # What is in flight is lost with this process, as it would be with the parent; what was answered is written.
        os._exit(1)

    def _stop(self, run: StoredRowsRun) -> None:
        run.stop_sending(CallCancelledError("the run has ended"))

    def _rows_from(self, first: Optional[Dict[str, Any]], pauses: bool) -> Iterator[Any]:
        """Yield rows as they come; with ``pauses``, also a pause when none is there."""
        row = first
        while row is not None:
            yield row
            if pauses and self._rows.empty():
                yield PAUSE
            row = self._rows.get()

    def _on_outcome(self, outcome: Outcome[Any]) -> None:
        """Write an outcome to the journal; called in the pool's threads."""
        state = state_of(outcome)
        if state is None:
            _send({"pending": outcome.item["key"]})
        else:
            self._persist(outcome, state)
        if self._run is not None and self._run.ended_by is not None:
            self._report_fatal(self._run)

    def _persist(self, outcome: Outcome[Any], state: str) -> None:
        row = outcome.item
        identity = {"custom_id": row["id"], "row": row["row"], "meta": row["meta"]}
        record = record_of(outcome, state, row["key"], row["hash"], at=self._clock.wall(), **identity)
        if record.state == OK:  # so that the parent need not decode the answer for it
            record = record._replace(usage=outcome.usage or usage_of(outcome.value))
        try:
            with _sending:  # reports have the order of the records
                start, length = self._journal.append(record)
                _write_message({"done": [record.key, start, length]})
        except OSError as error:
            _send_os_error(error)
            raise

    def note(self, item: Dict[str, Any], facts: Mapping[str, str]) -> None:
        """Write to the journal where a row is made in the background; called in the pool's threads."""
        try:
            self._journal.append(pending_mark(item["key"], item["hash"], item["row"], self._clock.wall(), facts))
        except OSError as error:
            _send_os_error(error)
            raise

    def noted(self, item: Dict[str, Any]) -> Optional[Mapping[str, Any]]:
        """Return where the journal of an earlier run says that a row is made, as the parent has sent it."""
        background: Optional[Mapping[str, Any]] = item["background"]
        return background

    def _report_fatal(self, run: StoredRowsRun) -> None:
        if run.fatal is not None and not self._is_fatal_reported:
            self._is_fatal_reported = True
            _send({"fatal": error_facts(run.fatal)})


class _CountReports:
    """Tells the parent what the calls do, and what they wait for.

    Args:
        pool: whose calls they are.
    """

    def __init__(self, pool: ChatPool) -> None:
        self._pool = pool
        self._sent: Counts = {}

    def send_changes(self) -> None:
        """Send the counts, unless they are those that were sent last."""
        counts = counts_of(self._pool.stats())
        if counts != self._sent:
            self._sent = counts
            _send({"counts": counts})


class _ParentHandler(logging.Handler):
    """Sends the lines of the log to the parent, which logs those of all processes."""

    def emit(self, record: logging.LogRecord) -> None:
        _send({"log": [record.levelno, record.getMessage()]})


_sending = threading.RLock()  # held while a message is written


def _send(content: Dict[str, Any]) -> None:
    """Send a message to the parent."""
    with _sending:
        _write_message(content)


def _send_os_error(error: OSError) -> None:
    _send({"os_error": [error.errno, error.strerror or str(error)]})


def _write_message(content: Dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and the reader ends this process
        sys.stdout.buffer.write(json.dumps(content).encode() + b"\n")
        sys.stdout.buffer.flush()


def _decoded_row(row: Dict[str, Any], line: bytes) -> Dict[str, Any]:
    if row["pickled"]:
        row["request"] = pickle.loads(base64.b64decode(line))  # noqa: S301 - the parent has pickled it
    else:
        row["request"] = ChatRequest(Encoded(json.loads(line), line[:-1]), row["path"])
    return row


def _request_of(row: Dict[str, Any]) -> ChatRequest:
    request: ChatRequest = row["request"]
    return request


if __name__ == "__main__":
    main()
