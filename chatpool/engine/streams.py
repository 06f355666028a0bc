"""The chunks of one streamed answer, as the attempt that asked for it reads them."""

from __future__ import annotations

import time
from collections import deque
from typing import Callable, Deque, Optional, Protocol

from ..errors import DeadlineExceededError
from ..transport import Cancelled, Limit, OpenStream
from ..types import ChatChunk, ChatCompletion, Verdict
from ..wire import StreamReader, as_truncated, chunk_of
from .call import Call

__all__ = ["Chunks", "Reading", "StreamedChunks", "WholeAnswer", "collect", "ended"]

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


def collect(call: Call, chunks: Chunks) -> Verdict:
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

    def _limit(self, started: float, now: float) -> Optional[Limit]:
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
        return Limit(at, reason)

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
