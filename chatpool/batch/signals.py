"""Signals that end a run in good order."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from types import FrameType
from typing import Any, Callable, Dict, Iterable, Iterator, NoReturn, Optional, Type

__all__ = ["SignalGuard", "guard_signals", "sigterm_raises"]


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
    guard = SignalGuard()
    if threading.current_thread() is not threading.main_thread():
        yield guard
        return
    with _stop_thread(stop) as request_stop, _handlers(signals, guard, request_stop):
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
