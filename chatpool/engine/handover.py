"""Streams in the hands of whoever reads them.

The worker that has opened a stream keeps its slot and sleeps until the stream has ended, while the consumer's thread
reads the connection itself: a chunk goes through no other thread.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Optional

from ..transport import Cancelled
from ..types import ChatChunk, Verdict
from .call import Call
from .streams import Chunks

__all__ = ["Handover"]

_LEFT = Verdict("success", status=200)
"""The consumer had enough: nothing is wrong with the server, and what it has written is paid for."""


class Handover:
    """One stream, from its first chunk on.

    Args:
        call: the call it answers.
        chunks: the chunks after the first.
        first: the first.

    Attributes:
        holder: the thread that reads it, and so holds its slot.
    """

    def __init__(self, call: Call, chunks: Chunks, first: ChatChunk) -> None:
        self.call = call
        self.holder = 0
        self._chunks = chunks
        self._first: Optional[ChatChunk] = first
        self._left = False
        # A plain lock, held until the end: unlike a condition it may be released by a finalizer, anywhere.
        self._gate = threading.Lock()
        self._gate.acquire()

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
            self.wake()
        return chunk

    def leave(self) -> None:
        """The consumer wants no more.  Takes no lock: also for the garbage collector."""
        self._left = True
        self.wake()

    # -- the worker's side ----------------------------------------------------------------------------

    def wait(self) -> Verdict:
        """Until the stream has ended, or was given up.

        Raises:
            Cancelled: the call was given up.
        """
        self._gate.acquire()
        if self._chunks.verdict is not None:
            return self._chunks.verdict
        if self._left:
            return _LEFT
        raise Cancelled("given up while its stream was read")

    def wake(self) -> None:
        """Have the worker look again."""
        with contextlib.suppress(RuntimeError):  # nobody waits any more, or somebody else has woken it
            self._gate.release()
