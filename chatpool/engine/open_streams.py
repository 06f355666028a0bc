"""The streams that are being read, and who reads them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Iterable, Iterator, List, Protocol, Set, cast

from ..types import ChatChunk, Verdict
from .call import Call, Sink
from .handover import Handover
from .streams import Chunks, ended

__all__ = ["ChunkSink", "OpenStreams", "StreamSink"]


class StreamSink(Sink, Protocol):
    """A sink that takes a stream, too."""

    def take_stream(self, handover: Handover) -> None:
        """Take the stream, whose first chunk is there; called in a worker with no lock held."""


class ChunkSink(Sink, Protocol):
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


class OpenStreams:
    """The streams of one engine that are being read, and who reads them.

    No lock: adding to a set, taking from it and copying it are single steps, and finalizers may come in between.
    """

    def __init__(self) -> None:
        self._handed_over: Set[Handover] = set()
        self._relayed: Set[Call] = set()
        self._not_reading: Set[int] = set()

    # -- readings -------------------------------------------------------------------------------------

    def hand_over(self, call: Call, chunks: Chunks) -> Verdict:
        """Have the call's sink read the chunks, from the first on, and wait for the end of it."""
        first = chunks.next()
        if first is None:
            return ended(chunks)
        handover = Handover(call, chunks, first)
        assert call.token is not None
        call.token.attach(handover)
        self._handed_over.add(handover)
        try:
            call.handed_out = True
            cast(StreamSink, call.sink).take_stream(handover)
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
