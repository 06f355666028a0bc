"""One call: submitted, and waited for."""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any

from ..clock import interruptible
from ..engine import CallFuture
from ..errors import CallCancelledError, DeadlineExceededError
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
    core.engine.check_open()
    future = CallFuture()
    call = core.engine.make_call(request, how.singular, future, item=item)
    future.attach(call, core.engine)
    try:
        core.engine.submit([call])
    except BaseException:
        core.engine.repair()
        future.give_up()
        raise
    return future


def wait_for(core: Core, future: CallFuture, total: float) -> Any:
    """The future's result; the call is given up when ``total`` seconds are over, or the wait is interrupted.

    Raises:
        ChatPoolError: the call failed.
    """
    end = time.monotonic() + total + _GRACE
    try:
        while time.monotonic() < end:
            if future.wait(interruptible(end - time.monotonic())):
                return _result_of(future)
    except BaseException:
        if not future.done():  # it was not the call that raised
            core.engine.repair()
            future.give_up()
        raise
    future.give_up()
    raise DeadlineExceededError(
        "the call's time (timeout.total) ran out while it waited for a worker; "
        "raise max_workers or timeout=Timeout(total=...)"
    )


def _result_of(future: CallFuture) -> Any:
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        pass
    # Nobody else has the future: ``shutdown(cancel_futures=True)`` was called.  A caller that has made no future is
    # told so by an error of ours.
    raise CallCancelledError("the pool was shut down before the call was sent")
