"""The child processes of a run: started, fed, listened to."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from .work import Work

__all__ = ["Child", "Message", "MessageQueue"]

_PACKAGE = str(Path(__file__).parents[2])


class Message(NamedTuple):
    """What a child has said; ``fact`` is None when it is gone."""

    child: Child
    fact: Optional[Dict[str, Any]]


MessageQueue = "queue.SimpleQueue[Message]"


class Child:
    """One child process.

    Args:
        journal: the journal that it writes to.
        pool: the packed pool.
        lock: what it holds open, so that the journal stays locked while it lives.
        messages: where what it says goes.

    Attributes:
        waiting: the rows that it has and has not ended, by key.
    """

    def __init__(self, journal: str, pool: bytes, lock: Optional[int], messages: queue.SimpleQueue[Message]) -> None:
        path = os.pathsep.join(part for part in (_PACKAGE, os.environ.get("PYTHONPATH")) if part)
        self.waiting: Dict[int, Work] = {}
        self._messages = messages
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chatpool.batch.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=() if lock is None or os.name == "nt" else (lock,),
        )
        self._write(json.dumps(os.path.abspath(journal)).encode() + b"\n" + base64.b64encode(pool) + b"\n")
        self._listener = threading.Thread(target=self._listen, name="chatpool-child", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._messages.put(Message(self, json.loads(line)))
        self._messages.put(Message(self, None))

    def give(self, works: List[Work]) -> None:
        """Hand rows over."""
        self.waiting.update((work.key, work) for work in works)
        self._write(b"".join(_line(work) for work in works))

    def end(self) -> None:
        """There are no more rows; it ends when it has done those that it has."""
        self._write(b"end\n")

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead; its listener says so
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def close(self) -> int:
        """Have it end at once, if it has not; returns its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        code = self._process.wait()
        self._listener.join()
        self._process.stdout.close()
        return code


def _line(work: Work) -> bytes:
    assert work.request is not None
    row = work.row
    fields = {
        "key": work.key,
        "hash": work.hash,
        "id": row.custom_id,
        "row": row.number,
        "meta": row.meta,
        "path": work.request.path,
        "body": work.request.body,
    }
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
