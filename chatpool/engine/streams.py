"""The chunks of one streamed answer, as the attempt that asked for it reads them."""

from __future__ import annotations

import time
from collections import deque
from typing import Callable, Deque, Optional, Protocol

from ..errors import DeadlineExceededError
from ..transport import Cancelled, Limit, OpenStream
from ..types import ChatChunk, ChatCompletion, Verdict
from ..wire import StreamReader, as_truncated, chunk_of, judge_exception
from .call import Call

__all__ = ["Chunks", "Reading", "StreamedChunks", "WholeAnswer", "collect", "ended"]

_BETWEEN_EVENTS = 60.0  # seconds, where Timeout.read says nothing
_AFTER_THE_ANSWER = 5.0  # seconds in which the usage, or the end, has to follow an answer that is whole
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

    Up to the first event the time limits of the exchange hold.  Then each wait for an event has its own,
    ``Timeout.read``, and all of them together the rest of ``Timeout.total``; the time between two waits, in which
    somebody looks at a chunk, does not count.

    Args:
        stream: the stream.
        call: the call it answers.
        left: seconds that are left of the call's time.
        judge: what the stream means once it has ended.
        url: where it comes from.
        max_event_bytes: the longest event that is taken.
    """

    def __init__(
        self,
        stream: OpenStream,
        call: Call,
        left: float,
        judge: Callable[[StreamReader], Verdict],
        *,
        url: str,
        max_event_bytes: int,
    ) -> None:
        self.verdict: Optional[Verdict] = None
        self._stream = stream
        self._call = call
        self._left = left
        self._judge = judge
        self._url = url
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
            self._read(self._limit(started))
        except Cancelled:
            raise
        except Exception as error:
            self._break(error)
        self._left -= time.monotonic() - started
        if self._reader.ended and self.verdict is None:
            self.verdict = self._judge(self._reader)

    def _read(self, limit: Optional[Limit]) -> None:
        reader = self._reader
        seen = reader.events
        while reader.events == seen and not reader.ended:
            data = self._stream.read(limit)
            self._ready += reader.feed(data) if data else reader.end()

    def _limit(self, now: float) -> Optional[Limit]:
        if not self._reader.events:
            return None
        longest = self._call.options.timeout.read or _BETWEEN_EVENTS
        if self._reader.done:
            longest = min(longest, _AFTER_THE_ANSWER)
        self._out_of_time = self._left < longest
        if self._out_of_time:
            return Limit(now + self._left, "the time for the call (timeout.total) ran out in the middle of the stream")
        return Limit(now + longest, f"the stream brought no event for {longest:.3g} s (Timeout.read)")

    def _break(self, error: Exception) -> None:
        """The stream has ended without an end of its own."""
        reader = self._reader
        if reader.done:
            self._ready += reader.end()  # nothing but its end is missing
            return
        verdict = as_truncated(judge_exception(error, url=self._url), reader)
        if self._out_of_time and self._call.handed_out and verdict.kind == "timeout":
            late = DeadlineExceededError(f"{error}; raise timeout=Timeout(total=...)")
            late.__cause__ = verdict.error
            verdict = verdict._replace(error=late)
        self.verdict = verdict
