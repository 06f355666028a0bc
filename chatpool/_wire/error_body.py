"""Error bodies: the facts in one, in whichever of the usual forms it comes, and the message that is made of them.

A message names what happened, the call, the server's own message and what to do next.  It shows nothing of the prompt
and no secret.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Dict, FrozenSet, NamedTuple, Optional

from .._values import HTTPResponse
from ..types import ChatRequest
from .codec import loads

__all__ = [
    "PROXY_ADVICE",
    "ErrorFacts",
    "compose_message",
    "content_type_of",
    "error_facts_of",
    "name_call",
    "page_facts",
    "read_error",
    "shorten",
    "status_line",
    "through_proxy",
    "unusable_line",
    "without_ids",
    "without_secrets",
]

_MAX_CHARACTERS = 2000  # of a message and of a body that is text
_MAX_DEPTH = 4  # of errors inside errors


class ErrorFacts(NamedTuple):
    """Facts that a server states about an error.

    Attributes:
        message: its message on one line, cut to 2,000 characters; "" without any.
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
    def codes(self) -> FrozenSet[str]:
        """``type`` and ``code`` in lower case: servers put the same name into either."""
        return frozenset(name.lower() for name in (self.type, self.code) if isinstance(name, str))


# --- reading a body -----------------------------------------------------------------------------------------------


def read_error(content: bytes) -> ErrorFacts:
    """Return the facts in the body of an error response.  Never raises."""
    try:
        payload = loads(content)
    except ValueError:
        return _error_facts_of_text(_head(content))
    if isinstance(payload, list) and payload and isinstance(payload[0], dict):
        payload = payload[0]  # Gemini wraps its error in a list
    if isinstance(payload, dict):
        return error_facts_of(payload)
    if isinstance(payload, str):
        return _error_facts_of_text(payload)
    return ErrorFacts() if payload is None else _error_facts_of_text(_head(content))


# Fields that hold an error, and those that hold its message, the most telling first; without regard to case.
_ERROR_FIELDS = ("error", "errors", "fault", "base_resp", "detail")
_MESSAGE_FIELDS = (
    "message",
    "msg",
    "error_msg",
    "error_message",
    "errormessage",
    "error_description",
    "status_msg",
    "faultstring",
    "error",
    "errors",
    "detail",
    "description",
    "reason",
    "title",
)
_CODE_FIELDS = ("code", "error_code", "errorcode", "status_code")


def error_facts_of(payload: Dict[str, Any]) -> ErrorFacts:
    """Return the facts in a decoded body: OpenAI's form, or one of those that gateways have of their own."""
    outer = _lowered(payload)
    inner = _inner_object(outer) or outer
    has_list = isinstance(outer.get("errors"), list) and not outer.get("error")
    message = _message_text(outer["errors"]) if has_list else _message_in(inner) or _message_in(outer)
    error_type, param, metadata = inner.get("type"), inner.get("param"), inner.get("metadata")
    return ErrorFacts(
        message=shorten(message, _MAX_CHARACTERS),
        type=error_type if isinstance(error_type, str) else None,
        code=_code_in(inner, outer),
        param=param if isinstance(param, str) else None,
        body=payload,
        flagged=isinstance(metadata, dict) and "flagged_input" in metadata,
    )


def _lowered(fields: Dict[str, Any]) -> Dict[str, Any]:
    return {name.lower(): value for name, value in fields.items() if isinstance(name, str)}


def _inner_object(outer: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the object that describes the error, where it is not the body itself; the first of a list of them."""
    for name in _ERROR_FIELDS:
        value = outer.get(name)
        if isinstance(value, list) and value and name != "detail":  # which is FastAPI's, a list of complaints
            value = value[0]
        if isinstance(value, dict) and value:
            return _lowered(value)
    return None


def _code_in(inner: Dict[str, Any], outer: Dict[str, Any]) -> Any:
    codes = [inner.get(name) for name in _CODE_FIELDS] + [outer.get("code")]
    return next((code for code in codes if isinstance(code, (str, int)) and not isinstance(code, bool)), None)


def _message_in(fields: Dict[str, Any], depth: int = 0) -> str:
    """Return the first message among the fields that may hold one, "" without any."""
    return next(filter(None, (_message_text(fields.get(name), depth) for name in _MESSAGE_FIELDS)), "")


def _message_text(message: Any, depth: int = 0) -> str:
    """Return a message as text.

    FastAPI's list of complaints repeats the input: only the places and the messages are taken.
    """
    if isinstance(message, str):
        return message
    if depth >= _MAX_DEPTH:
        return ""
    if isinstance(message, list):
        return "; ".join(filter(None, (_message_text(complaint, depth + 1) for complaint in message[:5])))
    if not isinstance(message, dict):
        return ""
    text, location = _message_in(_lowered(message), depth + 1), message.get("loc")
    steps = location if isinstance(location, list) else ()
    place = ".".join(str(step) for step in steps if isinstance(step, (str, int)))
    return f"{place}: {text}" if place and text else text


def page_facts(content: bytes) -> ErrorFacts:
    """Return the facts in a body that should have been an answer and is not JSON.

    Only a page's title is quoted: other text may be an answer or an echo of the prompt.
    """
    text = _head(content).strip()
    title = _title(text)
    return ErrorFacts(message=title or "", body=text or None)


def _error_facts_of_text(text: str) -> ErrorFacts:
    text = text.strip()[:_MAX_CHARACTERS]
    return ErrorFacts(message=shorten(_title(text) or text, _MAX_CHARACTERS), body=text or None)


def _head(content: bytes) -> str:
    return content[: 4 * _MAX_CHARACTERS].decode("utf-8", "replace").strip()[:_MAX_CHARACTERS]


def _title(text: str) -> Optional[str]:
    """Return an HTML page's title, in a few words about the page; None if the text is no page."""
    lowered = text.lower()
    if not (lowered.startswith(("<!doctype html", "<html", "<head")) or "<title" in lowered):
        return None
    title = text[lowered.find("<title") :].partition(">")[2].partition("<")[0] if "<title" in lowered else ""
    return f"an HTML page titled {shorten(title, 200)!r}" if title.strip() else "an HTML page"


# --- writing a message --------------------------------------------------------------------------------------------

_QUOTED_CHARACTERS = 300  # of the server's message

PROXY_ADVICE = "check proxies=, HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or put the host into NO_PROXY"

_PROXY_STATUSES = frozenset({401, 403, 407})  # tinyproxy says 401 to a wrong login
_PLAIN_PROXY_STATUSES = _PROXY_STATUSES | {500, 502, 503, 504}  # and any of these where the server does not answer


def compose_message(summary: str, call: str, server_message: str, advice: str) -> str:
    """Return one line of text for a person; nothing of the prompt is in it.

    Args:
        summary: what happened.
        call: the call it happened to, see :func:`name_call`.
        server_message: the server's own message, of which 300 characters are quoted; "" without one.
        advice: what to do next.
    """
    quoted = shorten(server_message, _QUOTED_CHARACTERS).rstrip(" .;:")
    return f"{summary} ({call}){': ' + quoted if quoted else ''}; {advice}"


def through_proxy(message: str, response: HTTPResponse) -> str:
    """Return ``message`` of a refusal, with the proxy's name and advice where the proxy may have refused itself."""
    if not response.proxy or response.proxy.startswith("socks"):  # that one does not speak HTTP
        return message
    # What comes out of a tunnel is the server's, except at proxies that open TLS: they refuse people, not hosts.
    if response.status not in (_PROXY_STATUSES if response.url.startswith("https:") else _PLAIN_PROXY_STATUSES):
        return message
    return f"{message}; it came through the proxy {response.proxy}, which may have refused it itself: {PROXY_ADVICE}"


def name_call(request: ChatRequest, response: HTTPResponse, request_id: Optional[str]) -> str:
    """Return path, model and request id; the whole URL instead of the path where base_url may be to blame."""
    blames_url = response.url and (response.status == 404 or 300 <= response.status < 400)
    parts = [shorten(without_secrets(response.url) if blames_url else request.path, 200)]
    if request.model:
        parts.append(f"model {shorten(request.model, 100)!r}")
    if request_id:
        parts.append(f"request id {request_id}")
    return ", ".join(parts)


def status_line(response: HTTPResponse, status: int) -> str:
    """Return a summary of ``response`` by its status, ``HTTP 429 Too Many Requests``; for a redirect with its target.

    Args:
        response: the response.
        status: its status, or the one that the error inside it stands for.
    """
    line = f"HTTP {status}{_phrase(status)}"
    if response.status != status:
        return f"{line} inside an HTTP {response.status}"
    if 300 <= status < 400:
        location = response.headers.get("location")
        return f"{line} to {shorten(without_secrets(location), 200)}" if location else f"{line} without a Location"
    return line


def unusable_line(response: HTTPResponse, problem: str) -> str:
    """Return a summary of a response whose status promised a good answer."""
    size = f"{len(response.content):,} bytes"
    return f"unusable answer: HTTP {response.status} ({content_type_of(response)}, {size}) {problem}"


def content_type_of(response: HTTPResponse) -> str:
    """Return the content type for a message, without its parameters."""
    return shorten(str(response.headers.get("content-type") or "").partition(";")[0], 60) or "no content type"


def shorten(text: str, max_characters: int) -> str:
    """Return ``text`` on one line, cut to ``max_characters``."""
    line = " ".join(text[: 4 * max_characters].split())
    return line if len(line) <= max_characters else line[: max_characters - 3] + "..."


# What servers put into the same message anew each time: identifiers and times.
_IDS = r"(?i)\b(?:req|request|chatcmpl|trace|call)[-_]\w+|\b[0-9a-f]{8}-[0-9a-f-]{10,}|\b[0-9a-f]{12,}\b"
_TIMES = r"\d{4}-\d\d-\d\d[ T]?[\d:.,+Z]*|\b\d{1,2}:\d\d:\d\d\S*|\b\d{10,}\b"


def without_ids(message: str, request_id: Optional[str]) -> str:
    """Return ``message`` without identifiers and times, to be compared with other messages."""
    if request_id:
        message = message.replace(request_id, "#")
    return re.sub(_TIMES, "#", re.sub(_IDS, "#", message))


_USER = r"//[^/@\s'\"]*@"
_QUERY = r"\?[^\s'\"<>()]*"


def without_secrets(text: str) -> str:
    """Return ``text`` with user, password and query taken out of its URLs: a key may be there."""
    return re.sub(_QUERY, "", re.sub(_USER, "//", text))


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
