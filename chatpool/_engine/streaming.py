"""The chunks of one streamed answer, as the attempt that asked for it reads them.

Streams in the hands of whoever reads them.

The worker that has opened a stream keeps its slot and sleeps until the stream has ended, while the consumer's thread
reads the connection itself: a chunk goes through no other thread.

The streams that are being read, and who reads them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Callable, Deque, Iterable, Iterator, List, Optional, Protocol, Set, cast

from .._transport import Cancelled, OpenStream, StreamDeadline
from .._values import Verdict
from .._wire import StreamReader, as_truncated, chunk_of
from .._wire.response import HTTP_OK
from ..errors import DeadlineExceededError
from ..types import ChatChunk, ChatCompletion
from .call import Call, OutcomeSink

__all__ = [
    "ActiveStreams",
    "ChunkSink",
    "Chunks",
    "HandoffSink",
    "Reading",
    "StreamHandoff",
    "StreamedChunks",
    "WholeAnswer",
    "collect_chunks",
    "ended",
]


_BETWEEN_EVENTS = 60.0  # seconds, where Timeout.read says nothing
_ABOUT = 0.01  # seconds between two readings of one moment
_TO_THE_END = 0.05  # seconds in which a body has to end after its last event, for its connection to be kept


class Chunks(Protocol):
    """What comes of a stream.

    Attributes:
        verdict: what the stream was, once it has ended.
    """

    verdict: Optional[Verdict]

    def next(self) -> Optional[ChatChunk]:
        """The next chunk, None at the end.

        Raises:
            Cancelled: the call was given up.
        """


Reading = Callable[[Call, Chunks], Verdict]
"""What a worker does with the chunks of a call.  Whoever gives one away sets ``call.handed_out``."""


def collect_chunks(call: Call, chunks: Chunks) -> Verdict:
    """Read to the end; the chunks are no more than a way to get the whole answer."""
    while chunks.next() is not None:
        pass
    return ended(chunks)


def ended(chunks: Chunks) -> Verdict:
    """What came of them, after the last."""
    assert chunks.verdict is not None
    return chunks.verdict


class WholeAnswer:
    """An answer of a server that did not stream, as one chunk.

    Args:
        verdict: a success.
    """

    def __init__(self, verdict: Verdict) -> None:
        self.verdict: Optional[Verdict] = verdict
        self._chunk = chunk_of(verdict.value) if isinstance(verdict.value, ChatCompletion) else None

    def next(self) -> Optional[ChatChunk]:
        """The chunk, then None."""
        chunk, self._chunk = self._chunk, None
        return chunk


class StreamedChunks:
    """Chunks out of an open stream.  Not for two threads at the same time.

    Up to the first piece of the answer the exchange's ``Timeout.attempt`` holds.  Then each wait for an event has its
    own limit, ``Timeout.read``, which comments extend up to ``Timeout.attempt``, and all of them together the rest of
    ``Timeout.total``; the time between two waits, in which somebody looks at a chunk, does not count.  A model that
    reasons aloud has, from its first piece on, whichever of the two ends later.

    Args:
        stream: the stream.
        call: the call it answers.
        left: seconds that are left of the call's time.
        judge: what the stream means once it has ended.
        judge_exception: what it means that reading it raised.
        max_event_bytes: the longest event that is taken.
    """

    def __init__(
        self,
        stream: OpenStream,
        call: Call,
        left: float,
        judge: Callable[[StreamReader], Verdict],
        judge_exception: Callable[[Exception], Verdict],
        *,
        max_event_bytes: int,
    ) -> None:
        self.verdict: Optional[Verdict] = None
        self._stream = stream
        self._call = call
        self._left = left
        self._judge = judge
        self._judge_exception = judge_exception
        self._reader = StreamReader(call.request, max_event_bytes=max_event_bytes)
        self._ready: Deque[ChatChunk] = deque()
        self._out_of_time = False

    def next(self) -> Optional[ChatChunk]:
        """The next chunk, None at the end."""
        while not self._ready and self.verdict is None:
            self._wait()
        return self._ready.popleft() if self._ready else None

    def close(self) -> None:
        """Let go of the connection; it can be used again if all there was has been read."""
        if self.verdict is not None and self.verdict.kind == "success":
            self._stream.finish(_TO_THE_END)
        else:
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
        self._left -= time.monotonic() - started
        if self._reader.ended and self.verdict is None:
            self.verdict = self._judge(self._reader)

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
        """Until when to wait for an event.

        Args:
            started: when the wait for it began.
            now: when something was last heard of the server, or the wait began.
        """
        if not self._reader.begun:
            return None
        timeout = self._call.options.timeout
        read = timeout.read or _BETWEEN_EVENTS
        at, reason = now + read, f"the stream brought no event for {read:.3g} s (Timeout.read)"
        longest = started + max(read, timeout.attempt)
        if not self._reader.answering and self._stream.deadline > at:
            at = self._stream.deadline
            reason = f"the answer did not begin within {timeout.attempt:.3g} s (Timeout.attempt)"
        elif at > longest:
            at, reason = longest, f"the stream brought only comments for {timeout.attempt:.3g} s (Timeout.attempt)"
        ends = started + self._left
        # The attempt may have been cut to the same moment.
        self._out_of_time = ends < at + _ABOUT
        if self._out_of_time:
            at, reason = ends, "the time for the call (timeout.total) ran out in the middle of the stream"
        return StreamDeadline(at, reason)

    def _break(self, error: Exception) -> None:
        """The stream has ended without an end of its own."""
        reader = self._reader
        if reader.settled:
            self._ready += reader.end()  # nothing but its end is missing
            return
        verdict = as_truncated(self._judge_exception(error), reader)
        if self._out_of_time and self._call.handed_out and verdict.kind == "timeout":
            late = DeadlineExceededError(f"{error}; raise timeout=Timeout(total=...)")
            late.__cause__ = verdict.error
            verdict = verdict._replace(error=late)
        self.verdict = verdict


_LEFT = Verdict("success", status=HTTP_OK)
"""The consumer had enough: nothing is wrong with the server, and what it has written is paid for."""


class Gate:
    """Where the worker of a stream waits until it has ended, or its reader wants no more.

    It knows nothing else: what a finalizer is to open, its registry keeps alive.

    Attributes:
        left: whether the reader wanted no more.
    """

    __slots__ = ("_lock", "left")

    def __init__(self) -> None:
        self.left = False
        # A plain lock, held until the end: unlike a condition it may be released by a finalizer, anywhere.
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Wait until it is open."""
        self._lock.acquire()

    def open(self) -> None:
        """Let the worker through.  Takes no lock."""
        with contextlib.suppress(RuntimeError):  # nobody waits any more, or somebody else has opened it
            self._lock.release()

    def leave(self) -> None:
        """Let it through because the reader wants no more.  Takes no lock."""
        self.left = True
        self.open()


class StreamHandoff:
    """One stream, from its first chunk on.

    Args:
        call: the call it answers.
        chunks: the chunks after the first.
        first: the first.

    Attributes:
        holder: the thread that reads it, and so holds its slot.
        gate: where its worker waits.
    """

    def __init__(self, call: Call, chunks: Chunks, first: ChatChunk) -> None:
        self.call = call
        self.holder = 0
        self._chunks = chunks
        self._first: Optional[ChatChunk] = first
        self.gate = Gate()

    # -- the consumer's side --------------------------------------------------------------------------

    def next(self) -> Optional[ChatChunk]:
        """The next chunk; None at the end, of which the worker then takes care.

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

    # -- the worker's side ----------------------------------------------------------------------------

    def wait(self) -> Verdict:
        """Until the stream has ended, or was given up.

        Raises:
            Cancelled: the call was given up.
        """
        self.gate.wait()
        if self._chunks.verdict is not None:
            return self._chunks.verdict
        if self.gate.left:
            return _LEFT
        raise Cancelled("given up while its stream was read")

    def wake(self) -> None:
        """Have the worker look again."""
        self.gate.open()


class HandoffSink(OutcomeSink, Protocol):
    """A sink that takes a stream, too."""

    def take_stream(self, handover: StreamHandoff) -> None:
        """Take the stream, whose first chunk is there; called in a worker with no lock held."""


class ChunkSink(OutcomeSink, Protocol):
    """A sink that takes chunks, too.

    Attributes:
        consumer: the thread that reads them.
    """

    consumer: int

    def take_chunk(self, call: Call, chunk: ChatChunk) -> None:
        """Take a chunk; may wait until the consumer has made room for it.  Called with no lock held.

        Raises:
            Cancelled: the call was given up.
        """

    def wake(self) -> None:
        """Have workers that wait look again whether the consumer still reads."""


class ActiveStreams:
    """The streams of one engine that are being read, and who reads them.

    No lock: adding to a set, taking from it and copying it are single steps, and finalizers may come in between.
    """

    def __init__(self) -> None:
        self._handed_over: Set[StreamHandoff] = set()
        self._relayed: Set[Call] = set()
        self._not_reading: Set[int] = set()

    # -- readings -------------------------------------------------------------------------------------

    def hand_over(self, call: Call, chunks: Chunks) -> Verdict:
        """Have the call's sink read the chunks, from the first on, and wait for the end of it."""
        first = chunks.next()
        if first is None:
            return ended(chunks)
        handover = StreamHandoff(call, chunks, first)
        assert call.token is not None
        call.token.attach(handover)
        self._handed_over.add(handover)
        try:
            call.handed_out = True
            cast(HandoffSink, call.sink).take_stream(handover)
            return handover.wait()
        finally:
            self._handed_over.discard(handover)
            call.token.detach(handover)

    def relay(self, call: Call, chunks: Chunks) -> Verdict:
        """Give each chunk to the call's sink as it comes."""
        sink = cast(ChunkSink, call.sink)
        self._relayed.add(call)
        try:
            chunk = chunks.next()
            while chunk is not None:
                call.handed_out = True
                sink.take_chunk(call, chunk)
                chunk = chunks.next()
        finally:
            self._relayed.discard(call)
        return ended(chunks)

    # -- readers --------------------------------------------------------------------------------------

    def check_slots(self, slots: float) -> None:
        """Refuse to wait for a call that cannot start before this very thread has gone on.

        Args:
            slots: how many there are.

        Raises:
            RuntimeError: streams that this thread is reading take them all.
        """
        if not self._handed_over:
            return
        held = sum(handover.holder == threading.get_ident() for handover in list(self._handed_over))
        if held >= slots:
            streams = "an open stream takes" if held == 1 else f"{held} open streams take"
            raise RuntimeError(
                f"{streams} all worker slots of the pool (max_workers={slots}), and this thread, which reads them, "
                "would wait for a slot for ever: read or close the stream first, or raise max_workers"
            )

    @contextmanager
    def waiting(self, slots: float) -> Iterator[None]:
        """What this thread does inside is to wait for calls, and not to read its streams.

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

    def forgotten(self, *, at_exit: bool) -> List[Call]:
        """The calls of streams that nobody can go on reading while this thread waits: its own, and of dead threads.

        Args:
            at_exit: whether the process is about to end, for which daemon threads are not waited for.
        """
        others = {thread.ident for thread in threading.enumerate() if not (at_exit and thread.daemon)}
        others.discard(threading.get_ident())
        return [handover.call for handover in list(self._handed_over) if handover.holder not in others]

    def is_reading(self, thread: int) -> bool:
        """Whether a thread may come back to its streams by itself, and does not wait for a call."""
        return thread not in self._not_reading

    def wake(self) -> None:
        """Have workers that wait for a consumer look again."""
        self._wake(self._sinks())

    def _sinks(self) -> Set[ChunkSink]:
        return {cast(ChunkSink, call.sink) for call in list(self._relayed)}

    @staticmethod
    def _wake(sinks: Iterable[ChunkSink]) -> None:
        for sink in sinks:
            sink.wake()

    def after_fork_in_child(self) -> None:
        """They are the parent's."""
        for known in (self._handed_over, self._relayed, self._not_reading):
            known.clear()
