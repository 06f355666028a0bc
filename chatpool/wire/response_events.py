"""The events of a streamed answer of the Responses API.

Their names: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional

from ..types import ChatChunk, ChatRequest, ToolCallDelta
from .answers import UnusableAnswer, decode
from .pieces import JoinedText, index_in

__all__ = ["ResponseJoin"]


class ResponseJoin:
    """Follows the events up to the one that holds the whole answer.

    Attributes:
        begun: whether anything of the answer has come; that it was created is nothing.
        answering: whether any of the answer itself has come; reasoning is not.
    """

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._text = JoinedText()
        self._arguments: Dict[int, JoinedText] = {}
        self._calls: Dict[int, int] = {}
        self._items: Dict[int, Any] = {}
        self._reasoning_of: Any = None  # the place of the last piece of reasoning
        self._response: Optional[Dict[str, Any]] = None
        self.begun = False
        self.answering = False

    @property
    def whole(self) -> bool:
        """Whether the whole answer has come."""
        return self._response is not None

    final = settled = whole

    @property
    def text(self) -> str:
        """The text so far."""
        return str(self._text)

    def take(self, name: str, payload: Dict[str, Any]) -> ChatChunk:
        """The chunk that ``payload``, the JSON of an event called ``name``, is.

        Raises:
            UnusableAnswer: it says that the model failed.
        """
        kind = payload.get("type")
        kind = kind if isinstance(kind, str) else name
        chunk = ChatChunk(raw=payload)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, payload, chunk)
        is_delta = kind.endswith(".delta")
        self.begun = self.begun or self.whole or is_delta or bool(chunk.tool_calls)
        self.answering = self.answering or (is_delta and "reasoning" not in kind) or bool(chunk.tool_calls)
        return chunk

    def payload(self) -> Dict[str, Any]:
        """The body of a whole answer that says the same."""
        return self._response or {}

    def _text_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            chunk.text = self._text.add(delta)

    def _reasoning_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            place = payload.get("output_index"), payload.get("summary_index")
            apart = "\n\n" if self._reasoning_of not in (None, place) else ""  # as in the whole answer
            chunk.reasoning, self._reasoning_of = apart + delta, place

    def _item_added(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        item = payload.get("item")
        if isinstance(item, dict) and item.get("type") == "function_call":
            said = (item.get(name) for name in ("call_id", "name", "arguments"))
            texts = (text if isinstance(text, str) else "" for text in said)
            chunk.tool_calls = (ToolCallDelta(self._place_of(payload), *texts),)

    def _arguments_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            place = self._place_of(payload)
            arguments = self._arguments.setdefault(place, JoinedText())
            chunk.tool_calls = (ToolCallDelta(place, arguments=arguments.add(delta)),)

    def _place_of(self, payload: Mapping[str, Any]) -> int:
        """Which tool call an event is about: its place among the calls, not among all that the model puts out."""
        return self._calls.setdefault(index_in(payload.get("output_index")) or 0, len(self._calls))

    def _item_done(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        index = index_in(payload.get("output_index"))
        self._items[len(self._items) if index is None else index] = payload.get("item")

    def _ended(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        response = _response_in(payload)
        if not response.get("output") and self._items:
            # Some servers leave out of the whole answer what they have sent in parts.
            response = {**response, "output": [self._items[index] for index in sorted(self._items)]}
        completion = decode(self._request, response, None)
        chunk.finish_reason, chunk.usage = completion.finish_reason, completion.usage
        self._response = response

    def _failed(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        error = _response_in(payload).get("error")
        raise UnusableAnswer("has the status 'failed'", error if isinstance(error, dict) else None)


def _response_in(payload: Mapping[str, Any]) -> Dict[str, Any]:
    response = payload.get("response")
    if not isinstance(response, dict):
        raise UnusableAnswer("ends without the whole response")
    return response


_HANDLERS: Mapping[str, Callable[[ResponseJoin, Mapping[str, Any], ChatChunk], None]] = {
    "response.output_text.delta": ResponseJoin._text_delta,
    "response.reasoning_text.delta": ResponseJoin._reasoning_delta,
    "response.reasoning_summary_text.delta": ResponseJoin._reasoning_delta,
    "response.reasoning.delta": ResponseJoin._reasoning_delta,  # of some months of 2025
    "response.reasoning_summary.delta": ResponseJoin._reasoning_delta,
    "response.output_item.added": ResponseJoin._item_added,
    "response.output_item.done": ResponseJoin._item_done,
    "response.function_call_arguments.delta": ResponseJoin._arguments_delta,
    "response.completed": ResponseJoin._ended,
    "response.incomplete": ResponseJoin._ended,
    "response.failed": ResponseJoin._failed,
}
