"""Classification of the answers to polls: those that ask for a response which the server makes in the background."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from .._values import BackgroundResponse, HTTPResponse, Verdict
from ..errors import NotFoundError
from ..types import ChatRequest
from .classification import classify_response
from .codec import loads
from .error_body import shorten
from .response import is_over

__all__ = ["classify_poll"]

_SHOWN_CHARACTERS = 100


def classify_poll(response: HTTPResponse, polled: BackgroundResponse, request: ChatRequest, **evidence: Any) -> Verdict:
    """Return what the answer to a poll means for the call.  Never raises, whatever the server sent.

    A response that has ended is classified as if it were the answer to ``request``.  Where the poll itself has failed,
    the verdict still names the response: it is there to be asked for again.

    Args:
        response: the answer.
        polled: the response that was asked for.
        request: what has started it.
        evidence: as for :func:`classify_response`.
    """
    if not 200 <= response.status < 300:
        return _failed_poll(classify_response(response, polled.poll, **evidence), polled)
    verdict = classify_response(response, request, **evidence)
    if verdict.kind == "success" or is_over(_payload(response)):
        return verdict
    return verdict._replace(background=polled)  # whatever id the answer names: it was asked for by this one


def _failed_poll(verdict: Verdict, polled: BackgroundResponse) -> Verdict:
    if verdict.status != 404:
        return verdict._replace(background=polled, fingerprint=None)
    message = (
        f"the server no longer has the response {shorten(polled.id, _SHOWN_CHARACTERS)}, which it was to make in the "
        "background; servers keep such responses for a limited time: ask anew, which is paid anew"
    )
    facts: Dict[str, Any] = {name: getattr(verdict.error, name, None) for name in ("code", "type", "param", "body")}
    error = NotFoundError(message, status_code=404, request_id=verdict.request_id, **facts)
    return Verdict("fail", error=error, status=404, request_id=verdict.request_id, about="gone")


def _payload(response: HTTPResponse) -> Mapping[str, Any]:
    try:
        payload = loads(response.content)
    except ValueError:
        return {}
    return payload if isinstance(payload, dict) else {}
