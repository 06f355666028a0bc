"""What an error body says, in whichever of the usual forms it comes."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, NamedTuple, Optional

from .codec import loads
from .messages import cut

__all__ = ["ErrorFacts", "facts_of", "inner_error", "page_facts", "read_error"]

_LONGEST = 2000


class ErrorFacts(NamedTuple):
    """What a server said about an error.

    Attributes:
        message: its own words on one line, cut to 2,000 characters; "" without any.
        type: its ``error.type``.
        code: its ``error.code``.
        param: its ``error.param``.
        body: the decoded body: a dict, or text cut to 2,000 characters; None without one.
        flagged: whether it says that moderation flagged the prompt (OpenRouter's ``metadata``).
    """

    message: str = ""
    type: Optional[str] = None
    code: Any = None
    param: Optional[str] = None
    body: Any = None
    flagged: bool = False

    @property
    def words(self) -> FrozenSet[str]:
        """``type`` and ``code`` in lower case: servers put the same word into either."""
        return frozenset(word.lower() for word in (self.type, self.code) if isinstance(word, str))


def read_error(content: bytes) -> ErrorFacts:
    """The facts in the body of an error answer.  Never raises."""
    try:
        payload = loads(content)
    except (ValueError, RecursionError):
        return _facts_of_text(_head(content))
    if isinstance(payload, list) and payload and isinstance(payload[0], dict):
        payload = payload[0]  # Gemini wraps its error in a list
    if isinstance(payload, dict):
        return facts_of(payload)
    if isinstance(payload, str):
        return _facts_of_text(payload)
    return ErrorFacts() if payload is None else _facts_of_text(_head(content))


def inner_error(payload: Any) -> Any:
    """The error inside the JSON of an answer, None without one.

    ``{"error": ...}``, vLLM's ``{"object": "error", ...}`` and Gemini's ``[{"error": ...}]``.
    An ``error`` that is null or empty is none.
    """
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    if payload.get("error"):
        return payload["error"]
    return payload if payload.get("object") == "error" else None


def facts_of(payload: Dict[str, Any]) -> ErrorFacts:
    """The facts in a decoded body: OpenAI's form, ``{"error": text}``, ``{"message"}``, ``{"detail"}`` and mixtures."""
    error = payload.get("error")
    inner = error if isinstance(error, dict) else payload
    message = inner.get("message") or (error if isinstance(error, str) else None) or payload.get("detail")
    kind, code, param = inner.get("type"), inner.get("code"), inner.get("param")
    metadata = inner.get("metadata")
    return ErrorFacts(
        message=cut(_said(message), _LONGEST),
        type=kind if isinstance(kind, str) else None,
        code=code if isinstance(code, (str, int)) and not isinstance(code, bool) else None,
        param=param if isinstance(param, str) else None,
        body=payload,
        flagged=isinstance(metadata, dict) and "flagged_input" in metadata,
    )


def _said(message: Any) -> str:
    """A message as text.  FastAPI's list of complaints repeats the input, so only places and words are taken."""
    if isinstance(message, str):
        return message
    complaints = message if isinstance(message, list) else [message]
    return "; ".join(filter(None, map(_complaint, complaints[:5])))


def _complaint(complaint: Any) -> str:
    if not isinstance(complaint, dict):
        return complaint if isinstance(complaint, str) else ""
    words = (complaint.get(name) for name in ("msg", "message", "error", "detail"))
    said = next((word for word in words if isinstance(word, str)), "")
    place = complaint.get("loc")
    where = ".".join(str(step) for step in place if isinstance(step, (str, int))) if isinstance(place, list) else ""
    return f"{where}: {said}" if where and said else said


def page_facts(content: bytes) -> ErrorFacts:
    """The facts in a body that should have been an answer and is not JSON.

    Only a page's title is quoted: other text may be an answer or an echo of the prompt.
    """
    text = _head(content).strip()
    title = _title(text)
    return ErrorFacts(message=title or "", body=text or None)


def _facts_of_text(text: str) -> ErrorFacts:
    text = text.strip()[:_LONGEST]
    return ErrorFacts(message=cut(_title(text) or text, _LONGEST), body=text or None)


def _head(content: bytes) -> str:
    return content[: 4 * _LONGEST].decode("utf-8", "replace").strip()[:_LONGEST]


def _title(text: str) -> Optional[str]:
    """An HTML page by its title; None if the text is no page."""
    low = text.lower()
    if not (low.startswith(("<!doctype html", "<html", "<head")) or "<title" in low):
        return None
    title = text[low.find("<title") :].partition(">")[2].partition("<")[0] if "<title" in low else ""
    return f"an HTML page titled {cut(title, 200)!r}" if title.strip() else "an HTML page"
