"""Join requests for embeddings into one, and split its answer again."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..types import ChatRequest
from .accumulate import index_in
from .operations import EMBEDDINGS, operation_of
from .response import UnusableAnswer, amount_of, vector_numbers, whole_number

__all__ = [
    "TooFewVectors",
    "answer_with",
    "has_no_vectors",
    "is_empty",
    "join_requests",
    "shared_part",
    "split_response",
    "tokens_of",
    "vector_of",
]

# English has four characters a token and code three; other scripts up to three bytes of UTF-8 for one.
_CHARACTERS_PER_TOKEN = 3
_BYTES_PER_TOKEN = 2


def shared_part(request: ChatRequest) -> Optional[Mapping[str, Any]]:
    """Return the part that requests must have in common to be sent as one; None for a request that goes alone.

    Requests that can be joined ask for the embedding of one text, or of one list of token numbers.
    """
    if request.method != "POST" or operation_of(request.path) != EMBEDDINGS:
        return None
    text = request.body.get("input")
    is_one = isinstance(text, str) or (isinstance(text, (list, tuple)) and bool(text) and isinstance(text[0], int))
    if not is_one:
        return None
    return {**{name: value for name, value in request.body.items() if name != "input"}, "": request.path}


def tokens_of(request: ChatRequest) -> int:
    """Estimate the tokens in the text of a joinable request; rather too many than too few."""
    text = request.body["input"]
    if not isinstance(text, str):
        return len(text)
    if text.isascii():
        return len(text) // _CHARACTERS_PER_TOKEN + 1
    return len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1


def join_requests(requests: Sequence[ChatRequest]) -> ChatRequest:
    """Return one request for the texts of all; they have the same :func:`shared_part`."""
    first = requests[0]
    return ChatRequest({**first.body, "input": [request.body["input"] for request in requests]}, first.path)


class TooFewVectors(UnusableAnswer):
    """An answer with vectors for a part of the texts, which do not tell for which.

    Attributes:
        vectors: number of vectors in it.
    """

    def __init__(self, vectors: int, texts: int) -> None:
        super().__init__(f"has {vectors} vectors for {texts} texts")
        self.vectors = vectors


def split_response(answer: Any, weights: Sequence[int]) -> List[Dict[str, Any]]:
    """Return the answer to each of the requests that were joined, as the server would have given it.

    The tokens that all used together are divided by ``weights``.

    Raises:
        TooFewVectors: there is not one vector for each.
        UnusableAnswer: there is, and their numbers make no sense.
    """
    entries = _in_order([entry if isinstance(entry, dict) else {} for entry in answer["data"]], len(weights))
    rest = {name: value for name, value in answer.items() if name not in ("data", "usage")}
    shares = _shares(answer.get("usage"), weights)
    return [{**rest, "data": [{**entry, "index": 0}], **share} for entry, share in zip(entries, shares)]


def _in_order(entries: List[Dict[str, Any]], texts: int) -> List[Dict[str, Any]]:
    """Return the entries in the order of their texts.

    Servers number them from 0, from another number, anew for each of their own batches, all alike, or not at all.
    """
    if len(entries) != texts:
        raise TooFewVectors(len(entries), texts)
    indices = [_index_of(entry) for entry in entries]
    first = indices[0]
    if all(index in (first, previous + 1) for previous, index in zip([first - 1, *indices], indices)):
        return entries
    least = min(indices)
    if sorted(indices) != list(range(least, least + texts)):
        raise UnusableAnswer(f"has {texts} vectors whose numbers make no sense")
    ordered: List[Dict[str, Any]] = [{}] * texts
    for index, entry in zip(indices, entries):
        ordered[index - least] = entry
    return ordered


def _index_of(entry: Dict[str, Any]) -> int:
    index = entry.get("index")
    if isinstance(index, str) and index.isascii() and index.isdigit():
        index = int(index[:9])
    elif isinstance(index, float) and index.is_integer():
        index = int(index)
    return index_in(index) or 0  # Gemini leaves a 0 out


def _shares(usage: Any, weights: Sequence[int]) -> List[Dict[str, Any]]:
    """Return ``usage`` in parts that add up to it: tokens in whole numbers, money in fractions."""
    if not isinstance(usage, dict):
        return [{} for _ in weights]
    shares: Dict[str, List[Any]] = {}
    total_weight = sum(weights) or 1
    for name, value in usage.items():
        amount = amount_of(value)
        if amount is not None and "cost" in name:
            shares[name] = [amount / total_weight * weight for weight in weights]
        elif amount is not None:
            shares[name] = _whole_shares(whole_number(amount) or 0, weights)
    return [{"usage": {name: parts[place] for name, parts in shares.items()}} for place in range(len(weights))]


def _whole_shares(total: int, weights: Sequence[int]) -> List[int]:
    total_weight, before, shares = sum(weights) or 1, 0, []
    for weight in weights:
        shares.append(total * (before + weight) // total_weight - total * before // total_weight)
        before += weight
    return shares


def vector_of(answer: Any) -> List[float]:
    """Return the vector in the answer to one text.

    Raises:
        UnusableAnswer: there is none, or one with NaN or an infinity in it.
    """
    return vector_numbers(answer["data"][0].get("embedding"))


def answer_with(vector: List[float]) -> Dict[str, Any]:
    """Return an answer to one text that has this vector, as far as a vector tells."""
    return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}]}


def is_empty(answer: Any) -> bool:
    """Return whether an answer to one text has a place for its vector and nothing in it."""
    return answer["data"][0].get("embedding") in (None, [], "")


def has_no_vectors(answer: Any) -> bool:
    """Return whether an answer that should have vectors has an empty list of them."""
    return isinstance(answer, dict) and answer.get("data") == []
