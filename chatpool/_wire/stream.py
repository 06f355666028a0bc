"""A streamed answer: bytes in, chunks out, and at its end the whole answer or a fault."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Union

from ..types import ChatChunk, ChatCompletion, ChatRequest
from .accumulate import ChoiceAccumulator, ResponseAccumulator
from .codec import TooDeep, loads, whole
from .operations import CHAT, COMPLETIONS, RESPONSES, operation_of
from .response import UnusableAnswer, decode_response, inner_error
from .sse import BARE, ERROR, EventParser, ServerEvent

__all__ = ["StreamFault", "StreamReader"]

_DONE = "[DONE]"
# Chunks without content come before the first that has some: the role, filter results, "created", "in progress".
_MAX_HELD_CHUNKS = 64


class StreamFault(NamedTuple):
    """Reason why a stream is no answer.

    Attributes:
        kind: ``"error"`` (the server says so), ``"garbage"``, ``"overflow"`` or ``"truncated"``.
        problem: what happened, to go on after "the stream" in a message; shows none of its content.
        error: for ``"error"``, a body that holds the error as that of an error response would.
    """

    kind: str
    problem: str
    error: Optional[Any] = None


class StreamReader:
    """Turns the bytes of a streamed answer into chunks, and all its chunks into one completion.

    The reader never raises because of what a server sends: an error becomes :attr:`fault`, and the chunks before it
    are returned all the same.  Chunks without content (a role, filter results) are kept back until one has some, so
    that a call whose first chunk has not been returned can be sent again.

    ::

        reader = StreamReader(request)
        for data in body:                 # until reader.ended
            for chunk in reader.feed(data): ...
        for chunk in reader.end(): ...    # where the body came to its end, or broke off when it was settled
        verdict = classify_stream(reader, response, request, ...)

    Args:
        request: what was sent; to ``/chat/completions``, ``/completions`` or ``/responses``.
        max_event_bytes: the longest event that is accepted.

    Attributes:
        events: number of events that have come, those without a chunk included; comments are none.
        size: number of bytes that have come.
        ended: whether nothing more is to be read: ``[DONE]`` has come, the Responses API's last event, or a fault.
            Some servers keep the connection open after it.
        fault: what went wrong, None while nothing has.  Nothing that comes after a settled answer becomes a fault.

    Raises:
        TypeError: the request's path does not stream.
    """

    def __init__(self, request: ChatRequest, *, max_event_bytes: int = 64 * 1024 * 1024) -> None:
        self._request = request
        self._parser = EventParser(max_event_bytes)
        self._max_event_bytes = max_event_bytes
        self._accumulator = _accumulator_for(request)
        self._held_chunks: Optional[List[ChatChunk]] = []
        self._has_done_mark = False
        self.events = 0
        self.size = 0
        self.ended = False
        self.fault: Optional[StreamFault] = None

    @property
    def done(self) -> bool:
        """True if the answer is whole if the body ends now: every choice is finished, or ``[DONE]`` has come.

        A finish_reason no longer counts when more of its choice comes after it.
        """
        return self._has_done_mark or self._accumulator.done

    @property
    def settled(self) -> bool:
        """True if it is whole even if the body breaks off: ``[DONE]``, or content and reason of every choice."""
        return self._has_done_mark or self._accumulator.settled

    @property
    def begun(self) -> bool:
        """True if anything of the answer has come."""
        return self._accumulator.begun

    @property
    def answering(self) -> bool:
        """True if any of the answer itself has come; reasoning is not."""
        return self._accumulator.answering

    @property
    def signs(self) -> int:
        """Number of reads that had a comment, or a block without data, in them: the server is alive."""
        return self._parser.signs

    @property
    def text(self) -> str:
        """The text of the first choice that has come so far."""
        return self._accumulator.text

    @property
    def max_event_bytes(self) -> int:
        """The longest event that is accepted."""
        return self._max_event_bytes

    def feed(self, data: bytes) -> List[ChatChunk]:
        """Return the chunks that ``data``, the next bytes of the body, completes."""
        chunks: List[ChatChunk] = []
        self.size += len(data)
        for event in [] if self.ended else self._parser.feed(data):
            self.events += 1
            self._add_event(event, chunks)
            if self.ended:
                break
        if self._parser.overflowed and not self.ended:
            self._fail("overflow", f"has an event of more than {self._max_event_bytes:,} bytes")
        return chunks

    def end(self) -> List[ChatChunk]:
        """End the body; returns the chunks that are still kept back.  Where something is missing that is the fault."""
        unfinished = self._parser.unfinished
        for event in [] if self.ended else self._parser.end():
            # The blank line after it is all that is missing.
            self._has_done_mark = self._has_done_mark or self._is_done_mark(event.data)
            if not self._has_done_mark:
                self._accept_cut_event(event)
        if not self.done and self.fault is None:
            self._fail("truncated", _end_problem(self.events, unfinished))
        self.ended = True
        return [] if self.fault else self._release()

    def completion(self, request_id: Optional[str] = None) -> ChatCompletion:
        """Return the whole answer, as it would have been without streaming; ``raw`` has the same shape.

        Raises:
            UnusableAnswer: it lacks what its path must have.
        """
        try:
            completion: ChatCompletion = decode_response(self._request, self._accumulator.payload(), request_id)
        except RecursionError:
            raise UnusableAnswer("is nested too deeply") from None
        return completion

    def _accept_cut_event(self, event: ServerEvent) -> None:
        """Look for an error in an event that the end of the body has cut off: it says why."""
        try:
            payload = loads(event.data)
        except ValueError:
            return
        if isinstance(payload, dict):
            self._has_error(event, payload)

    def _add_event(self, event: ServerEvent, chunks: List[ChatChunk]) -> None:
        data = event.data
        if self._is_done_mark(data):
            self._handle_done_mark(chunks)
            return
        if event.name == BARE:
            self._accept_cut_event(event)
            return
        payload = self._decoded(event) if data.strip() else None
        if payload is None or self._has_error(event, payload):
            return
        try:
            chunk = self._accumulator.add(event.name, payload)
        except UnusableAnswer as problem:
            error = None if problem.error is None else {"error": problem.error}
            self._fail("error" if error else "garbage", str(problem), error)
            return
        except RecursionError:  # the caller has hardly any stack left
            self._fail("garbage", "has a chunk that is nested too deeply")
            return
        if self._held_chunks is None:
            chunks.append(chunk)
        else:
            self._held_chunks.append(chunk)
            if self._accumulator.begun or len(self._held_chunks) > _MAX_HELD_CHUNKS:
                chunks += self._release()
        if self._accumulator.final:
            self.ended = True

    def _is_done_mark(self, data: str) -> bool:
        return data.startswith(_DONE) and data.strip() == _DONE

    def _handle_done_mark(self, chunks: List[ChatChunk]) -> None:
        """Handle ``[DONE]``."""
        if isinstance(self._accumulator, ResponseAccumulator) and not self._accumulator.done:
            self._fail("truncated", "ended without its last event")
            return
        self._has_done_mark = self.ended = True
        chunks += self._release()

    def _decoded(self, event: ServerEvent) -> Optional[Dict[str, Any]]:
        try:
            payload = loads(event.data)
        except ValueError as problem:
            if event.name == ERROR:
                self._fail("error", "holds an error", {"error": {"message": event.data.strip()}})
            else:
                self._fail("garbage", f"has a chunk that is {problem if isinstance(problem, TooDeep) else 'not JSON'}")
            return None
        # llama.cpp sends a null or two where there are several prompts.
        if payload is None or isinstance(payload, dict):
            return payload
        error = inner_error(payload)
        if error:
            self._fail("error", "holds an error", payload)
        else:
            self._fail("garbage", f"has a chunk that is not a JSON object but a {type(payload).__name__}")
        return None

    def _has_error(self, event: ServerEvent, payload: Dict[str, Any]) -> bool:
        if inner_error(payload):
            self._fail("error", "holds an error", payload)
            return True
        # The Responses API's own form, and servers that put the error where a chunk would be.
        if event.name == ERROR or payload.get("type") == "error":
            self._fail("error", "holds an error", {"error": payload})
            return True
        return False

    def _fail(self, kind: str, problem: str, error: Optional[Any] = None) -> None:
        self.ended = True
        if not self.settled:
            self.fault = StreamFault(kind, problem, error)

    def _release(self) -> List[ChatChunk]:
        chunks, self._held_chunks = self._held_chunks or [], None
        return chunks


def _accumulator_for(request: ChatRequest) -> Union[ChoiceAccumulator, ResponseAccumulator]:
    operation = operation_of(request.path)
    if operation == RESPONSES:
        return ResponseAccumulator(request)
    if operation not in (CHAT, COMPLETIONS):
        raise TypeError(f"{request.path} does not stream: /chat/completions, /completions and /responses do")
    count = max(1, whole(request.body.get("n")) or 1)
    prompts = request.body.get("prompt")
    if operation == COMPLETIONS and isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        count *= len(prompts)
    return ChoiceAccumulator(operation == CHAT, count)


def _end_problem(events: int, unfinished: bool) -> str:
    if unfinished:
        return "ended in the middle of an event"
    return "ended without a finish_reason or [DONE]" if events else "ended without a single event"
