"""Signals that end a run in good order."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from types import FrameType
from typing import Any, Callable, Dict, Iterable, Iterator, Optional

__all__ = ["SignalGuard", "stopping_on"]


class SignalGuard:
    """Knows whether a signal has come, and lets it have its usual effect afterwards.

    Attributes:
        number: the signal that came, None before.
        is_blocked: set while the main thread waits for something that only an exception ends.
    """

    def __init__(self) -> None:
        self.number: Optional[int] = None
        self.is_blocked = False

    def let_it_through(self) -> None:
        """Do what the signal would have done, once its handler is back in place."""
        if self.number is not None:
            signal.raise_signal(self.number)


@contextlib.contextmanager
def stopping_on(signals: Iterable[int], stop: Callable[[], None]) -> Iterator[SignalGuard]:
    """Within the block the first of ``signals`` calls ``stop``, in another thread; the second has its usual effect.

    A handler runs between any two steps of the main thread, which may hold any lock: so it does nothing but hand on.
    Outside the main thread, and for a signal that is ignored, nothing changes.
    """
    stopper = SignalGuard()
    if threading.current_thread() is not threading.main_thread():
        yield stopper
        return
    orders: queue.SimpleQueue[bool] = queue.SimpleQueue()  # the one kind whose put() may be called in a handler
    before: Dict[int, Any] = {}

    def handle(number: int, frame: Optional[FrameType]) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        stopper.number = number
        if stopper.is_blocked:
            raise KeyboardInterrupt
        orders.put(True)

    def wait() -> None:
        if orders.get():
            stop()

    waiter = threading.Thread(target=wait, name="chatpool-stop", daemon=True)
    waiter.start()
    for number in signals:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, handle)
    try:
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        orders.put(False)
        waiter.join()
