"""What the body of a good answer is: a stream of events, JSON, or something else."""

from __future__ import annotations

from typing import Mapping, Optional

__all__ = ["begins_with_events", "is_event_stream", "says_json"]

_MARK = b"\xef\xbb\xbf"
_NO_EVENTS = (b"{", b"[", b"<", b'"')
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")


def is_event_stream(headers: Mapping[str, str], start: bytes, *, ended: bool) -> Optional[bool]:
    """Whether the body of a good answer is a stream of events; None while too little of it has come to tell.

    Its first bytes tell. Some servers do not stream and answer with JSON, whole, or with a page; others stream, and
    call it JSON, or JSON a stream. The content type counts where they do not tell.

    Args:
        headers: the answer's headers.
        start: the beginning of its body.
        ended: whether that is all of it.
    """
    begin = start.removeprefix(_MARK).lstrip()
    if begin.startswith(_NO_EVENTS):
        return False
    if begin.startswith(_FIELDS):
        return True
    if not ended and (_MARK.startswith(start) or any(field.startswith(begin) for field in _FIELDS)):
        return None
    kind = _kind(headers)
    return not (kind.endswith("json") or kind in ("text/html", "application/xhtml+xml"))


def begins_with_events(content: bytes) -> bool:
    """Whether a body that is not JSON is a stream of events, by its first bytes."""
    return content[:100].removeprefix(_MARK).lstrip().startswith(_FIELDS)


def says_json(headers: Mapping[str, str]) -> bool:
    """Whether the content type is that of one JSON document; lines of JSON are something else."""
    return _kind(headers).endswith(("/json", "+json"))


def _kind(headers: Mapping[str, str]) -> str:
    return str(headers.get("content-type") or "").partition(";")[0].strip().lower()
