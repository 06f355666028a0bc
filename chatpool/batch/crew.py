"""The child processes of a run: started, fed, listened to."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from ..journal import text_or_null
from ..wire import encode
from .work import Work

__all__ = ["Child", "Message"]

logger = logging.getLogger("chatpool")

# Not ``-m``: that would look for modules in the working directory first, where anything may lie.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from chatpool.batch.child import main; main()"

_PACKAGE = str(Path(__file__).parents[2])

_PATIENCE = 2.0  # seconds that a child has to end by itself


class Message(NamedTuple):
    """What a child has said; ``fact`` is None when it is gone."""

    child: Child
    fact: Optional[Dict[str, Any]]


class Child:
    """One child process.

    It is in a session of its own: Ctrl-C in a terminal is for the parent, which decides what follows.

    Args:
        journal: the journal that it writes to.
        pool: the packed pool.
        lock: what it holds open, so that the journal stays locked while it lives.
        messages: where what it says goes.
        start: where it may begin to write in the journal.
        ends_when_refused: as in :class:`~chatpool.engine.CallOptions`.

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
        self.waiting: Dict[int, Work] = {}
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

    def give(self, works: List[Work]) -> None:
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


def _lines(work: Work) -> bytes:
    """A row as two lines: what it is known by, and its body as it is to be sent."""
    assert work.request is not None
    row = work.row
    meta = "null" if row.meta is None else json.dumps(row.meta)
    known = f'"key":{work.key},"hash":"{work.hash}","id":{text_or_null(row.custom_id)},"row":{row.number}'
    facts = f'{{{known},"path":{text_or_null(work.request.path)},"meta":{meta}}}\n'
    return facts.encode("ascii") + encode(work.request.body) + b"\n"
