"""The words of an error: what happened, to which call, in the server's words, and what to do next."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Optional

from ..types import ChatRequest, Reply

__all__ = [
    "compose",
    "cut",
    "name_call",
    "status_line",
    "through_proxy",
    "unusable_line",
    "without_ids",
    "without_secrets",
]

_LONGEST_SAID = 300


def compose(what: str, call: str, said: str, cure: str) -> str:
    """One line of text for a person; nothing of the prompt is in it.

    Args:
        what: what happened.
        call: which call it happened to.
        said: the server's own message, of which 300 characters are quoted; "" without one.
        cure: what to do next.
    """
    words = cut(said, _LONGEST_SAID).rstrip(" .;:")
    return f"{what} ({call}){': ' + words if words else ''}; {cure}"


PROXY_CURE = "check proxies=, HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or put the host into NO_PROXY"

_OF_PROXIES = frozenset({401, 403, 407})  # tinyproxy says 401 to a wrong login
_OF_PLAIN_PROXIES = _OF_PROXIES | {500, 502, 503, 504}  # and any of these where the server does not answer


def through_proxy(message: str, reply: Reply) -> str:
    """``message`` of a refusal that may be a proxy's own, with its name and its cure."""
    if not reply.proxy or reply.proxy.startswith("socks"):  # that one does not speak HTTP
        return message
    # What comes out of a tunnel is the server's, except at proxies that open TLS: they refuse people, not hosts.
    if reply.status not in (_OF_PROXIES if reply.url.startswith("https:") else _OF_PLAIN_PROXIES):
        return message
    return f"{message}; it came through the proxy {reply.proxy}, which may have refused it itself: {PROXY_CURE}"


def name_call(request: ChatRequest, reply: Reply, request_id: Optional[str]) -> str:
    """Path, model and request id; the whole URL instead of the path where base_url may be to blame."""
    blames_url = reply.url and (reply.status == 404 or 300 <= reply.status < 400)
    parts = [cut(without_secrets(reply.url) if blames_url else request.path, 200)]
    if request.model:
        parts.append(f"model {cut(request.model, 100)!r}")
    if request_id:
        parts.append(f"request id {request_id}")
    return ", ".join(parts)


def status_line(reply: Reply, status: int) -> str:
    """``reply`` by its status, ``HTTP 429 Too Many Requests``; for a redirect with its target."""
    line = f"HTTP {status}{_phrase(status)}"
    if reply.status != status:
        return f"{line} inside an HTTP {reply.status}"
    if 300 <= status < 400:
        location = reply.headers.get("location")
        return f"{line} to {cut(without_secrets(location), 200)}" if location else f"{line} without a Location"
    return line


def unusable_line(reply: Reply, problem: str) -> str:
    """What is wrong with an answer whose status promised a good one."""
    kind = cut(str(reply.headers.get("content-type") or "").partition(";")[0], 60) or "no content type"
    return f"unusable answer: HTTP {reply.status} ({kind}, {len(reply.content):,} bytes) {problem}"


def cut(text: str, longest: int) -> str:
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
