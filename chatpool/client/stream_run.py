"""Runs of streams: many answers chunk by chunk, in one sequence."""

from __future__ import annotations

import threading
from typing import Any, Iterator, List, Tuple, Union

from ..engine import Call
from ..engine.call import DONE
from ..errors import ChatPoolError
from ..observe import ProgressBar
from ..transport import Cancelled
from ..types import ChatChunk, Outcome
from .consume import RunIterator
from .run import Run

__all__ = ["StreamRun", "Streams"]

_MOST_WAITING = 1024  # chunks that nobody has asked for yet


class _Piece:
    """A chunk and whose it is."""

    __slots__ = ("chunk", "index")

    def __init__(self, index: int, chunk: ChatChunk) -> None:
        self.index = index
        self.chunk = chunk


class StreamRun(Run):
    """A run whose workers hand over each chunk as it comes, and wait when its consumer is behind."""

    _finished: Any  # outcomes, and pieces before them
    consumer = 0

    def take_chunk(self, call: Call, chunk: ChatChunk) -> None:
        """Take a chunk; waits until there is room for it.

        Raises:
            Cancelled: the call was given up.
        """
        with self._changed:
            if self._is_full(call):
                self._wait_for_room(call)
            if call.state == DONE:  # its outcome is there, and nothing comes after that
                raise Cancelled("given up while its stream was read")
            self._finished.append(_Piece(call.index, chunk))
            if self._sleeping:
                self._changed.notify_all()

    def _wait_for_room(self, call: Call) -> None:
        assert call.token is not None
        call.token.attach(self)
        try:
            while self._is_full(call):
                self._changed.wait()
        finally:
            call.token.detach(self)

    def _is_full(self, call: Call) -> bool:
        if len(self._finished) < _MOST_WAITING or call.state == DONE or (call.token and call.token.cancelled):
            return False
        # Nobody reads on who waits for a call of others, or for the pool's end, or makes this very call, in a worker.
        reads_on = self._sleeping or self._engine.streams.is_reading(self.consumer)
        return reads_on and self.consumer != threading.get_ident() and not self._engine.closed

    def wake(self) -> None:
        """Have workers that wait for room look again."""
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
            self._taken -= sum(isinstance(one, _Piece) for one in ready)
            self._changed.notify_all()
        return ready

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        drained: List[Any] = super().drain(reason)
        return [one for one in drained if not isinstance(one, _Piece)]


class Streams(RunIterator[Tuple[int, Union[ChatChunk, Outcome[Any]]]]):
    """An iterator over a run of streams; leaving it early cancels what is left.

    Args:
        run: the run, not started yet.
        bar: opened at the first chunk asked for, closed at the end.
    """

    def __init__(self, run: StreamRun, bar: Union[ProgressBar, None]) -> None:
        super().__init__(run, bar, _arriving(run))


def _arriving(run: StreamRun) -> Iterator[Tuple[int, Union[ChatChunk, Outcome[Any]]]]:
    while True:
        taken = run.take()
        if not taken:
            return
        for one in taken:
            if isinstance(one, _Piece):
                yield one.index, one.chunk
            else:
                run.consumed(1)
                yield one.index, one
