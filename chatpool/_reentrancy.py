"""Detect calls from a finalizer or a signal handler that interrupted the package's own work.

CPython runs both between any two instructions of a thread, also of a thread that holds a lock or that all others wait
for.  Code that waits there may wait for itself.  So public methods ask :func:`is_reentrant` before they wait: another
thread then does what closes or cancels something, and a new call is refused.

The package's own frames are told from the caller's by their modules.  A function that runs the user's code (a
listener, a callback, an iterator), with no lock held, is marked with :func:`runs_user_code`: a call from there is an
ordinary call.
"""

from __future__ import annotations

import _thread
import functools
import logging
import sys
import threading
from types import CodeType, FrameType
from typing import Any, Callable, Dict, TypeVar, cast

__all__ = ["defer", "holds_locks", "is_reentrant", "runs_user_code", "thread", "waits_for_calls"]

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("chatpool")

_PACKAGE = __name__.partition(".")[0] + "."
# They call the rest as a user does, or (parsing) are no more than a way to the user's functions.
_PARSING = tuple(f"_structured.{name}." for name in ("annotations", "from_json", "json_schema", "json_text", "parse"))
_CALLERS = tuple(_PACKAGE + name for name in ("batch.", "cli.", "contrib.", "local.", "testing.", *_PARSING))
_FUTURES = "concurrent.futures._base"  # whose locks a future of ours is made of


class _Thread(threading.local):
    """State of the running thread.

    Attributes:
        busy: whether one of the package's functions that may hold a lock may be running in it.  It can be wrong after
            an interruption; then :func:`is_reentrant` corrects it.
    """

    busy = False


thread = _Thread()

_user_code: Dict[int, CodeType] = {}  # by id: to hash a code object takes a while, and changes in CPython 3.11


def runs_user_code(function: F) -> F:
    """Mark a function that runs the user's code and holds no lock."""
    _user_code[id(function.__code__)] = function.__code__
    return function


def is_reentrant(*, own_frames: bool = False) -> bool:
    """Return whether the caller's caller was called by a finalizer or a signal handler that interrupted the package.

    Args:
        own_frames: whether the caller was itself called by other functions of the package, which are passed over.
    """
    if _is_in_hub():
        return True
    frame = sys._getframe(1).f_back  # None for a generator that the end of the interpreter closes
    while own_frames and frame is not None and _is_ours(frame):
        frame = frame.f_back
    while frame is not None and not _is_ours(frame):
        frame = frame.f_back
    if frame is None:
        thread.busy = False
        return False
    return not _runs_user_code(frame)


def _is_in_hub() -> bool:
    """Return whether this is gevent's event loop, which runs signal handlers and in which nothing can wait."""
    hub = sys.modules.get("gevent.hub")
    return hub is not None and isinstance(hub.getcurrent(), hub.Hub)


def _is_ours(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__") or ""
    return (module.startswith(_PACKAGE) and not f"{module}.".startswith(_CALLERS)) or module == _FUTURES


def _runs_user_code(frame: FrameType) -> bool:
    code = frame.f_code
    if code.co_name == "_invoke_callbacks" and frame.f_globals.get("__name__") == _FUTURES:
        return True
    return id(code) in _user_code


def holds_locks(function: F) -> F:
    """Mark the thread as busy while ``function``, which takes locks, runs: a signal handler may interrupt it."""

    @functools.wraps(function)
    def marked(*args: Any, **keywords: Any) -> Any:
        busy = thread.busy
        thread.busy = True
        try:
            return function(*args, **keywords)
        finally:
            thread.busy = busy

    return cast(F, marked)


def waits_for_calls(function: F) -> F:
    """Make ``function``, which makes calls or waits for some, refuse where it could wait for itself.

    It then raises RuntimeError: a finalizer or a signal handler that interrupted the package has called it.
    """
    guarded = holds_locks(function)

    @functools.wraps(function)
    def checked(*args: Any, **keywords: Any) -> Any:
        if thread.busy:
            _refuse_reentrant_call()
        return guarded(*args, **keywords)

    return cast(F, checked)


def _refuse_reentrant_call() -> None:
    if is_reentrant(own_frames=True):
        raise RuntimeError(
            "a finalizer or a signal handler that interrupted chatpool's own work in this thread cannot make calls or "
            "wait for them, which could take for ever; have it set a flag, and make the call afterwards"
        )


def defer(function: Callable[..., object], *args: Any) -> None:
    """Call ``function`` in another thread, as soon as possible, without taking a lock.

    ``threading.Thread`` takes locks that this thread may hold.
    """
    try:
        _thread.start_new_thread(_run, (function, args))
    except RuntimeError:  # no thread can be started, or the process is about to end
        logger.warning("%s could not be called in a thread of its own", getattr(function, "__qualname__", function))


def _run(function: Callable[..., object], args: Any) -> None:
    try:
        function(*args)
    except BaseException:
        logger.exception("%s failed", getattr(function, "__qualname__", function))
