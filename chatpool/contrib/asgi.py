"""Streams under ASGI servers: a blocking generator as an asynchronous one, which ends when its visitor leaves.

Needs no framework: Starlette, FastAPI, Django (5.0 and newer) and Litestar take an asynchronous generator as a body.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncGenerator, Iterator, TypeVar

__all__ = ["closing"]

T = TypeVar("T")

logger = logging.getLogger("chatpool")

_END: Any = object()


def closing(generator: Iterator[T]) -> AsyncGenerator[T, None]:
    """Iterate over a blocking generator in a thread of its own, and close it there, whatever ends the iteration.

    A server cancels what makes a response when its visitor leaves, but cannot interrupt the generator's thread: it is
    closed as soon as it yields the next time. Iterate over ``stream.events(heartbeat=1)`` in it, so that this takes a
    second at most, also while the model is silent.

    The thread starts with the iteration and ends with it. It is none of the event loop's or AnyIO's, so that streams
    take no place of other requests there. The generator has the caller's context variables.

    Args:
        generator: a generator, or another iterator with a method ``close``, such as a :class:`~chatpool.ChatStream`.

    Returns:
        An asynchronous generator, for one asyncio event loop. What the generator raises, it raises; what it raises
        while it is closed, when nobody is left to hear of it, is logged.

    Raises:
        TypeError: ``generator`` has no ``close``, or is asynchronous already.
    """
    if not callable(getattr(generator, "close", None)) or not hasattr(generator, "__next__"):
        raise TypeError(
            f"closing() takes a generator, or an iterator with a method close, got {type(generator).__name__}; "
            "an asynchronous generator needs no closing()"
        )
    return _iterate(generator)


async def _iterate(generator: Iterator[T]) -> AsyncGenerator[T, None]:
    loop = asyncio.get_running_loop()
    in_context = contextvars.copy_context().run
    thread = ThreadPoolExecutor(1, thread_name_prefix="chatpool-asgi")
    try:
        while True:
            chunk = await loop.run_in_executor(thread, in_context, _next, generator)
            if chunk is _END:
                return
            yield chunk
    finally:
        # Nothing is awaited here: a cancelled task may be cancelled again, and a finalizer cannot wait.
        thread.submit(in_context, _close, generator)
        thread.shutdown(wait=False)


def _next(generator: Iterator[T]) -> T:
    return next(generator, _END)  # StopIteration cannot pass through a future


def _close(generator: Any) -> None:
    try:
        generator.close()
    except Exception:
        logger.exception("The generator of a response raised an error while it was closed")
