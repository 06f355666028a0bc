"""What an error body says, in whichever of the usual forms it comes.

The words of an error: what happened, to which call, in the server's words, and what to do next.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Dict, FrozenSet, NamedTuple, Optional

from .._values import HTTPResponse
from ..types import ChatRequest
from .codec import loads

__all__ = [
    "ErrorFacts",
    "compose_message",
    "facts_of",
    "inner_error",
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


_LONGEST_SAID = 300


def compose_message(what: str, call: str, said: str, cure: str) -> str:
    """One line of text for a person; nothing of the prompt is in it.

    Args:
        what: what happened.
        call: which call it happened to.
        said: the server's own message, of which 300 characters are quoted; "" without one.
        cure: what to do next.
    """
    words = shorten(said, _LONGEST_SAID).rstrip(" .;:")
    return f"{what} ({call}){': ' + words if words else ''}; {cure}"


PROXY_CURE = "check proxies=, HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or put the host into NO_PROXY"

_OF_PROXIES = frozenset({401, 403, 407})  # tinyproxy says 401 to a wrong login
_OF_PLAIN_PROXIES = _OF_PROXIES | {500, 502, 503, 504}  # and any of these where the server does not answer


def through_proxy(message: str, reply: HTTPResponse) -> str:
    """``message`` of a refusal that may be a proxy's own, with its name and its cure."""
    if not reply.proxy or reply.proxy.startswith("socks"):  # that one does not speak HTTP
        return message
    # What comes out of a tunnel is the server's, except at proxies that open TLS: they refuse people, not hosts.
    if reply.status not in (_OF_PROXIES if reply.url.startswith("https:") else _OF_PLAIN_PROXIES):
        return message
    return f"{message}; it came through the proxy {reply.proxy}, which may have refused it itself: {PROXY_CURE}"


def name_call(request: ChatRequest, reply: HTTPResponse, request_id: Optional[str]) -> str:
    """Path, model and request id; the whole URL instead of the path where base_url may be to blame."""
    blames_url = reply.url and (reply.status == 404 or 300 <= reply.status < 400)
    parts = [shorten(without_secrets(reply.url) if blames_url else request.path, 200)]
    if request.model:
        parts.append(f"model {shorten(request.model, 100)!r}")
    if request_id:
        parts.append(f"request id {request_id}")
    return ", ".join(parts)


def status_line(reply: HTTPResponse, status: int) -> str:
    """``reply`` by its status, ``HTTP 429 Too Many Requests``; for a redirect with its target."""
    line = f"HTTP {status}{_phrase(status)}"
    if reply.status != status:
        return f"{line} inside an HTTP {reply.status}"
    if 300 <= status < 400:
        location = reply.headers.get("location")
        return f"{line} to {shorten(without_secrets(location), 200)}" if location else f"{line} without a Location"
    return line


def unusable_line(reply: HTTPResponse, problem: str) -> str:
    """What is wrong with an answer whose status promised a good one."""
    kind = shorten(str(reply.headers.get("content-type") or "").partition(";")[0], 60) or "no content type"
    return f"unusable answer: HTTP {reply.status} ({kind}, {len(reply.content):,} bytes) {problem}"


def shorten(text: str, longest: int) -> str:
    """``text`` on one line, cut to ``longest`` characters."""
    line = " ".join(text[: 4 * longest].split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


# What servers put into the same message anew each time: identifiers and times.
_IDS = re.compile(
    r"\b(?:req|request|chatcmpl|trace|call)[-_]\w+|\b[0-9a-f]{8}-[0-9a-f-]{10,}|\b[0-9a-f]{12,}\b", re.IGNORECASE
)
_TIMES = re.compile(r"\d{4}-\d\d-\d\d[ T]?[\d:.,+Z]*|\b\d{1,2}:\d\d:\d\d\S*|\b\d{10,}\b")


def without_ids(words: str, request_id: Optional[str]) -> str:
    """``words`` of a message without what differs between two messages that say the same."""
    if request_id:
        words = words.replace(request_id, "#")
    return _TIMES.sub("#", _IDS.sub("#", words))


_USER = re.compile(r"//[^/@\s'\"]*@")
_QUERY = re.compile(r"\?[^\s'\"<>()]*")


def without_secrets(text: str) -> str:
    """``text`` with its URLs rid of user, password and query, where a key may be."""
    return _QUERY.sub("", _USER.sub("//", text))


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


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
    except ValueError:
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

    ``{"error": ...}``, vLLM's ``{"object": "error", ...}``, Gemini's ``[{"error": ...}]``, Cloudflare's
    ``{"success": false, "errors": [...]}`` and MiniMax's ``{"base_resp": {"status_code": 1008, ...}}``.
    An ``error`` that is null or empty is none.
    """
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    if payload.get("error"):
        return payload["error"]
    if payload.get("success") is False and payload.get("errors"):
        return payload["errors"]
    status = payload.get("base_resp")
    if isinstance(status, dict) and status.get("status_code") not in (None, 0, "0"):
        return status
    return payload if payload.get("object") == "error" else None


# Fields that hold an error, and those that hold its words, the most telling first; without regard to case.
_HOLDERS = ("error", "errors", "fault", "base_resp", "detail")
_WORDS = (
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
_CODES = ("code", "error_code", "errorcode", "status_code")
_DEEPEST = 4  # of errors inside errors


def facts_of(payload: Dict[str, Any]) -> ErrorFacts:
    """The facts in a decoded body: OpenAI's form, or one of those that gateways have of their own."""
    outer = _lowered(payload)
    inner = _holder(outer) or outer
    several = isinstance(outer.get("errors"), list) and not outer.get("error")
    kind, param = inner.get("type"), inner.get("param")
    metadata = inner.get("metadata")
    return ErrorFacts(
        message=shorten(_said(outer["errors"]) if several else _words_of(inner) or _words_of(outer), _LONGEST),
        type=kind if isinstance(kind, str) else None,
        code=_code_of(inner, outer),
        param=param if isinstance(param, str) else None,
        body=payload,
        flagged=isinstance(metadata, dict) and "flagged_input" in metadata,
    )


def _lowered(fields: Dict[str, Any]) -> Dict[str, Any]:
    return {name.lower(): value for name, value in fields.items() if isinstance(name, str)}


def _holder(outer: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The object that tells of the error, where it is not the body itself; the first of a list of them."""
    for name in _HOLDERS:
        held = outer.get(name)
        if isinstance(held, list) and held and name != "detail":  # which is FastAPI's, a list of complaints
            held = held[0]
        if isinstance(held, dict) and held:
            return _lowered(held)
    return None


def _code_of(inner: Dict[str, Any], outer: Dict[str, Any]) -> Any:
    given = [fields.get(name) for fields in (inner, outer) for name in _CODES if fields is inner or name == "code"]
    return next((code for code in given if isinstance(code, (str, int)) and not isinstance(code, bool)), None)


def _words_of(fields: Dict[str, Any], depth: int = 0) -> str:
    """The first words among the fields that may hold some."""
    return next(filter(None, (_said(fields.get(name), depth) for name in _WORDS)), "")


def _said(message: Any, depth: int = 0) -> str:
    """A message as text.  FastAPI's list of complaints repeats the input, so only places and words are taken."""
    if isinstance(message, str):
        return message
    if depth >= _DEEPEST:
        return ""
    if isinstance(message, list):
        return "; ".join(filter(None, (_said(complaint, depth + 1) for complaint in message[:5])))
    if not isinstance(message, dict):
        return ""
    said, place = _words_of(_lowered(message), depth + 1), message.get("loc")
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
    return ErrorFacts(message=shorten(_title(text) or text, _LONGEST), body=text or None)


def _head(content: bytes) -> str:
    return content[: 4 * _LONGEST].decode("utf-8", "replace").strip()[:_LONGEST]


def _title(text: str) -> Optional[str]:
    """An HTML page by its title; None if the text is no page."""
    low = text.lower()
    if not (low.startswith(("<!doctype html", "<html", "<head")) or "<title" in low):
        return None
    title = text[low.find("<title") :].partition(">")[2].partition("<")[0] if "<title" in low else ""
    return f"an HTML page titled {shorten(title, 200)!r}" if title.strip() else "an HTML page"
