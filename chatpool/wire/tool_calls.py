"""The tool calls of a streamed answer, of their pieces."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

from ..types import ToolCallDelta
from .codec import loads
from .pieces import JoinedObject, index_in

__all__ = ["CallsJoin"]


class CallsJoin:
    """The tool calls of one choice.

    OpenAI gives each call an ``index`` and an ``id``, and its name once.  Other servers leave out the index or say 0 of
    every call, leave the id empty, or repeat the name with every piece; then it counts whether the arguments that have
    come are a whole object already.
    """

    __slots__ = ("_calls", "_of_id", "_of_index")

    def __init__(self) -> None:
        self._calls: List[JoinedObject] = []
        self._of_index: Dict[Optional[int], int] = {}
        self._of_id: Dict[str, int] = {}

    def take(self, deltas: Any) -> Tuple[ToolCallDelta, ...]:
        """The pieces in ``deltas``, each with the place of its call among the choice's."""
        given = deltas if isinstance(deltas, list) else ()
        return tuple(self._take_one(delta) for delta in given if isinstance(delta, dict))

    def whole(self) -> List[Dict[str, Any]]:
        """The calls so far, as a message has them."""
        return [{"id": "", "type": "function", **call.whole()} for call in self._calls]

    def _take_one(self, delta: Dict[str, Any]) -> ToolCallDelta:
        part = delta.get("function")
        function = part if isinstance(part, dict) else {}
        id_, name, arguments = _text(delta.get("id")), _text(function.get("name")), _json(function.get("arguments"))
        place = self._place_of(_index(delta.get("index")), id_, name, arguments)
        call = self._calls[place]
        known_id, known_name = call.get("id"), _name_of(call)
        for field, value in delta.items():
            if field not in ("index", "function"):
                call.add(field, value)
        shown = _add_function(call.inner("function"), function, arguments) if function else ""
        return ToolCallDelta(place, "" if known_id else id_, "" if known_name else name, shown)

    def _place_of(self, index: Optional[int], id_: str, name: str, arguments: str) -> int:
        """Which call a piece belongs to."""
        place = self._of_index.get(index, len(self._calls) - 1 if index is None else -1)
        if place >= 0 and self._is_another(self._calls[place], id_, name, arguments):
            place = self._of_id.get(id_, -1) if id_ else -1
        if place < 0:
            place = len(self._calls)
            self._calls.append(JoinedObject())
        self._of_index[index] = place
        if id_:
            self._of_id.setdefault(id_, place)
        return place

    def _is_another(self, call: JoinedObject, id_: str, name: str, arguments: str) -> bool:
        """Whether a piece belongs to another call than ``call``, the last of its index."""
        known_id, known_name = _text(call.get("id")), _name_of(call)
        if id_ and known_id:
            # Some servers give every piece an id of its own, but no name.
            return id_ != known_id and bool(name or id_ in self._of_id)
        if not name or not known_name:
            return False
        return name != known_name or (arguments.lstrip().startswith("{") and _is_whole(call))


def _add_function(known: JoinedObject, piece: Dict[str, Any], arguments: str) -> str:
    """Add a piece of a function's call; returns what of the arguments it completes."""
    shown = ""
    for field, value in piece.items():
        if field == "arguments" and value is not None:
            shown = known.add_text(field, arguments)
        else:
            known.add(field, value)
    return shown


def _name_of(call: JoinedObject) -> str:
    function = call.get("function")
    return _text(function.get("name")) if isinstance(function, JoinedObject) else ""


def _is_whole(call: JoinedObject) -> bool:
    """Whether the arguments so far are a JSON object."""
    try:
        return isinstance(loads(call.inner("function").text("arguments")), dict)
    except ValueError:
        return False


def _index(stated: Any) -> Optional[int]:
    if isinstance(stated, str) and stated.isascii() and stated.isdigit():
        return int(stated[:9])
    return index_in(stated)


def _json(arguments: Any) -> str:
    """Arguments as JSON: some servers send the object itself."""
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, (dict, list)) else _text(arguments)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
