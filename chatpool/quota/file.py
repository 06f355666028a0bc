"""A limit that the processes of one user on one host share, through a file."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Callable, Iterator, Optional

from ..locks import new_lock
from . import arithmetic
from .arithmetic import Rates, Reservation, Standing, State
from .backend import Unavailable
from .locking import locked
from .packing import pack, unpack
from .places import open_safely

__all__ = ["FileBackend"]

_LARGEST = 16384  # bytes; more than a state ever takes


class FileBackend:
    """The state in a file, changed under its lock.

    Times in it are those of the monotonic clock, which on Linux, macOS and Windows all processes of a host share,
    containers included.

    Args:
        path: the file; made if need be.
        now: the host's monotonic clock.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.shown = f"the file {path}"
        self._path = path
        self._now = now
        self._known: Optional[State] = None  # as of this process' last look
        self._open_anew()

    def _open_anew(self) -> None:
        self._lock = new_lock()  # a lock of the file is the process', not the thread's
        self._descriptor: Optional[int] = None

    def reserve(self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float) -> Reservation:
        with self._state() as state:
            return arithmetic.reserve(
                state,
                self._now(),
                rates,
                requests=requests,
                tokens=tokens,
                patience=patience,
                sharer=sharer,
            )

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        with self._state() as state:
            arithmetic.correct(state, self._now(), rates, at=at, tokens=tokens)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        with self._state() as state:
            arithmetic.pause(state, self._now(), rates, seconds=seconds)

    def standing(self, rates: Rates) -> Standing:
        with self._state() as state:
            return arithmetic.standing(state, self._now(), rates)

    def close(self) -> None:
        with self._lock:
            self._let_go()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextlib.contextmanager
    def _state(self) -> Iterator[State]:
        """The state, nobody else's to change meanwhile, and written back at the end."""
        with self._lock:
            descriptor = self._current()
            try:
                with locked(descriptor):
                    # In a file that was removed while in use, go on from what this process knows.
                    state = _read(descriptor) or self._known or State()
                    yield state
                    _write(descriptor, state)
                    self._known = state
            except OSError as error:
                self._let_go()
                raise Unavailable(f"{self._path} cannot be used ({error.strerror or error})") from error

    def after_fork_in_child(self) -> None:
        inherited = self._descriptor
        self._open_anew()  # with the parent's descriptor the two would hold one lock together
        if inherited is not None:
            os.close(inherited)

    def _current(self) -> int:
        """The descriptor of the file that is there now: one that was removed is nobody else's any more."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                    return self._descriptor
            self._let_go()
        self._descriptor = open_safely(self._path)
        return self._descriptor


def _read(descriptor: int) -> Optional[State]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return unpack(os.read(descriptor, _LARGEST))


def _write(descriptor: int, state: State) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = pack(state)
    while data:
        written = os.write(descriptor, data)
        if not written:
            raise OSError(errno.EIO, "nothing can be written to it")
        data = data[written:]
