"""Withdrawals: servers are told to stop making responses in the background that nobody waits for any more."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from typing import Deque, Dict, NamedTuple

from .._locks import new_lock, run_beside
from .._transport import CancelToken, Transport, TransportSettings
from ..config import Timeout
from ..types import ChatRequest
from .call import Call, CallOptions
from .endpoints import Endpoints

__all__ = ["Withdrawals"]

logger = logging.getLogger("chatpool")

_TIMEOUT = Timeout(connect=5.0, attempt=10.0, total=10.0)


class _Withdrawal(NamedTuple):
    endpoint: str
    settings: TransportSettings
    request: ChatRequest
    options: CallOptions


class Withdrawals:
    """Tells servers to stop making responses, once for each and without waiting for it.

    It has its own thread and connections, for the pool may be closing; the thread exists only while there is something
    to send, and ends with the process.

    Args:
        endpoints: the endpoints of the pool.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._lock = new_lock()
        self._waiting: Deque[_Withdrawal] = deque()
        self._is_running = False

    def withdraw(self, call: Call) -> None:
        """Have the response of a call that has ended withdrawn; a journal's stays, for a later run to go on with."""
        background = call.background
        if background is None or background.is_kept:
            return
        response, endpoint = background.take(), self._endpoints.of(call)
        if response is None:
            return
        withdrawal = _Withdrawal(endpoint.spec.name, endpoint.transport.settings, response.cancel, call.options)
        with self._lock:
            self._waiting.append(withdrawal)
            if self._is_running:
                return
            self._is_running = True
        thread = threading.Thread(target=self._send_all, name="chatpool-withdrawals", daemon=True)
        try:
            run_beside(thread.start)
        except RuntimeError:  # the interpreter is about to end
            self._is_running = False

    def _send_all(self) -> None:
        transports: Dict[str, Transport] = {}
        try:
            while True:
                with self._lock:
                    if not self._waiting:
                        self._is_running = False
                        return
                    withdrawal = self._waiting.popleft()
                try:
                    if withdrawal.endpoint not in transports:
                        transports[withdrawal.endpoint] = Transport(withdrawal.settings)
                    _send(transports[withdrawal.endpoint], withdrawal)
                except Exception as error:
                    with contextlib.suppress(Exception):  # of a handler of the log
                        logger.debug("a response in the background could not be cancelled: %s", error)
        finally:
            for transport in transports.values():
                transport.close()


def _send(transport: Transport, withdrawal: _Withdrawal) -> None:
    options = withdrawal.options
    transport.exchange(
        withdrawal.request, b"", timeout=_TIMEOUT, cancel=CancelToken(), headers=options.headers, query=options.query
    )
