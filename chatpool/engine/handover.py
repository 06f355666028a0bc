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


class Handover:
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
