"""Signals that end a run in good order."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
from types import FrameType
from typing import Any, Callable, Container, Dict, Iterable, Iterator, NoReturn, Optional, Type

__all__ = ["SignalGuard", "guard_signals", "sigterm_raises"]

_RETRY_SECONDS = 0.1


class SignalGuard:
    """The signal that ended a block, and its usual effect afterwards.

    Attributes:
        number: the signal that came, None before.
        is_blocked: set while the main thread is in a wait that only an exception ends.
    """

    def __init__(self) -> None:
        self.number: Optional[int] = None
        self.is_blocked = False

    def re_raise(self) -> None:
        """Raise the signal again, once its former handler is back in place."""
        if self.number is not None:
            signal.raise_signal(self.number)


@contextlib.contextmanager
def guard_signals(signals: Iterable[int], stop: Callable[[], None]) -> Iterator[SignalGuard]:
    """Within the block the first of ``signals`` calls ``stop`` in another thread; the second has its usual effect.

    A handler runs between any two steps of the main thread, which may hold any lock.  So the handler takes no lock,
    and only wakes the other thread.  Outside the main thread, and for a signal that is ignored, nothing changes.
    """
    guard, numbers = SignalGuard(), frozenset(signals)
    if threading.current_thread() is not threading.main_thread():
        yield guard
        return
    with _stop_thread(stop) as request_stop, _handlers(numbers, guard, request_stop), _unblocked(numbers, guard):
        yield guard


@contextlib.contextmanager
def sigterm_raises(cls: Type[BaseException]) -> Iterator[None]:
    """Within the block SIGTERM raises ``cls`` in the main thread.  In another thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def terminate(number: int, frame: Optional[FrameType]) -> NoReturn:
        raise cls

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _stop_thread(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Give a function for signal handlers that has a thread call ``stop``."""
    is_stop: queue.SimpleQueue[bool] = queue.SimpleQueue()  # the one queue whose put() may be called in a handler

    def wait() -> None:
        if is_stop.get():
            stop()

    thread = threading.Thread(target=wait, name="chatpool-stop", daemon=True)
    thread.start()
    try:
        yield lambda: is_stop.put(True)
    finally:
        is_stop.put(False)
        thread.join()


@contextlib.contextmanager
def _unblocked(numbers: Container[int], guard: SignalGuard) -> Iterator[None]:
    """Within the block a signal is handled also if the main thread blocks, say in a read of standard input.

    One that comes after CPython's last look for signals and before a system call blocks would be handled when that
    ends.  So another thread, which the C handler wakes up, interrupts the call, by a signal that means nothing else.
    """
    is_free = hasattr(signal, "SIGURG") and signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    former = signal.set_wakeup_fd(-1)
    if not is_free or former != -1:
        signal.set_wakeup_fd(former)
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    is_over = threading.Event()
    arguments = reader, numbers, guard, is_over
    thread = threading.Thread(target=_interrupt_calls, args=arguments, name="chatpool-signals", daemon=True)
    signal.signal(signal.SIGURG, lambda number, frame: None)  # a call that was interrupted in vain goes on
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        signal.set_wakeup_fd(-1)
        writer.close()
        thread.join()
        reader.close()
        signal.signal(signal.SIGURG, signal.SIG_DFL)


def _interrupt_calls(
    reader: socket.socket, numbers: Container[int], guard: SignalGuard, is_over: threading.Event
) -> None:
    came = reader.recv(1)
    while came and came[0] not in numbers:
        came = reader.recv(1)
    while came and guard.number is None and not is_over.wait(_RETRY_SECONDS):
        os.kill(os.getpid(), signal.SIGURG)  # the main thread gets it, unless it has blocked it


@contextlib.contextmanager
def _handlers(signals: Iterable[int], guard: SignalGuard, request_stop: Callable[[], None]) -> Iterator[None]:
    """Within the block the first of ``signals`` is handled; it puts the former handlers back."""
    former: Dict[int, Any] = {}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Optional[FrameType]) -> None:
        restore()
        guard.number = number
        if guard.is_blocked:
            raise KeyboardInterrupt
        request_stop()

    for number in signals:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            former[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
