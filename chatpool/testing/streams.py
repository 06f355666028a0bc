"""The step of a script that is a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Union

from ..errors import ConfigurationError
from .actions import Action
from .framing import HeaderFields, header_pairs
from .received import ReceivedRequest
from .steps import Answer, Answerer, Step
from .stream_actions import Piece, StreamForm, check_pieces, stream_actions, wants_stream

__all__ = ["Stream"]


@dataclass(frozen=True)
class Stream(Step):
    r"""An answer in pieces (server-sent events), whole or broken off.

    It fits the request's path: chat completions, completions or responses.  A request that does not ask for a
    stream gets the same text as an :class:`Answer`.

    Args:
        pieces: the texts of the chunks. Default: what the server would have answered anyway, a word per chunk.
            Between them may stand a dict, sent as a chunk of its own (``{"error": {...}}``), and bytes, sent as they
            are (``b": keep-alive\n\n"``, ``b"data: {no json\n\n"``). The chunk with the role goes before the
            first text.
        end: what follows the pieces:

            - ``"done"``: the finish_reason, usage if ``stream_options`` asks for it, ``[DONE]`` (of a response: its
              last event);
            - ``"no_done"``: the same without ``[DONE]``; ``"no_reason"``: ``[DONE]`` alone;
            - ``"cut"``: nothing, the body ends in the orderly way; ``"hangup"``: the connection is closed though the
              body has not ended; ``"reset"``: it is reset;
            - ``"stall"``: silence; ``"open"``: all that ``"done"`` sends, and silence instead of the body's end;
            - a dict: one more event, such as an error, and the end of the body.
        finish_reason: why the model stops. Default: what the whole answer would say.
        body: the body of the whole answer, instead of ``pieces``: with tool calls, say (:func:`chat_completion`).
        every: seconds before each event.
        newline: the end of each line: ``"\n"``, ``"\r\n"`` or ``"\r"``.
        several_lines: whether each event's JSON is spread over several ``data:`` lines.
        headers: header fields, as for :class:`Answer`.
        framing: ``"chunked"``, an event per HTTP chunk, or ``"close"`` (the end of the connection ends the body).

    Examples::

        Stream(["Once", " upon"])                                        # two chunks of text
        Stream(["Once", " upon"], end="cut")                             # a truncated answer
        Stream(["Once"], end={"error": {"message": "overloaded", "code": "server_is_overloaded"}})
        Drip(size=7, every=0, part="body", then=Stream(["é" * 1000]))    # read in pieces that fit nothing

    Raises:
        TypeError: a piece is of another kind.
        ConfigurationError: both ``pieces`` and ``body`` are given, or a value is out of range.
    """

    pieces: Optional[Sequence[Piece]] = None
    end: Union[str, Mapping[str, Any]] = "done"
    finish_reason: Optional[str] = None
    body: Optional[Mapping[str, Any]] = None
    every: float = 0.0
    newline: str = "\n"
    several_lines: bool = False
    headers: HeaderFields = ()
    framing: str = "chunked"

    def __post_init__(self) -> None:
        if self.pieces is not None and self.body is not None:
            raise ConfigurationError("give pieces or body, not both")
        object.__setattr__(self, "pieces", check_pieces(self.pieces))
        object.__setattr__(self, "headers", header_pairs(self.headers))
        self._form().check()

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The answer's events, one after the other."""
        whole = Answer(body=self.body, headers=self.headers)
        if self.pieces is not None:
            whole = Answer("".join(piece for piece in self.pieces if isinstance(piece, str)), headers=self.headers)
        if not wants_stream(request):
            return whole.actions(request, model)
        status, content = model.content(request, whole.text)
        if self.body is not None:
            content = self.body
        streamed = stream_actions(request, content, self.pieces, self._form()) if status == 200 else None
        return whole.actions(request, model) if streamed is None else streamed

    def _form(self) -> StreamForm:
        return StreamForm(
            self.end, self.finish_reason, self.every, self.newline, self.several_lines, self.headers, self.framing
        )
