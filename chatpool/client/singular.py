"""One call: submitted, and waited for."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from ..engine import CallFuture, CallOptions
from ..errors import DeadlineExceededError
from ..types import ChatRequest
from .call_settings import CallSettings
from .core import Core

__all__ = ["send", "wait_for"]

_GRACE = 0.1  # seconds in which a call that is cut at its total time can say so itself


def send(core: Core, item: Any, request: ChatRequest, how: CallSettings) -> CallFuture:
    """Submit one call; its ``timeout.total`` counts from now.

    Raises:
        PoolClosedError: the pool is closed.
    """
    future = CallFuture()
    options = CallOptions(how.timeout, how.retrier, core.dispatcher, how.headers, how.query, singular=True)
    call = core.engine.make_call(request, options, future, item=item)
    future.attach(call, core.engine.cancel)
    core.engine.submit([call])
    return future


def wait_for(core: Core, future: CallFuture, total: float) -> Any:
    """The future's result; the call is given up when ``total`` seconds are over, or the wait is interrupted.

    Raises:
        ChatPoolError: the call failed.
    """
    try:
        if concurrent.futures.wait([future], total + _GRACE).done:
            return future.result()
        raise DeadlineExceededError(
            "the call's time (timeout.total) ran out while it waited for a worker; "
            "raise max_workers or timeout=Timeout(total=...)"
        )
    except BaseException:
        if not future.done():
            core.engine.repair()
        raise
    finally:
        future.cancel()
