"""Sends events to listeners.  A listener that raises is logged and dropped; the call goes on."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Dict, Iterable, List, Optional, Tuple

from .._reentrancy import runs_user_code
from ..events import Event, Listener

__all__ = ["Dispatcher"]

logger = logging.getLogger("chatpool")


class Dispatcher:
    """Calls each listener with the events it wants.

    A listener that has an attribute ``kinds`` (a collection of event kinds) gets only those, any other gets all.
    """

    KINDS = ("queued", "sent", "retrying", "reasking", "succeeded", "failed")

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._subscribe([_Subscription(listener) for listener in listeners])

    def _subscribe(self, subscriptions: List[_Subscription]) -> None:
        self._subscriptions = subscriptions
        self._by_kind: Dict[str, Tuple[_Subscription, ...]] = {
            kind: tuple(subscription for subscription in subscriptions if subscription.wants(kind))
            for kind in self.KINDS
        }

    def extended(self, listeners: Iterable[Listener]) -> Dispatcher:
        """Return a dispatcher to these listeners and to ``listeners``."""
        other = Dispatcher()
        other._subscribe(self._subscriptions + [_Subscription(listener) for listener in listeners])
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
