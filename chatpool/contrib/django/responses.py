"""``StreamingChatResponse``: answers to a browser as server-sent events, while the model writes them."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from django.core.signals import request_started
from django.dispatch import receiver
from django.http import HttpRequest, StreamingHttpResponse

from ... import (
    APIConnectionError,
    APITimeoutError,
    BudgetExceededError,
    CallCancelledError,
    ChatChunk,
    ChatPool,
    ChatPoolError,
    ChatStream,
    DeadlineExceededError,
    Outcome,
    PoolClosedError,
    RateLimitError,
    TruncatedStreamError,
)
from ...config import positive_seconds
from ..asgi import closing
from .pools import pool as default_pool

__all__ = ["StreamingChatResponse", "sse"]

logger = logging.getLogger("chatpool")

Encode = Callable[[Optional[str], Mapping[str, Any]], Union[str, bytes]]
OnFinish = Callable[[Outcome[Any]], Any]

_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
    "Content-Encoding": "identity",  # what compresses a response holds its parts back
}
_is_head: ContextVar[bool] = ContextVar("chatpool_is_head", default=False)


class _Failure(NamedTuple):
    """HTTP status of a failed call, and a sentence for visitors: a server's own words are not for them."""

    status: int
    message: str


_FAILURES: Tuple[Tuple[Any, _Failure], ...] = (
    (RateLimitError, _Failure(HTTPStatus.SERVICE_UNAVAILABLE, "The model is busy; try again later.")),
    (
        BudgetExceededError,
        _Failure(HTTPStatus.SERVICE_UNAVAILABLE, "No further questions can be answered at the moment."),
    ),
    (PoolClosedError, _Failure(HTTPStatus.SERVICE_UNAVAILABLE, "The site is about to restart; try again.")),
    (CallCancelledError, _Failure(HTTPStatus.SERVICE_UNAVAILABLE, "The answer was given up; try again.")),
    (
        (DeadlineExceededError, APITimeoutError),
        _Failure(HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time."),
    ),
    (TruncatedStreamError, _Failure(HTTPStatus.BAD_GATEWAY, "The answer broke off; try again.")),
    (APIConnectionError, _Failure(HTTPStatus.BAD_GATEWAY, "The model cannot be reached; try again later.")),
    (ChatPoolError, _Failure(HTTPStatus.BAD_GATEWAY, "The question could not be answered.")),
)


def sse(event: Optional[str], data: Mapping[str, Any]) -> str:
    """Return a server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Args:
        event: ``None`` for a piece of text; ``"done"``, ``"error"``, ``"end"``; or ``"heartbeat"``, which is a comment
            that browsers skip.
        data: its content, for JSON.
    """
    if event == "heartbeat":
        return ": keep-alive\n\n"
    name = "" if event is None else f"event: {event}\n"
    return f"{name}data: {json.dumps(data)}\n\n"


class StreamingChatResponse(StreamingHttpResponse):
    r"""Answers as server-sent events, under WSGI and ASGI; when the visitor leaves, the calls end.

    A piece of text is ``data: {"index": 0, "text": "..."}``.  Each answer ends with ``event: done`` and its ``index``,
    ``finish_reason`` and ``usage``; or with ``event: error`` and its ``index``, the error's class as ``code``, and a
    ``message`` for visitors.  ``event: end`` comes last.

    Args:
        source: a :class:`~chatpool.ChatStream`; an item as ``pool.stream`` takes it (a str, a list of messages, a
            dict); or a list of items, which are answered side by side.
        pool: answers items. Default: that of the alias ``default``.
        heartbeat: seconds without a piece after which a comment is sent: only what is written to tells that its visitor
            has left, so that it takes twice this long at most to notice. Default 5.
        encode: makes the bytes of an event, in place of :func:`sse`, with its arguments.
        on_finish: called with the :class:`~chatpool.Outcome` of each answer, once, when it has ended; for a visitor who
            left its ``error`` is a :class:`~chatpool.CallCancelledError` with the ``text`` so far.
        wait_first: whether to wait for the first piece before the response is made, so that an answer that fails has a
            status of its own (502, 503 or 504) and JSON. For one item only; and not in an ``async def`` view, where it
            would stop the event loop.
        options: of ``StreamingHttpResponse``.

    A request for the headers only (HEAD) makes no call.

    Raises:
        TypeError, ConfigurationError: an argument that cannot work; the message names it.
    """

    def __init__(
        self,
        source: Any,
        *,
        pool: Optional[ChatPool] = None,
        heartbeat: float = 5.0,
        encode: Encode = sse,
        on_finish: Optional[OnFinish] = None,
        wait_first: bool = False,
        **options: Any,
    ) -> None:
        positive_seconds("heartbeat", heartbeat)
        for name, function in (("encode", encode), ("on_finish", on_finish)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, got {function!r}")
        answers = _answers(source, default_pool if pool is None else pool, heartbeat)
        self._body = _Body(answers, encode, on_finish)
        headers = dict(options.pop("headers", None) or {})
        failed = None
        if wait_first:
            if not isinstance(answers, _OneAnswer):
                raise TypeError("wait_first= is for one item: several have no status in common")
            failed = None if _is_head.get() else answers.wait_first()
        if failed is not None:
            self._body.finish(failed)
            options.update(status=_failure_of(failed).status, content_type="application/json")
            super().__init__([json.dumps(_visible(failed))], headers={**_retry_after(failed), **headers}, **options)
            return
        options.setdefault("content_type", "text/event-stream")
        super().__init__(self._body, headers={**_HEADERS, **headers}, **options)

    def __iter__(self) -> Iterator[bytes]:
        """Iterate under WSGI."""
        return iter(()) if self._is_for_head() else super().__iter__()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate under ASGI: the answers are read in a thread of their own, and closed there."""
        if self.is_async:  # a middleware has wrapped them
            return super().__aiter__()  # type: ignore[no-any-return]
        return closing(_closing_too(iter(()) if self._is_for_head() else self.streaming_content, self._body))

    def _is_for_head(self) -> bool:
        """Return whether only the headers are asked for: Django has the response close its request."""
        closed = [getattr(closer, "__self__", None) for closer in self._resource_closers]
        is_for_head = any(isinstance(each, HttpRequest) and each.method == "HEAD" for each in closed)
        if is_for_head:
            self._body.skip()
        return is_for_head


def _closing_too(parts: Iterator[bytes], body: _Body) -> Iterator[bytes]:
    """Iterate over ``parts``, which may be wrapped by middleware, and close the body at the end."""
    try:
        yield from parts
    finally:
        body.close()


Part = Tuple[Optional[int], Union[ChatChunk, Outcome[Any], None]]


class _OneAnswer:
    """Parts of the answer of one stream: pairs of 0 and a chunk, in the end 0 and the outcome; None for silence.

    Args:
        stream: not read yet.
        heartbeat_seconds: of silence.

    Attributes:
        items: what was asked, here one item.
    """

    def __init__(self, stream: ChatStream, item: Any, heartbeat_seconds: float) -> None:
        self.items: Sequence[Any] = [item]
        self._stream = stream
        self._heartbeat_seconds = heartbeat_seconds
        self._first: Optional[ChatChunk] = None

    def wait_first(self) -> Optional[Outcome[Any]]:
        """Wait for the first chunk; return the outcome if there is none because of an error."""
        try:
            self._first = next(self._stream, None)
        except ChatPoolError as error:
            return self._failed(error)
        return None

    def __iter__(self) -> Iterator[Part]:
        if self._first is not None:
            yield 0, self._first
        try:
            for chunk in self._stream.events(self._heartbeat_seconds):
                yield 0, chunk
        except ChatPoolError as error:
            yield 0, self._failed(error)
            return
        yield 0, self._stream.outcome

    def _failed(self, error: ChatPoolError) -> Outcome[Any]:
        outcome = self._stream.outcome
        if outcome is None or outcome.error is not error:  # it was not the call that failed: its pool is closed
            outcome = Outcome(0, self.items[0], error=error)
        return outcome

    def close(self) -> None:
        self._stream.close()


class _SeveralAnswers:
    """The same of several items, answered side by side, each with its index."""

    def __init__(self, pool: ChatPool, items: Sequence[Any], heartbeat_seconds: float) -> None:
        self.items = items
        self._parts: Any = pool.stream_many(items, heartbeat=heartbeat_seconds, progress=False)

    def __iter__(self) -> Iterator[Part]:
        return self._parts  # type: ignore[no-any-return]

    def close(self) -> None:
        self._parts.close()


def _answers(source: Any, pool: ChatPool, heartbeat_seconds: float) -> Union[_OneAnswer, _SeveralAnswers]:
    if isinstance(source, ChatStream):
        return _OneAnswer(source, None, heartbeat_seconds)
    if isinstance(source, (list, tuple)) and not _is_conversation(source):
        return _SeveralAnswers(pool, source, heartbeat_seconds)
    return _OneAnswer(pool.stream(source), source, heartbeat_seconds)


def _is_conversation(items: Sequence[Any]) -> bool:
    return bool(items) and isinstance(items[0], Mapping) and "role" in items[0]


class _Body:
    """Iterator over encoded events, which ends its calls when it is closed, from whatever thread.

    Args:
        answers: the parts of the answers.
        encode: makes the bytes of an event.
        on_finish: called with each outcome.
    """

    def __init__(
        self, answers: Union[_OneAnswer, _SeveralAnswers], encode: Encode, on_finish: Optional[OnFinish]
    ) -> None:
        self._answers = answers
        self._encode = encode
        self._on_finish = on_finish
        self._texts: Dict[int, List[str]] = {index: [] for index in range(len(answers.items))}  # of those not ended
        self._events = self._encoded()
        self._lock = threading.Lock()
        self._is_left = False

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> Union[str, bytes]:
        with self._lock:
            if self._is_left:
                self._leave()
                raise StopIteration
            return next(self._events)

    def _encoded(self) -> Iterator[Union[str, bytes]]:
        for index, part in self._answers:
            if index is None or part is None:
                yield self._encode("heartbeat", {})
            elif isinstance(part, Outcome):
                self.finish(part)
                yield self._encode("done" if part.ok else "error", _visible(part))
            elif part.text:
                self._texts[index].append(part.text)
                yield self._encode(None, {"index": index, "text": part.text})
        yield self._encode("end", {})

    def finish(self, outcome: Outcome[Any]) -> None:
        """Say that an answer has ended."""
        self._texts.pop(outcome.index, None)
        if self._on_finish is not None:
            try:
                self._on_finish(outcome)
            except Exception:  # the visitor still gets the other answers
                logger.exception("on_finish of a StreamingChatResponse failed")

    def close(self) -> None:
        """End what has not ended; while another thread waits for an event, it is that one that does so then."""
        self._is_left = True
        if self._lock.acquire(blocking=False):
            try:
                self._leave()
            finally:
                self._lock.release()

    def skip(self) -> None:
        """Make no call, and report none."""
        self._texts.clear()
        self._is_left = True

    def _leave(self) -> None:
        self._events.close()  # type: ignore[attr-defined]  # a generator
        self._answers.close()
        for index, texts in list(self._texts.items()):
            error = CallCancelledError("the visitor left before the answer was whole")
            error.text = "".join(texts)
            self.finish(Outcome(index, self._answers.items[index], error=error))


def _visible(outcome: Outcome[Any]) -> Dict[str, Any]:
    """Return what a visitor may know of an answer that has ended."""
    if outcome.error is not None:
        code, message = type(outcome.error).__name__, _failure_of(outcome).message
        return {"index": outcome.index, "code": code, "message": message}
    usage = None if outcome.usage is None else dataclasses.asdict(outcome.usage)
    if usage is not None:
        del usage["cost"]
    reason = getattr(outcome.value, "finish_reason", None)
    return {"index": outcome.index, "finish_reason": reason, "usage": usage}


def _failure_of(outcome: Outcome[Any]) -> _Failure:
    return next(failure for cls, failure in _FAILURES if isinstance(outcome.error, cls))


def _retry_after(outcome: Outcome[Any]) -> Dict[str, str]:
    """Return the header that says when to try again, if the server has said so."""
    seconds = getattr(outcome.error, "retry_after", None)
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


@receiver(request_started, dispatch_uid="chatpool.contrib.django")
def _note_method(
    environ: Optional[Mapping[str, Any]] = None, scope: Optional[Mapping[str, Any]] = None, **_: Any
) -> None:
    """Note whether only the headers are asked for, for responses that wait before they are made."""
    method = (environ or {}).get("REQUEST_METHOD") or (scope or {}).get("method")
    _is_head.set(method == "HEAD")
