"""Sends events to listeners.  A listener that raises is logged and dropped; the call goes on."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Dict, Iterable, List, Optional

from .._reentrancy import runs_user_code
from ..events import Event, Listener

__all__ = ["Dispatcher"]

logger = logging.getLogger("chatpool")


class Dispatcher:
    """Calls each listener with the events it wants.

    A listener that has an attribute ``kinds`` (a collection of event kinds) gets only those, any other gets all.
    """

    KINDS = ("queued", "sent", "retrying", "reasking", "falling_back", "succeeded", "failed")

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._subscriptions: List[_Subscription] = []
        self._by_kind: Dict[str, List[_Subscription]] = {kind: [] for kind in self.KINDS}
        for listener in listeners:
            self.add(listener)

    def add(self, listener: Listener) -> None:
        """Call ``listener`` too from now on.  Takes no lock: events may be emitted meanwhile.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(listener):
            raise TypeError(f"listeners must be callables that take an Event, got {listener!r}")
        self._subscribe(_Subscription(listener))

    def _subscribe(self, subscription: _Subscription) -> None:
        self._subscriptions.append(subscription)
        for kind, subscriptions in self._by_kind.items():
            if subscription.wants(kind):
                subscriptions.append(subscription)

    def extended(self, listeners: Iterable[Listener]) -> Dispatcher:
        """Return a dispatcher to these listeners and to ``listeners``."""
        other = Dispatcher()
        for subscription in self._subscriptions:
            other._subscribe(subscription)
        for listener in listeners:
            other.add(listener)
        return other

    def wants(self, kind: str) -> bool:
        """Return whether any listener wants events of this kind."""
        return bool(self._by_kind[kind])

    @runs_user_code
    def emit(self, event: Event) -> None:
        """Call the listeners; never raises."""
        for subscription in self._by_kind[event.kind]:
            if not subscription.active:
                continue
            try:
                subscription.listener(event)
            except BaseException as error:
                # A SystemExit of a listener ends no worker; Ctrl-C, which comes to the main thread only, passes.
                if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                    raise
                subscription.active = False
                with contextlib.suppress(Exception):  # of a handler of the log, which may be what has raised
                    logger.exception(
                        "listener %r raised on %r and is not called any more", subscription.listener, event
                    )


class _Subscription:
    """A listener, and whether it is still called; shared by all dispatchers of the listener."""

    __slots__ = ("active", "kinds", "listener")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.kinds: Optional[Iterable[str]] = getattr(listener, "kinds", None)
        self.active = True

    def wants(self, kind: str) -> bool:
        return self.kinds is None or kind in self.kinds
