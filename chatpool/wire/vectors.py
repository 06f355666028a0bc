"""Many texts in one request for embeddings, and the answer taken apart again."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..types import ChatRequest
from .answers import UnusableAnswer, decode
from .paths import EMBEDDINGS, operation_of

__all__ = ["joined", "shared_part", "taken_apart", "tokens_of", "vector_of"]

# English has four characters a token and code three; other scripts up to three bytes of UTF-8 for one.
_CHARACTERS_PER_TOKEN = 3
_BYTES_PER_TOKEN = 2


def shared_part(request: ChatRequest) -> Optional[Mapping[str, Any]]:
    """What requests must have in common to be sent as one; None for a request that goes alone.

    Those that can be joined ask for the embedding of one text, or of one list of token numbers.
    """
    if request.method != "POST" or operation_of(request.path) != EMBEDDINGS:
        return None
    text = request.body.get("input")
    is_one = isinstance(text, str) or (isinstance(text, (list, tuple)) and bool(text) and isinstance(text[0], int))
    if not is_one:
        return None
    return {**{name: value for name, value in request.body.items() if name != "input"}, "": request.path}


def tokens_of(request: ChatRequest) -> int:
    """About how many tokens the text of a joinable request has; rather too many than too few."""
    text = request.body["input"]
    if not isinstance(text, str):
        return len(text)
    if text.isascii():
        return len(text) // _CHARACTERS_PER_TOKEN + 1
    return len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1


def joined(requests: Sequence[ChatRequest]) -> ChatRequest:
    """One request for the texts of all; they have the same :func:`shared_part`."""
    first = requests[0]
    return ChatRequest({**first.body, "input": [request.body["input"] for request in requests]}, first.path)


def taken_apart(answer: Any, weights: Sequence[int]) -> List[Dict[str, Any]]:
    """The answer to each of the requests that were joined, as the server would have given it.

    The tokens that all used together are shared out by ``weights``.

    Raises:
        UnusableAnswer: there is not one vector for each.
    """
    found: Dict[int, Any] = {}
    for place, entry in enumerate(answer["data"]):
        if isinstance(entry, dict):
            index = entry.get("index", place)
            found[index if isinstance(index, int) else place] = entry
    if sorted(found) != list(range(len(weights))):
        raise UnusableAnswer(f"has {len(found)} vectors for {len(weights)} texts")
    rest = {name: value for name, value in answer.items() if name not in ("data", "usage")}
    shares = _shares(answer.get("usage"), weights)
    return [
        {**rest, "data": [{**found[place], "index": 0}], **share} for place, share in zip(range(len(weights)), shares)
    ]


def _shares(usage: Any, weights: Sequence[int]) -> List[Dict[str, Any]]:
    """``usage`` in whole numbers that add up to it."""
    if not isinstance(usage, dict):
        return [{} for _ in weights]
    split = {
        name: _split(value, weights)
        for name, value in usage.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return [{"usage": {name: parts[place] for name, parts in split.items()}} for place in range(len(weights))]


def _split(total: int, weights: Sequence[int]) -> List[int]:
    whole, before, shares = sum(weights) or 1, 0, []
    for weight in weights:
        shares.append(total * (before + weight) // whole - total * before // whole)
        before += weight
    return shares


def vector_of(request: ChatRequest, answer: Any) -> List[float]:
    """The vector in the answer to one text.

    Raises:
        UnusableAnswer: there is none.
    """
    vector: List[float] = decode(request, answer, None)
    return vector
