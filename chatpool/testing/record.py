"""What happened at a server, and waiting until something has."""

from __future__ import annotations

import threading
from typing import Callable, List, Optional

from .received import RawRequest, ReceivedRequest

__all__ = ["Record"]


class Record:
    """Counts and keeps what a server sees.  Every change wakes those who wait for one.

    Attributes:
        condition: guards everything here; its lock may be taken again by the thread that has it.
        requests: the requests, in the order of arrival.
        accepted: connections accepted so far.
        open: connections open now.
        in_flight: requests that have arrived and whose answer is not yet sent.
        max_in_flight: the highest ``in_flight`` so far.
        errors: what was raised by functions that the server was given.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.requests: List[ReceivedRequest] = []
        self.accepted = 0
        self.open = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.errors: List[BaseException] = []

    def connected(self) -> int:
        """A connection was accepted; its number."""
        with self.condition:
            self.accepted += 1
            self.open += 1
            self.condition.notify_all()
            return self.accepted

    def disconnected(self) -> None:
        """A connection has ended."""
        with self.condition:
            self.open -= 1
            self.condition.notify_all()

    def arrived(self, raw: RawRequest, *, connection: int, time: float) -> ReceivedRequest:
        """A request has arrived: give it its number."""
        with self.condition:
            request = ReceivedRequest(raw, number=len(self.requests), connection=connection, time=time)
            self.requests.append(request)
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self.condition.notify_all()
            return request

    def finished(self) -> None:
        """A request is no longer in flight."""
        with self.condition:
            self.in_flight -= 1
            self.condition.notify_all()

    def failed(self, error: BaseException) -> None:
        """A function that the server was given has raised ``error``."""
        with self.condition:
            self.errors.append(error)
            self.condition.notify_all()

    def wait_until(self, predicate: Callable[[], object], timeout: float, what: Optional[str] = None) -> None:
        """Wait until ``predicate()`` is true; it is asked after every change.

        Raises:
            TimeoutError: it was not within ``timeout`` seconds.
        """
        with self.condition:
            if not self.condition.wait_for(predicate, timeout):
                raise TimeoutError(
                    f"waited {timeout:g} s for {what or 'a condition'}; so far {len(self.requests)} requests on "
                    f"{self.accepted} connections, {self.in_flight} in flight, {self.open} connections open"
                )
