"""One outcome as one line of JSON.

The line begins with fields of fixed width, so that an index of a million lines is made without decoding any::

    {"crc":"1c291ca3","key":"9f0c...","state":"o","hash":"77ab...","id":"row-1",...,"value":{...}}

``value`` comes last, so that its bytes can be copied as they are.

Errors as JSON and back.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from .. import errors
from ..errors import APIError, ChatPoolError
from ..types import Attempt, Usage

__all__ = [
    "ASIDE",
    "BACK",
    "FAILED",
    "GONE",
    "MARKS",
    "OK",
    "PREFIX",
    "RETRY",
    "Prefix",
    "Record",
    "decode_record",
    "decode_value",
    "encode_record",
    "encode_value",
    "error_facts",
    "error_of",
    "finite",
    "has_no_json_form",
    "hash_of",
    "json_text",
    "key_of",
    "one_line",
    "prefix_of",
    "text_or_null",
    "unbroken",
]


_FACTS = ("status_code", "request_id", "code", "type", "param", "body", "retry_after")
_OF_SOME = ("text", "reason")  # of classes that add to APIError
_BYTES = "body_base64"  # the body of an answer that is not JSON


def error_facts(error: ChatPoolError) -> Dict[str, Any]:
    """What is kept of an error."""
    facts: Dict[str, Any] = {"class": type(error).__name__, "message": error.message}
    for name in _FACTS + _OF_SOME:
        value = getattr(error, name, None)
        # The text of a whole answer is in the answer, which is kept beside the facts.
        if value is not None and not (name == "text" and getattr(error, "completion", None) is not None):
            facts[name] = value
    if isinstance(facts.get("body"), bytes):
        facts[_BYTES] = base64.b64encode(facts.pop("body")).decode("ascii")
    return facts


def error_of(facts: Mapping[str, Any], attempts: int) -> ChatPoolError:
    """The error again; one of a class that does not exist any more is a plain ChatPoolError."""
    kind = getattr(errors, str(facts.get("class")), None)
    message = str(facts.get("message", ""))
    if not (isinstance(kind, type) and issubclass(kind, ChatPoolError)):
        return ChatPoolError(message, attempts=attempts)
    if not issubclass(kind, APIError):
        return kind(message, attempts=attempts)
    error = kind(message, attempts=attempts, **{name: facts.get(name) for name in _FACTS})
    error.__dict__.update({name: facts[name] for name in _OF_SOME if name in facts})
    if _BYTES in facts:
        error.body = base64.b64decode(facts[_BYTES])
    return error


OK, FAILED, RETRY = "o", "f", "r"
"""How a row ended: with an answer, with a failure that would only repeat itself, with one that may not."""

ASIDE, BACK, GONE = "w", "p", "x"
"""Marks: the row's record does not count any more (the row has left the input, or was changed), counts again, or goes
by another name.  A mark changes nothing else: the record stays."""

MARKS = frozenset({ASIDE, BACK, GONE})
_STATES = frozenset({OK, FAILED, RETRY}) | MARKS

PREFIX = 95
"""Bytes of a line that :func:`prefix_of` looks at."""

_HEAD = b'{"crc":"%08x%s'
_REST = '","key":"%016x","state":"%s","hash":"%s",'
_VALUE = b',"value":'
_CRC, _KEY, _STATE, _HASH = slice(8, 16), slice(25, 41), slice(52, 53), slice(63, 95)


class Prefix(NamedTuple):
    """What the first bytes of a line say: which row, how it ended, and of which body."""

    key: int
    state: str
    hash: str


class Record(NamedTuple):
    """One outcome.

    Attributes:
        key: 64-bit digest of what the row is called (see :func:`key_of`).
        state: :data:`OK`, :data:`FAILED` or :data:`RETRY`.
        hash: digest of path and body of the request.
        custom_id: the row's name, None where its place is its name.
        row: its place in the input.
        at: when it ended, in seconds since the epoch.
        elapsed: seconds from its first send to its end.
        attempts: the exchanges.
        error: a failure's facts, None for a success.
        meta: what the input carried along with the row.
        value: the answer's JSON, encoded; ``b"null"`` where there is none.  A failure has one that was not taken.
        usage: tokens of all answers, where they are more than ``value`` tells of; None where they are not.
        model: the model that was asked for, where ``value`` names another one or none; None where it does not.
    """

    key: int
    state: str
    hash: str
    custom_id: Optional[str]
    row: int
    at: float
    elapsed: float
    attempts: Tuple[Attempt, ...]
    error: Optional[Mapping[str, Any]] = None
    meta: Any = None
    value: bytes = b"null"
    usage: Optional[Usage] = None
    model: Optional[str] = None


_quoted = json.encoder.encode_basestring_ascii
# Made once: json.dumps makes a new one whenever it is not asked for its defaults.
_ascii = json.JSONEncoder(separators=(",", ":")).encode
_unicode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_strict = json.JSONEncoder(allow_nan=False).encode

# Line breaks to some readers of lines, and to no reader of JSON, in which they may stand as they are.
_LINE_BREAKS = tuple((mark.encode("utf-8"), b"\\u%04x" % ord(mark)) for mark in "\x85\u2028\u2029")


def key_of(name: str) -> int:
    """64-bit digest of a row's name, never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") or 1


def hash_of(path: str, body: bytes) -> str:
    """Digest of a request, as 32 hexadecimal digits."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass") + b"\n" + body, digest_size=16).hexdigest()


def finite(value: Any) -> Any:
    """``value`` with None in the place of NaN and infinities, which Python's JSON has and JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, (list, tuple)) else value


def json_text(value: Any) -> str:
    """``value`` as JSON by RFC 8259, in ASCII; null in the place of NaN and infinities."""
    try:
        return _strict(value)
    except ValueError:
        return _strict(finite(value))


def encode_value(value: Any) -> bytes:
    """``value`` as JSON on one line, as Python has it: with NaN and infinities."""
    try:
        return _unicode(value).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which servers do send
        return _ascii(value).encode("ascii")


def one_line(answer: bytes) -> Optional[bytes]:
    """The JSON object of an answer on one line of UTF-8, otherwise as it came; None where it has to be written anew."""
    if not answer.startswith(b"{") or b"\0" in answer:  # UTF-16, which Python reads
        return None
    if not answer.isascii():
        try:
            answer.decode("utf-8")
        except UnicodeDecodeError:
            return None
    # Line breaks stand between values only: within a text they are escaped.
    return answer.replace(b"\r", b" ").replace(b"\n", b" ").rstrip()


def has_no_json_form(answer: bytes) -> bool:
    """Whether NaN or an infinity may be in what Python has read as JSON; the words may stand in a text as well."""
    return b"NaN" in answer or b"Infinity" in answer


def unbroken(line: bytes) -> bytes:
    """A line of JSON that is one line to every reader, and the same JSON."""
    if not line.isascii():
        for mark, escaped in _LINE_BREAKS:
            line = line.replace(mark, escaped)
    return line


def encode_record(record: Record) -> bytes:
    """The record as a line with its end."""
    # By hand what every record has: half a million of them a minute may come.
    attempts = ",".join(_attempt(*attempt) for attempt in record.attempts)
    told = f'"id":{text_or_null(record.custom_id)},"row":{record.row},"at":{record.at:.3f},'
    told += f'"elapsed":{record.elapsed:.6f},"attempts":[{attempts}]'
    if record.model is not None:
        told += f',"model":{_quoted(record.model)}'
    if record.error is not None or record.meta is not None or record.usage is not None:
        told += "," + _rarer_facts(record)
    rest = (_REST % (record.key, record.state, record.hash) + told).encode("ascii") + _VALUE + record.value + b"}"
    return _HEAD % (zlib.crc32(rest), rest) + b"\n"


def text_or_null(text: Optional[str]) -> str:
    """``text`` as JSON in ASCII."""
    return "null" if text is None else _quoted(text)


def _attempt(
    reason: str,
    status: Optional[int],
    wait: Optional[float],
    elapsed: float,
    request_id: Optional[str],
    endpoint: Optional[str],
) -> str:
    said = "null" if status is None else status
    waited = "null" if wait is None else f"{wait:.4f}"
    where = "" if endpoint is None else f",{_quoted(endpoint)}"
    return f"[{_quoted(reason)},{said},{waited},{elapsed:.4f},{text_or_null(request_id)}{where}]"


def _rarer_facts(record: Record) -> str:
    facts: Dict[str, Any] = {}
    if record.error is not None:
        facts["error"] = record.error
    if record.meta is not None:
        facts["meta"] = record.meta
    if record.usage is not None:
        facts["usage"] = vars(record.usage)
    # A field of the name "value" may be in there, too; within a text its quotes are escaped.
    return _ascii(facts)[1:-1].replace(',"value":', ', "value":')


def prefix_of(line: bytes, *, whole: bool = True) -> Optional[Prefix]:
    """What the beginning of a line says; None for a line that is not whole, or not one of ours.

    Args:
        line: the line with its end, or at least :data:`PREFIX` bytes of it.
        whole: whether it is a line, whose checksum is to be looked at.
    """
    try:
        if whole and not (line.startswith(_HEAD[:8]) and line.endswith(b"\n")):
            return None
        if whole and int(line[_CRC], 16) != zlib.crc32(line[16:-1]):
            return None
        state = line[_STATE].decode("ascii")
        return Prefix(int(line[_KEY], 16), state, line[_HASH].decode("ascii")) if state in _STATES else None
    except ValueError:
        return None


def decode_record(line: bytes) -> Record:
    """The record in a line.

    Raises:
        ValueError: it is none.
    """
    head, found, tail = line.rstrip(b"\n").partition(_VALUE)
    if not found:
        raise ValueError("not a record")
    facts = json.loads(head + b"}")
    return Record(
        int(facts["key"], 16),
        facts["state"],
        facts["hash"],
        facts["id"],
        facts["row"],
        facts["at"],
        facts["elapsed"],
        tuple(Attempt(*attempt) for attempt in facts["attempts"]),
        facts.get("error"),
        facts.get("meta"),
        tail[:-1],
        Usage(**facts["usage"]) if "usage" in facts else None,
        facts.get("model"),
    )


def decode_value(value: bytes) -> Any:
    """The answer's JSON."""
    return json.loads(value)
