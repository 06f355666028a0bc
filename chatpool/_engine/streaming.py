"""Streamed answers: the chunks of one, its handoff to the thread that reads it, and the streams that are active.

The worker that has opened a stream keeps its slot and sleeps until the stream has ended, while the consumer's thread
reads the connection itself: a chunk goes through no other thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Protocol, Set, Tuple, cast

from .._transport import Cancelled, OpenStream, StreamDeadline
from .._values import Verdict
from .._wire import StreamReader, as_truncated, chunk_of
from .._wire.response import HTTP_OK
from ..errors import DeadlineExceededError
from ..types import ChatChunk, ChatCompletion
from .call import DONE, Call, Chunks, OutcomeSink

__all__ = [
    "ActiveStreams",
    "StreamHandoff",
    "StreamedChunks",
    "WholeAnswer",
    "collect_chunks",
]

_EVENT_TIMEOUT_SECONDS = 60.0  # where Timeout.read is None
_CLOCK_TOLERANCE_SECONDS = 0.01  # between two readings of one moment
_BODY_END_SECONDS = 0.05  # in which a body has to end after its last event, for its connection to be kept

_ABANDONED = Verdict("success", status=HTTP_OK)
"""The consumer wanted no more chunks: nothing is wrong with the server, and what it has written is paid for."""


def collect_chunks(call: Call, chunks: Chunks) -> Verdict:
    """Read to the end; only the whole answer is wanted."""
    while chunks.next() is not None:
        pass
    return _verdict_of(chunks)


def _verdict_of(chunks: Chunks) -> Verdict:
    """Return the verdict on a stream whose last chunk was read."""
    assert chunks.verdict is not None
    return chunks.verdict


class WholeAnswer:
    """The answer of a server that did not stream, as one chunk.

    Args:
        verdict: a success.
    """

    def __init__(self, verdict: Verdict) -> None:
        self.verdict: Optional[Verdict] = verdict
        self._chunk = chunk_of(verdict.value) if isinstance(verdict.value, ChatCompletion) else None

    def next(self) -> Optional[ChatChunk]:
        """Return the chunk, then None."""
        chunk, self._chunk = self._chunk, None
        return chunk

    def stop(self) -> None:
        """Do nothing: no read waits."""


class StreamedChunks:
    """The chunks of an open stream.  Not for two threads at the same time.

    Up to the first piece of the answer the exchange's ``Timeout.attempt`` holds.  Then each wait for an event has its
    own limit, ``Timeout.read``, which comments extend up to ``Timeout.attempt``, and all of them together the rest of
    ``Timeout.total``; the time between two waits, in which the consumer handles a chunk, does not count.  A model that
    reasons aloud has, from its first piece on, whichever of the two ends later.

    Args:
        stream: the stream.
        call: the call it answers.
        seconds_left: the rest of the call's time.
        classify: returns the verdict on a stream that has ended.
        classify_error: returns the verdict on an exception of reading it.
        max_event_bytes: the longest event that is accepted.
        now: the pool's clock.
    """

    def __init__(
        self,
        stream: OpenStream,
        call: Call,
        seconds_left: float,
        classify: Callable[[StreamReader], Verdict],
        classify_error: Callable[[Exception], Verdict],
        *,
        max_event_bytes: int,
        now: Callable[[], float],
    ) -> None:
        self.verdict: Optional[Verdict] = None
        self._stream = stream
        self._call = call
        self._seconds_left = seconds_left
        self._classify = classify
        self._classify_error = classify_error
        self._reader = StreamReader(call.request, max_event_bytes=max_event_bytes)
        self._ready: Deque[ChatChunk] = deque()
        self._out_of_time = False
        self._now = now

    def next(self) -> Optional[ChatChunk]:
        """Return the next chunk, None at the end."""
        while not self._ready and self.verdict is None:
            self._wait()
        if self._ready and self._call.first_chunk_seconds is None and self._call.sent_at is not None:
            self._call.first_chunk_seconds = self._now() - self._call.sent_at
        return self._ready.popleft() if self._ready else None

    def close(self) -> None:
        """Release the connection; it can be used again if the whole body was read."""
        if self.verdict is not None and self.verdict.kind == "success":
            self._stream.finish(_BODY_END_SECONDS)
        else:
            self._stream.close()

    def stop(self) -> None:
        """Close the stream, from any thread: a read that waits is woken."""
        self._stream.close()

    def _wait(self) -> None:
        """Read until there is another event, or the end."""
        started = time.monotonic()
        try:
            self._read(started)
        except Cancelled:
            raise
        except Exception as error:
            self._break(error)
        self._seconds_left -= time.monotonic() - started
        if self._reader.ended and self.verdict is None:
            self.verdict = self._classify(self._reader)

    def _read(self, started: float) -> None:
        reader = self._reader
        seen, signs = reader.events, reader.signs
        limit = self._limit(started, started)
        while reader.events == seen and not reader.ended:
            data = self._stream.read(limit)
            self._ready += reader.feed(data) if data else reader.end()
            if reader.signs != signs:
                signs = reader.signs
                limit = self._limit(started, time.monotonic())

    def _limit(self, started: float, now: float) -> Optional[StreamDeadline]:
        """Return the deadline of the wait for an event.

        Args:
            started: the start of the wait.
            now: the time of the latest sign of the server, or the start of the wait.
        """
        if not self._reader.begun:
            return None
        timeout = self._call.options.timeout
        read = timeout.read or _EVENT_TIMEOUT_SECONDS
        at, reason = now + read, f"the stream brought no event for {read:.3g} s (Timeout.read)"
        longest = started + max(read, timeout.attempt)
        if not self._reader.answering and self._stream.deadline > at:
            at = self._stream.deadline
            reason = f"the answer did not begin within {timeout.attempt:.3g} s (Timeout.attempt)"
        elif at > longest:
            at, reason = longest, f"the stream brought only comments for {timeout.attempt:.3g} s (Timeout.attempt)"
        ends_at = started + self._seconds_left
        # The attempt may have been cut to the same moment.
        self._out_of_time = ends_at < at + _CLOCK_TOLERANCE_SECONDS
        if self._out_of_time:
            at, reason = ends_at, "the time for the call (timeout.total) ran out in the middle of the stream"
        return StreamDeadline(at, reason)

    def _break(self, error: Exception) -> None:
        """End a stream that broke off."""
        reader = self._reader
        if reader.settled:
            self._ready += reader.end()  # only its end is missing
            return
        verdict = as_truncated(self._classify_error(error), reader)
        if self._out_of_time and self._call.partly_delivered and verdict.kind == "timeout":
            out_of_time = DeadlineExceededError(f"{error}; raise timeout=Timeout(total=...)")
            out_of_time.__cause__ = verdict.error
            verdict = verdict._replace(error=out_of_time)
        self.verdict = verdict


class StreamHandoff:
    """One stream, from its first chunk on.

    The consumer reads it with :meth:`next`; or, after :meth:`forward`, the worker does and gives its chunks to the
    sink.

    Args:
        call: the call it answers.
        chunks: the chunks after the first.
        first: the first.

    Attributes:
        holder: the thread that reads it and so holds its slot.
        forwards: True if the worker reads it.
        gate: the gate at which its worker waits.
    """

    def __init__(self, call: Call, chunks: Chunks, first: ChatChunk) -> None:
        self.call = call
        self.holder = 0
        self._chunks = chunks
        self._first: Optional[ChatChunk] = first
        self.forwards = False
        self.gate = _Gate()

    # -- the consumer's side --------------------------------------------------------------------------

    def next(self) -> Optional[ChatChunk]:
        """Return the next chunk; None at the end, which the worker then handles.

        Raises:
            Cancelled: the call was given up.
        """
        self.holder = threading.get_ident()
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = self._chunks.next()
        if chunk is None:
            self.gate.open()
        return chunk

    def forward(self) -> None:
        """Have the worker read from now on."""
        self.holder = threading.get_ident()
        if not self.forwards:
            self.forwards = True
            self.gate.open()

    def abandon(self) -> None:
        """End the stream: the consumer wants no more chunks.  Takes a lock if the worker reads it."""
        self.gate.abandon()
        if self.forwards:
            self._chunks.stop()

    # -- the worker's side ----------------------------------------------------------------------------

    def wait(self) -> Verdict:
        """Wait until the stream has ended, or was given up; return its verdict.

        Raises:
            Cancelled: the call was given up.
        """
        self.gate.wait()
        if self.forwards and not self.gate.abandoned:
            self._forward()
        if self._chunks.verdict is not None:
            return self._chunks.verdict
        if self.gate.abandoned:
            return _ABANDONED
        raise Cancelled("given up while its stream was read")

    def _forward(self) -> None:
        sink = cast(_ChunkSink, self.call.sink)
        chunk, self._first = self._first, None
        try:
            chunk = chunk or self._chunks.next()
            while chunk is not None and not self.gate.abandoned:
                sink.take_chunk(self.call, chunk)
                chunk = self._chunks.next()
        except Cancelled:
            if not self.gate.abandoned:
                raise

    def wake(self) -> None:
        """Make the worker check again."""
        self.gate.open()


class _Gate:
    """The gate at which the worker of a stream waits until it has ended, or its reader wants no more.

    It refers to nothing else: a gate that a finalizer is to open is kept alive by the finalizer.

    Attributes:
        abandoned: whether the reader wanted no more.
    """

    __slots__ = ("_lock", "abandoned")

    def __init__(self) -> None:
        self.abandoned = False
        # A plain lock, held until the end: unlike a condition it may be released by a finalizer, anywhere.
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Wait until it is open."""
        self._lock.acquire()

    def open(self) -> None:
        """Let the worker through.  Takes no lock."""
        with contextlib.suppress(RuntimeError):  # the worker is not waiting any more, or the gate is open
            self._lock.release()

    def abandon(self) -> None:
        """Let the worker through because the reader wants no more.  Takes no lock."""
        self.abandoned = True
        self.open()


class _HandoffSink(OutcomeSink, Protocol):
    """A sink that also takes a stream."""

    def take_stream(self, handoff: StreamHandoff) -> None:
        """Take the stream, whose first chunk is there; called in a worker with no lock held."""


class _ChunkSink(OutcomeSink, Protocol):
    """A sink that also takes chunks.

    Attributes:
        consumer: the thread that reads the chunks.
    """

    consumer: int

    def take_chunk(self, call: Call, chunk: ChatChunk) -> None:
        """Take a chunk; may wait until the consumer has taken earlier ones.  Called with no lock held.

        Raises:
            Cancelled: the call was given up.
        """

    def wake(self) -> None:
        """Make waiting workers check again whether the consumer still reads."""


class _QueueSink(OutcomeSink, Protocol):
    """A sink that takes a stream either whole or chunk by chunk.

    Attributes:
        forwarded: whether it gets the chunks.
    """

    forwarded: bool

    def take_chunk(self, call: Call, chunk: ChatChunk) -> None:
        """Queue a chunk."""


def _give_chunks(call: Call, chunks: Chunks) -> Verdict:
    """Give each chunk to the call's sink as it arrives; return the verdict on the stream."""
    sink = cast(_QueueSink, call.sink)
    chunk = chunks.next()
    while chunk is not None:
        call.partly_delivered = True
        sink.take_chunk(call, chunk)
        chunk = chunks.next()
    return _verdict_of(chunks)


class ActiveStreams:
    """The streams of one engine that are being read, and the threads that read them.

    No lock: adding to a set, taking from it and copying it are single steps, and finalizers may come in between.

    Args:
        queues_all: whether a stream that is handed off is queued whole first, as no other thread could read it.
    """

    def __init__(self, *, queues_all: bool = False) -> None:
        self._queues_all = queues_all
        self._handed_off: Set[StreamHandoff] = set()
        self._opening: Dict[Call, int] = {}  # streams that have not begun, and the threads that read them
        self._forwarded: Set[Call] = set()
        self._not_reading: Set[int] = set()

    # -- readings -------------------------------------------------------------------------------------

    def hand_off(self, call: Call, chunks: Chunks) -> Verdict:
        """Hand the stream to the call's sink with its first chunk, and wait for its end."""
        if self._queues_all:
            cast(_QueueSink, call.sink).forwarded = True
            return _give_chunks(call, chunks)
        first = chunks.next()
        if first is None:
            return _verdict_of(chunks)
        handoff = StreamHandoff(call, chunks, first)
        assert call.cancel_token is not None
        call.cancel_token.attach(handoff)
        self._handed_off.add(handoff)
        try:
            call.partly_delivered = True
            cast(_HandoffSink, call.sink).take_stream(handoff)
            return handoff.wait()
        finally:
            self._handed_off.discard(handoff)
            call.cancel_token.detach(handoff)

    def forward(self, call: Call, chunks: Chunks) -> Verdict:
        """Give each chunk to the call's sink as it arrives."""
        self._forwarded.add(call)
        try:
            return _give_chunks(call, chunks)
        finally:
            self._forwarded.discard(call)

    # -- readers --------------------------------------------------------------------------------------

    def note_opening(self, call: Call) -> None:
        """Note that this thread, which reads a stream, goes on with something else before it has begun."""
        self._opening[call] = threading.get_ident()

    def forget_opening(self, call: Call) -> None:
        """Forget a stream that has begun or ended.  Takes no lock."""
        self._opening.pop(call, None)

    def check_slots(self, slots: float) -> None:
        """Refuse to wait for a call that cannot start until this thread goes on.

        Args:
            slots: the number of worker slots.

        Raises:
            RuntimeError: streams that this thread is reading take them all.
        """
        if not self._handed_off and not self._opening:
            return
        held_slots = sum(holder == threading.get_ident() for holder in self._holders().values())
        if held_slots >= slots:
            streams = "an open stream takes" if held_slots == 1 else f"{held_slots} open streams take"
            raise RuntimeError(
                f"{streams} all worker slots of the pool (max_workers={slots}), and this thread, which reads them, "
                "would wait for a slot for ever: read or close the stream first, or raise max_workers"
            )

    @contextmanager
    def waiting(self, slots: float) -> Iterator[None]:
        """Return a context in which this thread waits for calls, and does not read its streams.

        Raises:
            RuntimeError: as :meth:`check_slots`.
        """
        self.check_slots(slots)
        thread = threading.get_ident()
        first = thread not in self._not_reading
        self._not_reading.add(thread)
        self._wake(sink for sink in self._sinks() if sink.consumer == thread)
        try:
            yield
        finally:
            if first:
                self._not_reading.discard(thread)

    def abandoned(self, *, at_exit: bool) -> List[Call]:
        """Return the calls of streams without a reader while this thread waits: its own, and those of dead threads.

        Args:
            at_exit: whether the process is about to end, for which daemon threads are not waited for.
        """
        others = {thread.ident for thread in threading.enumerate() if not (at_exit and thread.daemon)}
        others.discard(threading.get_ident())
        return [call for call, holder in self._holders().items() if holder not in others]

    def _holders(self) -> Dict[Call, int]:
        """Return the streams whose readers do not wait for a worker, each with the thread that reads it."""
        opening = {call: holder for call, holder in list(self._opening.items()) if call.state != DONE}
        return {**opening, **{handoff.call: handoff.holder for handoff in list(self._handed_off)}}

    def is_reading(self, thread: int) -> bool:
        """Return whether a thread may go on reading its streams: it does not wait for a call."""
        return thread not in self._not_reading

    def wake(self) -> None:
        """Make workers that wait for a consumer check again."""
        self._wake(self._sinks())

    def _sinks(self) -> Set[_ChunkSink]:
        return {cast(_ChunkSink, call.sink) for call in list(self._forwarded)}

    @staticmethod
    def _wake(sinks: Iterable[_ChunkSink]) -> None:
        for sink in sinks:
            sink.wake()

    def after_fork_in_child(self) -> None:
        """Forget the streams, which are the parent's."""
        registries: Tuple[Any, ...] = (self._handed_off, self._opening, self._forwarded, self._not_reading)
        for registered in registries:
            registered.clear()
