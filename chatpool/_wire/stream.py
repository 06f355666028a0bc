"""A streamed answer: bytes in, chunks out, and in the end the whole answer or what went wrong."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Union

from ..types import ChatChunk, ChatCompletion, ChatRequest
from .accumulate import ChoiceAccumulator, ResponseAccumulator
from .codec import TooDeep, loads, whole
from .error_body import inner_error
from .operations import CHAT, COMPLETIONS, RESPONSES, operation_of
from .response import UnusableAnswer, decode_response
from .sse import BARE, ERROR, EventParser, ServerEvent

__all__ = ["StreamFault", "StreamReader"]

_DONE = "[DONE]"
# Chunks that bring nothing come before the first that does: the role, filter results, "created", "in progress".
_MOST_HELD = 64


class StreamFault(NamedTuple):
    """Why a stream is no answer.

    Attributes:
        kind: ``"error"`` (the server says so), ``"garbage"``, ``"overflow"`` or ``"truncated"``.
        problem: what happened; goes on after "the stream", and shows none of its content.
        error: for ``"error"``, a body that holds the error as an error answer's would.
    """

    kind: str
    problem: str
    error: Optional[Any] = None


class StreamReader:
    """Makes chunks of the bytes of a streamed answer, and one completion of all its chunks.

    The reader never raises on what a server sends: what is wrong becomes :attr:`fault`, and the chunks before it
    are handed out all the same.  Chunks that bring nothing of the answer yet (a role, filter results) are kept back
    until one does, so that a call whose first chunk has not been handed out can be sent again.

    ::

        reader = StreamReader(request)
        for data in body:                 # until reader.ended
            for chunk in reader.feed(data): ...
        for chunk in reader.end(): ...    # where the body came to its end, or broke off when it was settled
        verdict = judge_stream(reader, reply, request, ...)

    Args:
        request: what was sent; to ``/chat/completions``, ``/completions`` or ``/responses``.
        max_event_bytes: the longest event that is taken.

    Attributes:
        events: how many events have come, those that bring no chunk included; comments are none.
        size: how many bytes have come.
        ended: whether nothing more is to be read: ``[DONE]`` has come, the Responses API's last event, or a fault.
            Some servers keep the connection open after it.
        fault: what went wrong, None while nothing has.  What comes after a settled answer can do no harm to it.

    Raises:
        TypeError: the request's path does not stream.
    """

    def __init__(self, request: ChatRequest, *, max_event_bytes: int = 64 * 1024 * 1024) -> None:
        self._request = request
        self._parser = EventParser(max_event_bytes)
        self._max_event_bytes = max_event_bytes
        self._join = _join_for(request)
        self._held: Optional[List[ChatChunk]] = []
        self._done = False
        self.events = 0
        self.size = 0
        self.ended = False
        self.fault: Optional[StreamFault] = None

    @property
    def done(self) -> bool:
        """Whether the answer is whole if the body ends now: every choice is finished, or ``[DONE]`` has come.

        A finish_reason is taken back by whatever of its choice comes after it.
        """
        return self._done or self._join.whole

    @property
    def settled(self) -> bool:
        """Whether it is whole even if the body breaks off: ``[DONE]``, or content and reason of every choice."""
        return self._done or self._join.settled

    @property
    def begun(self) -> bool:
        """Whether anything of the answer has come."""
        return self._join.begun

    @property
    def answering(self) -> bool:
        """Whether any of the answer itself has come; reasoning is not."""
        return self._join.answering

    @property
    def signs(self) -> int:
        """How many reads have brought a comment, or a block without data: somebody is there."""
        return self._parser.signs

    @property
    def text(self) -> str:
        """The text that has come so far; the first choice's."""
        return self._join.text

    @property
    def max_event_bytes(self) -> int:
        """The longest event that is taken."""
        return self._max_event_bytes

    def feed(self, data: bytes) -> List[ChatChunk]:
        """The chunks that ``data``, the next bytes of the body, completes."""
        chunks: List[ChatChunk] = []
        self.size += len(data)
        for event in [] if self.ended else self._parser.feed(data):
            self.events += 1
            self._take(event, chunks)
            if self.ended:
                break
        if self._parser.overflowed and not self.ended:
            self._fail("overflow", f"has an event of more than {self._max_event_bytes:,} bytes")
        return chunks

    def end(self) -> List[ChatChunk]:
        """The chunks still kept back when the body has come to its end; what is missing becomes the fault."""
        unfinished = self._parser.unfinished
        for event in [] if self.ended else self._parser.end():
            # The blank line after it is all that is missing.
            self._done = self._done or self._is_done_mark(event.data)
            if not self._done:
                self._take_last(event)
        if not self.done and self.fault is None:
            self._fail("truncated", _how_it_ended(self.events, unfinished))
        self.ended = True
        return [] if self.fault else self._release()

    def completion(self, request_id: Optional[str] = None) -> ChatCompletion:
        """The whole answer, as it would have been without streaming; ``raw`` has the same shape.

        Raises:
            UnusableAnswer: it lacks what its path must have.
        """
        try:
            completion: ChatCompletion = decode_response(self._request, self._join.payload(), request_id)
        except RecursionError:
            raise UnusableAnswer("is nested too deeply") from None
        return completion

    def _take_last(self, event: ServerEvent) -> None:
        """Take an event that the end of the body has cut off: an error, if it is one, says why."""
        try:
            payload = loads(event.data)
        except ValueError:
            return
        if isinstance(payload, dict):
            self._has_error(event, payload)

    def _take(self, event: ServerEvent, chunks: List[ChatChunk]) -> None:
        data = event.data
        if self._is_done_mark(data):
            self._finish(chunks)
            return
        if event.name == BARE:
            self._take_last(event)
            return
        payload = self._decoded(event) if data.strip() else None
        if payload is None or self._has_error(event, payload):
            return
        try:
            chunk = self._join.take(event.name, payload)
        except UnusableAnswer as problem:
            error = None if problem.error is None else {"error": problem.error}
            self._fail("error" if error else "garbage", str(problem), error)
            return
        except RecursionError:  # whoever reads it has hardly any stack left
            self._fail("garbage", "has a chunk that is nested too deeply")
            return
        if self._held is None:
            chunks.append(chunk)
        else:
            self._held.append(chunk)
            if self._join.begun or len(self._held) > _MOST_HELD:
                chunks += self._release()
        if self._join.final:
            self.ended = True

    def _is_done_mark(self, data: str) -> bool:
        return data.startswith(_DONE) and data.strip() == _DONE

    def _finish(self, chunks: List[ChatChunk]) -> None:
        """``[DONE]`` has come."""
        if isinstance(self._join, ResponseAccumulator) and not self._join.whole:
            self._fail("truncated", "ended without its last event")
            return
        self._done = self.ended = True
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
        held, self._held = self._held or [], None
        return held


def _join_for(request: ChatRequest) -> Union[ChoiceAccumulator, ResponseAccumulator]:
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


def _how_it_ended(events: int, unfinished: bool) -> str:
    if unfinished:
        return "ended in the middle of an event"
    return "ended without a finish_reason or [DONE]" if events else "ended without a single event"
