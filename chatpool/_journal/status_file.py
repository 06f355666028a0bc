"""Status of a run under way, in a file beside its journal, for programs that watch it.

The file is written anew about once a second, whole, and is gone when the run ends.  A run that is killed leaves it
behind; then its journal is not locked any more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import threading
from typing import Any, Callable, Dict, Mapping, Optional

from .._files import SAFE_OPEN_FLAGS, atomic_replace, resolve_own_link

__all__ = ["StatusFile", "read_status"]

logger = logging.getLogger("chatpool")

_WRITE_SECONDS = 1.0
_MAX_STATUS_BYTES = 1 << 20
_MARK = "chatpool_status"


class StatusFile:
    """Writes the status of a run while the block lasts, from a thread of its own; a failure to do so ends no run.

    Args:
        journal: the path of the run's journal. The status stands beside it, with its permissions.
        facts: returns the status, as values of JSON; called in the thread.
    """

    def __init__(self, journal: str, facts: Callable[[], Mapping[str, Any]]) -> None:
        self._journal = resolve_own_link(journal)
        self._path = _path_of(self._journal)
        self._facts = facts
        self._is_ending = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> StatusFile:
        if _is_own(self._path):
            self._thread = threading.Thread(target=self._write_until_end, name="chatpool-status", daemon=True)
            self._thread.start()
        else:
            logger.warning("%s is no status of a run: it is left as it is, and this run cannot be watched", self._path)
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_ending.set()
        if self._thread is not None:
            self._thread.join()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _write_until_end(self) -> None:
        while True:
            try:
                self._write()
            except (OSError, RuntimeError) as error:  # a full disk; a dict of counts that grew meanwhile
                logger.debug("the status of the run is not written: %s", error)
            if self._is_ending.wait(_WRITE_SECONDS):  # in real time: it is for a person who watches
                return

    def _write(self) -> None:
        content = json.dumps({_MARK: 1, **self._facts()}).encode("ascii")
        with atomic_replace(self._path, like=self._journal, is_synced=False) as file:
            file.write(content)


def _path_of(journal: str) -> str:
    return f"{journal}.status"


def _is_own(path: str) -> bool:
    """Return whether the path is free, or has a status that a run has left."""
    try:
        is_file = stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True
    return is_file and _read(path) is not None


def _read(path: str) -> Optional[Dict[str, Any]]:
    """Return the status in a file, None if there is none in it."""
    try:
        # Not blocking: what stands there may be a pipe, by accident or by intent.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | SAFE_OPEN_FLAGS), "rb") as file:
            status = json.loads(file.read(_MAX_STATUS_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return status if isinstance(status, dict) and _MARK in status else None


def read_status(journal: str) -> Optional[Dict[str, Any]]:
    """Return the status that the run with this journal has written last; None where there is none."""
    return _read(_path_of(os.path.realpath(journal)))
