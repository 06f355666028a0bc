"""Lease of a folder of journals: one process at a time writes there, on whichever host.

Locks of the system do not reach over every network file system, and a process that was stopped, or cut off, does not
know that another has its place.  So each holder has a generation, which is a number that only grows (a fencing token),
and writes files of its own generation alone; its successor begins with a copy of what is there.  Whatever the old
holder writes later is in files that nobody reads.

Nothing but waiting depends on who is thought to be alive, and no two clocks are compared: a holder beats by writing to
its lease, and the file system's clock says how long ago that was.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from types import TracebackType
from typing import Callable, NamedTuple, Optional, Type

from .._file_lock import lock_file, unlock_file
from .._files import SAFE_OPEN_FLAGS, atomic_replace
from .._redaction import printable
from ..errors import JournalBusyError, JournalLostError
from .lock_file import PROBE_SECONDS, busy_error

__all__ = ["FolderLease", "is_leased", "newest_journal"]

_BEAT_SECONDS = 10.0
_LOST_SECONDS = 60.0  # without a beat, after which a holder on another host counts as lost
_OWN_SECONDS = 45.0  # after a beat, for which a holder is sure of its lease; less than those of the others
_WATCH_SECONDS = 20.0  # for which a lost holder has to stay silent: the whole cluster may have been asleep
_POLL_SECONDS = 0.5

_LEASE_BYTES = 600
_NUMBERED = re.compile(r"([1-9][0-9]{0,17})\.")
_PROBE = ".probe-"
_JOURNAL = ".journal"
_LEASE = ".journal.lock"  # as that of a journal outside of shards, so that the lock in it is found by its name
_GONE_ERRORS = {errno.ENOENT, errno.ESTALE} if os.name != "nt" else {errno.ENOENT, errno.EACCES}

# Linux' monotonic clock stands still while the machine sleeps.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def _now() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class FolderLease:
    """The right to write journals in a folder, from :meth:`acquire` (or ``with``) to :meth:`release`.

    Args:
        folder: the folder; it is made if it is not there.

    Attributes:
        generation: the number of this holder's files, from 1.
        on_lost: called in another thread when another process has taken the lease over.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.generation = 0
        self.on_lost: Callable[[], None] = lambda: None
        self._descriptor: Optional[int] = None
        self._holder = _Holder("", 0, "", 0, False)
        self._sure_until = 0.0
        self._lost: Optional[JournalLostError] = None
        self._exclusive = threading.Lock()
        self._ended = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def path(self, suffix: str) -> str:
        """Return the path of this generation's file with a suffix: ``".journal"``, ``".jsonl"`` ..."""
        return _path(self.folder, self.generation, suffix)

    @property
    def descriptor(self) -> Optional[int]:
        """The open lease, for child processes: on this machine it is held as long as one of them has it open."""
        return self._descriptor

    # -- taking it ------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Take the lease, with what earlier holders have written to their journals.

        Waits for 20 s if the holder is on another host, or stopped, and was not heard of for a minute.

        Raises:
            JournalBusyError: another process holds it.
            OSError: the folder cannot be written to.
        """
        os.makedirs(self.folder, exist_ok=True)
        while True:
            newest = _newest(self.folder, _LEASE)
            is_released = False
            if newest:
                holder = _read(_path(self.folder, newest, _LEASE))
                is_released = holder is not None and holder.is_released
                if not is_released and not _is_dead(self.folder, newest, holder):
                    raise _busy(self.folder, holder)
            if self._claim(newest + 1):
                break
        try:
            # First of all: an old holder that comes back notices, from now on.
            _remove(_path(self.folder, newest, _LEASE))
            self._take_journal(newest if is_released else 0)
            self._remove_older()
        except BaseException:
            self.release()
            raise
        self._thread = threading.Thread(target=self._keep, name="chatpool-lease", daemon=True)
        self._thread.start()

    def _claim(self, generation: int) -> bool:
        """Make the lease of a generation; return False if another process was faster."""
        path = _path(self.folder, generation, _LEASE)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | SAFE_OPEN_FLAGS, 0o666)
        except FileExistsError:
            return False
        self.generation, self._descriptor, self._lost = generation, descriptor, None
        try:
            with contextlib.suppress(OSError):  # the file system has no locks
                lock_file(descriptor)
            self._holder = _Holder(socket.gethostname(), os.getpid(), _machine_of(descriptor), 0, False)
            self._beat()  # whose lease it is, written once it is locked
        except JournalLostError:  # a generation of long ago, whose lease its successors had removed
            self._close()
            _remove(path)
            return False
        except BaseException:
            self._close()
            raise
        return True

    def _take_journal(self, released: int) -> None:
        """Begin with the newest journal: with the file itself if its holder, ``released``, has given it back."""
        before = newest_journal(self.folder)
        if before is None:
            return
        if before == _path(self.folder, released, _JOURNAL):
            os.replace(before, self.path(_JOURNAL))
            return
        with atomic_replace(self.path(_JOURNAL)) as file, open(before, "rb") as older:
            shutil.copyfileobj(older, file, 1 << 20)

    def _remove_older(self) -> None:
        for name in os.listdir(self.folder):
            if name.startswith(_PROBE) or 0 < _generation_of(name) < self.generation:
                _remove(os.path.join(self.folder, name))

    # -- keeping it -----------------------------------------------------------------------------------

    def check(self, *, at_once: bool = False) -> None:
        """Return if the lease is held.

        Args:
            at_once: look even if it was held a short while ago.

        Raises:
            JournalLostError: another process has taken it over.
            OSError: that cannot be found out any more.
        """
        if not at_once and self._lost is None and _now() < self._sure_until:
            return
        with self._exclusive:
            if at_once or _now() >= self._sure_until:
                self._beat()
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        """Show that the holder lives, and that nobody has taken its place."""
        if self._lost is not None:
            raise self._lost
        began = _now()
        self._holder = self._holder._replace(beat=self._holder.beat + 1)
        is_gone = False
        try:
            _write(self.path(_LEASE), self._holder)
        except OSError as error:
            if error.errno not in _GONE_ERRORS:
                raise
            is_gone = True
        if is_gone or _newest(self.folder, _LEASE) > self.generation:
            self._lost = self._lost_error()
            raise self._lost
        self._sure_until = began + _OWN_SECONDS

    def _lost_error(self) -> JournalLostError:
        successor = None
        with contextlib.suppress(OSError):
            newest = _newest(self.folder, _LEASE)
            successor = _read(_path(self.folder, newest, _LEASE)) if newest > self.generation else None
        told = "another process" if successor is None else str(successor)
        return JournalLostError(
            f"{self.folder} was taken over by {told}, as nothing was heard of this one for {_LOST_SECONDS:g} s: what "
            "it had written by then is kept, and the other one goes on from there",
            path=self.folder,
            pid=None if successor is None else successor.pid,
            host=None if successor is None else successor.host,
        )

    def _keep(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            try:
                self.check(at_once=True)
            except JournalLostError:
                self.on_lost()
                return
            except OSError:  # may pass; if it does not, the run ends at its next record
                continue

    # -- giving it back -------------------------------------------------------------------------------

    def release(self) -> None:
        """Give the lease back, for the next one to go on at once; a second call does nothing."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._exclusive:
            if self._descriptor is None:
                return
            if self._lost is None:
                with contextlib.suppress(OSError):  # then the next one waits until it counts as lost
                    _write(self.path(_LEASE), self._holder._replace(is_released=True))
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FolderLease:
        self.acquire()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.release()


# -- looking at it ----------------------------------------------------------------------------------------


def newest_journal(folder: str) -> Optional[str]:
    """Return the journal that counts in a folder with leases; None without one."""
    newest = _newest(folder, _JOURNAL)
    return _path(folder, newest, _JOURNAL) if newest else None


def is_leased(folder: str) -> bool:
    """Return whether a process holds the lease of a folder, as far as can be seen; nothing is made or changed."""
    newest = _newest(folder, _LEASE)
    path = _path(folder, newest, _LEASE)
    holder = _read(path) if newest else None
    if holder is None or holder.is_released or _is_unlocked(path, holder):
        return False
    with contextlib.suppress(FileNotFoundError):
        return abs(time.time() - os.stat(path).st_mtime) < _LOST_SECONDS
    return True  # somebody is taking it over


# -- the files --------------------------------------------------------------------------------------------


class _Holder(NamedTuple):
    """Holder of a lease, as it stands there: host, process, machine, number of the latest beat, whether it is over."""

    host: str
    pid: int
    machine: str
    beat: int
    is_released: bool

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _path(folder: str, generation: int, suffix: str) -> str:
    return os.path.join(folder, f"{generation}{suffix}")


def _generation_of(name: str) -> int:
    match = _NUMBERED.match(name)
    return 0 if match is None else int(match[1])


def _newest(folder: str, suffix: str) -> int:
    """Return the greatest generation that has a file with the suffix, 0 without one."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return max((_generation_of(name) for name in names if name.endswith(suffix)), default=0)


def _machine_of(descriptor: int) -> str:
    """Return what tells whether a lock on this open file says anything of another process's.

    It does if that is in the same containers' host, sees the same process ids, and has the same mount.
    """
    parts = [socket.gethostname(), str(os.fstat(descriptor).st_dev)]
    with contextlib.suppress(OSError):  # not Linux
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            parts.append(file.read().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _write(path: str, holder: _Holder) -> None:
    """Write a lease that is there."""
    # Opened anew, as the server of a network file system is asked then whether the file is still there.
    descriptor = os.open(path, os.O_RDWR | SAFE_OPEN_FLAGS)
    try:
        os.write(descriptor, json.dumps(holder._asdict()).encode().ljust(_LEASE_BYTES - 1) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: str) -> Optional[_Holder]:
    """Return the holder that a lease names; None if it is gone, or not yet written."""
    try:
        descriptor = os.open(path, os.O_RDONLY | SAFE_OPEN_FLAGS)
    except FileNotFoundError:
        return None
    try:
        facts = json.loads(os.read(descriptor, 2 * _LEASE_BYTES))
        host, pid, beat = printable(str(facts["host"])), int(facts["pid"]), int(facts["beat"])
        return _Holder(host, pid, str(facts["machine"]), beat, facts["is_released"] is True)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # gone; or open, and Windows does not remove it
        os.unlink(path)


def _is_unlocked(path: str, holder: _Holder) -> bool:
    """Return whether the holder was on this machine and has ended, which the system knows at once."""
    try:
        descriptor = os.open(path, os.O_RDWR | SAFE_OPEN_FLAGS)
    except OSError:
        return False
    try:
        if holder.machine != _machine_of(descriptor) or not lock_file(descriptor, timeout_seconds=PROBE_SECONDS):
            return False
        unlock_file(descriptor)
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        os.close(descriptor)


def _is_dead(folder: str, generation: int, holder: Optional[_Holder]) -> bool:
    """Return whether a holder has ended, or was silent for so long that it counts as lost."""
    path = _path(folder, generation, _LEASE)
    if holder is not None and _is_unlocked(path, holder):
        return True
    try:
        if abs(_silence(folder, path)) < _LOST_SECONDS:
            return False
        before, ends_at = _signs(path), _now() + _WATCH_SECONDS
        while _now() < ends_at:
            time.sleep(_POLL_SECONDS)
            if _signs(path) != before:
                return False
    except FileNotFoundError:  # somebody takes it over: that one is seen when the folder is read once more
        return False
    return True


def _silence(folder: str, path: str) -> float:
    """Return the seconds since the last beat, by the clock of the file system."""
    with tempfile.NamedTemporaryFile(prefix=_PROBE, dir=folder) as probe:
        now = os.fstat(probe.fileno()).st_mtime
    return now - _signs(path).changed_at


class _Signs(NamedTuple):
    """Signs of life in a lease: the time of the last beat by the file system's clock, and what it has written."""

    changed_at: float
    data: bytes


def _signs(path: str) -> _Signs:
    with open(path, "rb") as file:  # opened: what the system remembers of a file elsewhere may be a minute old
        return _Signs(os.fstat(file.fileno()).st_mtime, file.read(_LEASE_BYTES))


def _busy(folder: str, holder: Optional[_Holder]) -> JournalBusyError:
    return busy_error(folder, "another process" if holder is None else str(holder))
