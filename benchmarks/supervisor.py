"""Supervisor of a run: however a run ends, none of its processes and none of its temporary files stay behind.

The process that a user starts measures nothing: it forks the one that does, waits for it, and then ends what is left
of it.  Either of the two cleans up if the other is killed: the kernel tells the one that measures when its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Callable, Dict, List, Optional, Set

__all__ = ["supervised"]

_GRACE_SECONDS = 2.0  # from SIGTERM to SIGKILL
_PATIENCE_SECONDS = 10.0  # for the process that measures, and for what was killed
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ALL_DONE = 0  # no signal has this number
_AWAITED = (*_SIGNALS, signal.SIGCHLD)

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def supervised(work: Callable[[], int]) -> int:
    """Return the exit code of ``work``, run in a process of its own, when all that it started has ended.

    SIGINT and SIGTERM end it with 130 and 143.  Temporary files of all processes are in one folder, which is removed.
    Elsewhere than on Linux it is only called.
    """
    if not sys.platform.startswith("linux"):
        return work()
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    folder = Path(tempfile.mkdtemp(prefix="chatpool-bench-"))
    folder.chmod(0o755)  # nginx runs as another user
    _adopt_orphans()
    own = os.getpid()
    child = os.fork()
    if child == 0:
        end_watch = _prepare_child(folder, own)
        try:
            return work()
        finally:
            end_watch()
    try:
        return _wait(child)
    finally:
        _end_descendants()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(child: int) -> int:
    """Return the exit code of the process that measures; what it is told to do by a signal, it has to do soon."""
    received = 0
    # It stays a zombie, whose number is no other process's, until no signal can be passed on to it any more.
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        told = signal.sigtimedwait(_AWAITED, _PATIENCE_SECONDS)
        if told is None and received:
            os.kill(child, signal.SIGKILL)
        elif told is not None and told.si_signo in _SIGNALS:
            received = received or told.si_signo
            os.kill(child, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if received:
        return 128 + received
    return code if code >= 0 else 128 - code


def _prepare_child(folder: Path, parent: int) -> Callable[[], None]:
    """End with the parent, and with all that was started here, at a signal, until what is returned is called.

    A thread waits for it.  The main thread would run a handler only between two steps of its own: a signal that comes
    as it begins to wait for something is not seen before that wait ends.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in _SIGNALS:
        signal.signal(number, _leave_to_thread)
    os.register_at_fork(after_in_child=_forget_signals)  # for instance in a worker of a ProcessPoolExecutor
    watch = threading.Thread(target=_end_when_told, args=(told, folder), daemon=True)
    watch.start()
    _adopt_orphans()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    if os.getppid() != parent:  # it has died before the kernel was asked to tell
        os.kill(os.getpid(), signal.SIGTERM)

    def end_watch() -> None:
        _forget_signals()
        os.write(tell, bytes([_ALL_DONE]))
        watch.join()

    return end_watch


def _end_when_told(told: int, folder: Path) -> None:
    number = os.read(told, 1)[0]
    if number == _ALL_DONE:
        return
    # Not by an exception: threads that wait for their own processes would keep this one for minutes.
    os.write(2, b"\nended by a signal\n")
    _end_descendants()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(128 + number)


def _leave_to_thread(number: int, frame: Optional[FrameType]) -> None:
    pass


def _forget_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be found."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_descendants() -> None:
    """End all descendants, and reap them: with SIGTERM, then with SIGKILL those that are still there."""
    began = time.monotonic()
    told: Set[int] = set()
    while True:
        alive, waited = _descendants(os.getpid()), time.monotonic() - began
        if not alive or waited > _PATIENCE_SECONDS:
            break
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if waited > _GRACE_SECONDS:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in told:
                    os.kill(pid, signal.SIGTERM)
        told.update(alive)
        time.sleep(0.02)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants(ancestor: int) -> List[int]:
    """Return the living ones, in no order."""
    children: Dict[int, List[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name, in brackets, may hold anything.
                state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children.setdefault(int(parent), []).append(int(entry.name))
    found, reached = [], [ancestor]
    while reached:
        below = children.get(reached.pop(), [])
        found += below
        reached += below
    return found
