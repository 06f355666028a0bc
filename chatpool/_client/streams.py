"""Streams: one answer chunk by chunk (:class:`ChatStream`), or many in one sequence (:class:`Streams`).

A single stream is read by the caller's thread, from a worker's connection.  In a run, workers read the streams
themselves and queue the chunks.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import weakref
from collections import deque
from functools import partial
from typing import Any, Callable, Deque, Iterator, List, Mapping, Optional, Tuple, Union

from .._engine import Call, CallOptions, Engine, StreamHandoff, no_worker_in_time
from .._engine.call import DONE
from .._locks import Condition
from .._reentrancy import defer, holds_locks, is_reentrant, waits_for_calls
from .._transport import Cancelled
from ..clock import interruptible
from ..config import positive_seconds
from ..errors import CallCancelledError, ChatPoolError
from ..types import ChatChunk, ChatCompletion, ChatRequest, Outcome
from .run import Run, RunIterator

__all__ = ["GRACE_SECONDS", "ChatStream", "StreamRun", "Streams"]

GRACE_SECONDS = 0.1  # in which a call that is cut at its total time can raise the error itself

_MAX_QUEUED_CHUNKS = 1024

_NOTHING_YET: Any = object()  # in the place of a chunk


class ChatStream(Iterator[ChatChunk]):
    """A model's answer as it is being written: an iterator of :class:`~chatpool.ChatChunk`.

    Made by :meth:`ChatPool.stream`.  Nothing is sent before the first chunk is asked for; from then on the stream
    holds one of the pool's worker slots, until it has ended or :meth:`close` is called, which leaving the ``with``
    block, dropping the last reference, and an exception in the iteration do as well.  Closing it early closes its
    connection at once.

    Any thread may read on, but not two at the same time.

    Raises:
        TruncatedStreamError: while iterating, when it breaks off or stalls after its first chunk; ``.text`` has what
            had come. Until the first chunk the call is retried as any other, and raises what :meth:`ChatPool.chat`
            would.
        DeadlineExceededError: while iterating, when ``timeout.total`` seconds have been spent waiting for the server.
        RuntimeError: two threads read at the same time, or this thread's open streams take all slots of the pool.
    """

    def __init__(self, engine: Engine, item: Any, request: ChatRequest, options: CallOptions) -> None:
        self._make_call: Callable[[_StreamSink], Call] = lambda sink: engine.make_call(
            request, options, sink, item=item
        )
        self._engine = engine
        self._begins_by = 0.0
        self._has_begun = False
        self._waited = False  # a moment ago
        self._reading = threading.Lock()
        self._texts: List[str] = []
        self._call: Optional[Call] = None
        self._sink: Optional[_StreamSink] = None
        self._over = False
        self._finalizer: Optional[weakref.finalize[Any, Any]] = None
        self._closed_by = 0  # the id of the thread that closed it before its end

    def __iter__(self) -> ChatStream:
        return self

    def __next__(self) -> ChatChunk:
        chunk = self._take(None)
        if chunk is None:
            raise StopIteration
        return chunk  # type: ignore[no-any-return]  # without a heartbeat it is nothing else

    def events(self, heartbeat: Optional[float] = None) -> Iterator[Optional[ChatChunk]]:
        """Iterate over the chunks, with a None in between whenever nothing has come for a while.

        For programs that write on to somebody else: only a server that writes something finds out that its visitor has
        left.  Leaving the iterator early closes the stream.  No thread is started for it: the worker whose slot the
        stream holds reads, and this thread waits for it.

        Args:
            heartbeat: seconds until a None, also before the first chunk; None for chunks only.

        Raises:
            ConfigurationError, TypeError: ``heartbeat`` is no number of seconds greater than 0.
            ChatPoolError: while iterating, as the stream itself.
        """
        return self._events(None if heartbeat is None else positive_seconds("heartbeat", heartbeat))

    def _events(self, heartbeat_seconds: Optional[float]) -> Iterator[Optional[ChatChunk]]:
        # An iterator may outlive the names of this module, at the end of the process: the pool has been closed by then.
        process_ends = sys.is_finalizing
        try:
            chunk = self._take(heartbeat_seconds)
            while chunk is not None:
                try:
                    yield None if chunk is _NOTHING_YET else chunk
                except RuntimeError:  # the caller's own
                    self._close(reentrant=is_reentrant())
                    raise
                chunk = self._take(heartbeat_seconds)
        except RuntimeError:  # refused: another thread may be reading the stream.  All others have closed it.
            raise
        except BaseException:
            if not process_ends():
                self._close(reentrant=is_reentrant())
            raise

    @waits_for_calls
    def _take(self, wait_seconds: Optional[float]) -> Any:
        """Return the next chunk, None at the end; ``_NOTHING_YET`` if none has come within ``wait_seconds``."""
        if not self._reading.acquire(blocking=False):
            raise RuntimeError("another thread is reading this stream")
        if self._sink is None and not self._over:
            self._check_slots()
        try:
            chunk = self._next(wait_seconds)
        except BaseException:
            self._close(reentrant=False)
            raise
        finally:
            self._reading.release()
        if chunk is not None and chunk is not _NOTHING_YET:
            self._texts.append(chunk.text)
        return chunk

    @property
    def text(self) -> str:
        """The text of all chunks that have been read."""
        if len(self._texts) > 1:
            self._texts[:] = ["".join(self._texts)]
        return self._texts[0] if self._texts else ""

    @property
    def completion(self) -> ChatCompletion:
        """The whole answer, as :meth:`ChatPool.chat` would have returned it; there once the stream has ended.

        Raises:
            ChatPoolError: the error that ended the stream.
            RuntimeError: it has not been read to its end.
        """
        outcome = None if self._sink is None else self._sink.outcome
        if outcome is not None and outcome.error is not None:
            raise outcome.error
        if outcome is None or not isinstance(outcome.value, ChatCompletion):
            raise RuntimeError("the stream has not been read to its end; what has come so far is in .text")
        return outcome.value

    @property
    def outcome(self) -> Optional[Outcome[ChatCompletion]]:
        """Answer or error that ended the stream, with its attempts; None before the end, or if it was closed early."""
        return None if self._sink is None or self._closed_by else self._sink.outcome

    def close(self) -> None:
        """Stop reading: the connection is closed and the slot free.  Nothing happens once the stream has ended.

        In a finalizer or a signal handler that interrupted the pool's own work, both happen a moment later.
        """
        self._close(reentrant=is_reentrant())

    def _close(self, *, reentrant: bool) -> None:
        if not self._over and (self._sink is None or self._sink.outcome is None):
            self._closed_by = threading.get_ident()
        self._over = True
        # Only now: a stream that is being opened at this moment either is found here or finds itself closed.
        sink, call = self._sink, self._call
        if call is not None:
            self._engine.streams.forget_opening(call)
        if sink is None or call is None or sink.outcome is not None:
            return
        handoff = sink.handoff
        end = partial(self._engine.cancel, call) if handoff is None else handoff.abandon
        if reentrant and (handoff is None or handoff.forwards):
            defer(end)
        else:
            end()
        if not reentrant:
            self._wait_for_end(sink)

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(reentrant=is_reentrant())

    def _next(self, wait_seconds: Optional[float]) -> Any:
        if self._over:
            self._refuse_if_closed_elsewhere()
            return None
        sink = self._open(wait_seconds) if self._sink is None else self._sink
        if not self._has_begun and not self._begin(sink, wait_seconds):
            return _NOTHING_YET
        chunk = None
        handoff = sink.handoff if sink.outcome is None else None  # a forked child has both
        if handoff is not None and (wait_seconds is not None or sink.forwarded):
            sink.forwarded = True
            handoff.forward()
        if sink.forwarded:
            chunk = sink.take(wait_seconds)
        elif handoff is not None:
            with contextlib.suppress(Cancelled):
                chunk = handoff.next()
        if chunk is None:
            self._end(sink)
        return chunk

    def _refuse_if_closed_elsewhere(self) -> None:
        """Raise if another thread has closed the stream: to this one it must not look as if it had ended."""
        if self._closed_by not in (0, threading.get_ident()):
            raise CallCancelledError("the stream was closed by another thread while it was read")

    def _check_slots(self) -> None:
        """Check before anything is sent, so that the stream can still be read once a slot is free."""
        try:
            self._engine.check_slots()
        except RuntimeError:
            self._reading.release()
            raise

    def _open(self, wait_seconds: Optional[float]) -> _StreamSink:
        """Send the request, and wait for the first chunk or the end."""
        sink = _StreamSink(threading.get_ident())
        self._call = call = self._make_call(sink)
        self._sink = sink
        self._begins_by = time.monotonic() + call.deadline().at - self._engine.clock.now() + GRACE_SECONDS
        if self._over:  # closed a moment ago
            self._engine.cancel(call)
            return sink
        with self._cancelling(call), self._engine.waiting():
            self._engine.submit_stream(call)
            sink.wait(self._until_begin(wait_seconds), for_end=False)
        self._waited = True
        return sink

    def _until_begin(self, wait_seconds: Optional[float]) -> float:
        left = self._begins_by - time.monotonic()
        return left if wait_seconds is None else min(wait_seconds, left)

    @contextlib.contextmanager
    def _cancelling(self, call: Call) -> Iterator[None]:
        """Return a context that cancels the call if it is left by an exception."""
        try:
            yield
        except BaseException:
            self._engine.resync()
            self._engine.cancel(call)
            raise

    def _begin(self, sink: _StreamSink, wait_seconds: Optional[float]) -> bool:
        """Note that the stream has begun or ended; return False if neither is so within ``wait_seconds``."""
        call = self._call
        if call is None:  # another thread has closed it
            return True
        if not self._waited:
            with self._cancelling(call), self._engine.streams.waiting(math.inf):
                sink.wait(self._until_begin(wait_seconds), for_end=False)
        self._waited = False
        if not sink.begun and time.monotonic() < self._begins_by:
            self._engine.streams.note_opening(call)
            if self._over:  # closed by another thread meanwhile
                self._engine.streams.forget_opening(call)
            return False
        self._engine.streams.forget_opening(call)
        if not sink.begun:
            self._engine.cancel(call)
            raise no_worker_in_time(call.deadline().limit)
        self._has_begun = True
        handoff = sink.handoff
        if handoff is not None:
            # For a stream that is dropped without being closed.  It takes no lock, and has no reference to this object.
            # One whose worker reads has an iterator that closes it.
            self._finalizer = weakref.finalize(self, handoff.gate.abandon)
            self._finalizer.atexit = False
        return True

    def _wait_for_end(self, sink: _StreamSink) -> None:
        sink.wait(None, for_end=True)
        self._call = None
        if self._finalizer is not None:
            self._finalizer.detach()

    def _end(self, sink: _StreamSink) -> None:
        """Wait for the end of the stream, and raise its error if it has one."""
        self._wait_for_end(sink)
        self._refuse_if_closed_elsewhere()
        self._over = True
        if sink.outcome is not None and sink.outcome.error is not None and not self._closed_by:
            raise sink.outcome.error

    def __repr__(self) -> str:
        outcome = None if self._sink is None else self._sink.outcome
        state = "not sent" if self._sink is None else "open" if outcome is None else "ended"
        return f"<ChatStream {state}, {len(self.text)} characters so far>"


class _StreamSink:
    """Takes an open stream from the engine, its chunks if its worker forwards them, and in the end its outcome.

    Args:
        thread: the id of the thread that will read it.

    Attributes:
        handoff: the open stream, None before it has begun and after its end.
        outcome: None before the end.
        forwarded: True if the chunks come here.
    """

    run_id: Optional[int] = None

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._changed = Condition()
        self._chunks: Deque[ChatChunk] = deque()
        self.handoff: Optional[StreamHandoff] = None
        self.outcome: Optional[Outcome[Any]] = None
        self.forwarded = False

    @property
    def begun(self) -> bool:
        """True once the stream has begun or ended."""
        return self.handoff is not None or self.outcome is not None

    def take_chunk(self, call: Call, chunk: ChatChunk) -> None:
        """Queue a chunk.  There is no bound: the consumer keeps the text of all chunks anyway."""
        with self._changed:
            self._chunks.append(chunk)
            self._changed.notify_all()

    @holds_locks
    def take(self, seconds: Optional[float]) -> Any:
        """Return the next chunk, None at the end; ``_NOTHING_YET`` if none has come within ``seconds``."""
        ends_at = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not self._chunks and self.outcome is None:
                left = None if ends_at is None else ends_at - time.monotonic()
                if left is not None and left <= 0:
                    return _NOTHING_YET
                self._changed.wait(interruptible(left))
            return self._chunks.popleft() if self._chunks else None

    def take_stream(self, handoff: StreamHandoff) -> None:
        """Take a stream that has begun."""
        handoff.holder = self._thread
        with self._changed:
            self.handoff = handoff
            self._changed.notify_all()

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        """Take the outcome of a stream that has ended, or was never opened."""
        with self._changed:
            self.outcome = outcome
            self.handoff = None
            self._changed.notify_all()

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        """Return None: only cancelling stops a stream."""
        return None

    def kept_answer(self, call: Call) -> Any:
        """Return None: streams are not kept."""
        return None

    def keep_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        """Return False: no journal knows of a stream."""
        return False

    def on_fatal(self, error: ChatPoolError) -> None:
        """Do nothing: a stream has no siblings."""

    def refuse(self, call: Call, scope: str, error: ChatPoolError) -> None:
        """Do nothing: a stream has no siblings."""

    def after_fork_in_child(self, call: Call) -> None:
        """End the parent's stream in this process."""
        self._changed = Condition()  # a thread of the parent process may have held the old one
        if self.outcome is None:
            error = CallCancelledError("the stream was open in the parent process when this one was forked")
            self.outcome = call.outcome(call.created_at, error=error)

    @holds_locks
    def wait(self, seconds: Optional[float], *, for_end: bool) -> bool:
        """Wait for the stream, or for its end; return False when the time is over."""
        ends_at = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while self.outcome is None and (for_end or self.handoff is None):
                left = None if ends_at is None else ends_at - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(interruptible(left))
        return True


class _IndexedChunk:
    """A chunk and the index of its item."""

    __slots__ = ("chunk", "index")

    def __init__(self, index: int, chunk: ChatChunk) -> None:
        self.index = index
        self.chunk = chunk


class StreamRun(Run):
    """A run whose workers queue each chunk as it comes, and wait when its consumer is behind."""

    _finished: Any  # chunks and outcomes
    consumer = 0  # the id of its thread

    def take_chunk(self, call: Call, chunk: ChatChunk) -> None:
        """Queue a chunk; wait while the queue is full.

        Raises:
            Cancelled: the call was given up.
        """
        with self._changed:
            if self._is_full(call):
                self._wait_while_full(call)
            if call.state == DONE:  # its outcome is there, and nothing comes after that
                raise Cancelled("given up while its stream was read")
            self._finished.append(_IndexedChunk(call.index, chunk))
            if self._sleeping:
                self._changed.notify_all()

    def _wait_while_full(self, call: Call) -> None:
        assert call.cancel_token is not None
        call.cancel_token.attach(self)
        try:
            while self._is_full(call):
                self._changed.wait()
        finally:
            call.cancel_token.detach(self)

    def _is_full(self, call: Call) -> bool:
        is_cancelled = call.cancel_token is not None and call.cancel_token.cancelled
        if len(self._finished) < _MAX_QUEUED_CHUNKS or call.state == DONE or is_cancelled:
            return False
        # A consumer that waits for other calls, or for the pool's end, does not read on; nor does a worker that
        # consumes the run and makes this very call.
        reads_on = self._sleeping or self._engine.streams.is_reading(self.consumer)
        return reads_on and self.consumer != threading.get_ident() and not self._engine.closed

    def wake(self) -> None:
        """Have workers that wait for a place in the queue look again."""
        with self._changed:
            self._changed.notify_all()

    def _put(self, outcome: Outcome[Any]) -> None:
        super()._put(outcome)
        self.wake()

    def take(self, at_least: int = 1) -> List[Any]:
        self.consumer = threading.get_ident()
        return super().take(at_least)

    def _take_ready(self) -> List[Any]:
        with self._changed:
            ready = super()._take_ready()
            self._taken -= sum(isinstance(arrival, _IndexedChunk) for arrival in ready)
            self._changed.notify_all()
        return ready

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        drained: List[Any] = super().drain(reason)
        return [arrival for arrival in drained if not isinstance(arrival, _IndexedChunk)]


class Streams(RunIterator[Tuple[int, Union[ChatChunk, Outcome[Any]]]]):
    """An iterator over a run of streams; leaving it early cancels what is left.

    Args:
        run: the run, not started yet.
    """

    def __init__(self, run: StreamRun) -> None:
        super().__init__(run, _arrivals(run))


def _arrivals(run: StreamRun) -> Iterator[Any]:
    while True:
        taken = run.take()
        if not taken and run.is_over():
            return
        if not taken:
            yield None, None
        for arrival in taken:
            if isinstance(arrival, _IndexedChunk):
                yield arrival.index, arrival.chunk
            else:
                run.consumed(1)
                yield arrival.index, arrival
