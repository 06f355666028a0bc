"""One outcome as one line of JSON.

The line begins with fields of fixed width, so that an index of a million lines is made without decoding any::

    {"crc":"1c291ca3","key":"9f0c...","state":"o","hash":"77ab...","id":"row-1",...,"value":{...}}

``value`` comes last, so that its bytes can be copied as they are.  Errors are JSON as well (:func:`error_facts`), and
come back as errors (:func:`error_of`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import errors
from ..errors import APIError, ChatPoolError
from ..prices import Charge
from ..types import Attempt, Usage

__all__ = [
    "BATCH_API",
    "FAILED",
    "MARKS",
    "OK",
    "PENDING",
    "PREFIX_BYTES",
    "RENAMED",
    "RESTORED",
    "RETRY",
    "RUN",
    "SET_ASIDE",
    "Prefix",
    "Record",
    "decode_record",
    "decode_value",
    "encode_record",
    "encode_value",
    "error_facts",
    "error_of",
    "escape_line_breaks",
    "hash_of",
    "json_text",
    "key_of",
    "may_hold_nan",
    "one_line",
    "prefix_of",
    "text_or_null",
    "without_nan",
]


OK, FAILED, RETRY = "o", "f", "r"
"""State of a row that has ended: with an answer, with a failure that would repeat itself, with one that may not."""

SET_ASIDE, RESTORED, RENAMED = "w", "p", "x"
"""Marks: the row's record does not count any more (the row has left the input, or was changed), counts again, or goes
by another name.  A mark changes nothing else: the record stays."""

RUN = "n"
"""Mark of no row: a run begins here to send; ``value`` is a JSON object of its options."""

PENDING = "b"
"""Mark of a row whose answer the server makes in the background; ``value`` is a JSON object that says where it is."""

MARKS = frozenset({SET_ASIDE, RESTORED, RENAMED, RUN, PENDING})
_STATES = frozenset({OK, FAILED, RETRY}) | MARKS

BATCH_API = "Batch API"
"""The endpoint of the attempt of a row that a batch has answered, at half the price."""

PREFIX_BYTES = 95
"""Bytes of a line that :func:`prefix_of` looks at."""

_LINE = b'{"crc":"%08x%s'
_FIRST_FIELDS = '","key":"%016x","state":"%s","hash":"%s",'
_VALUE_FIELD = b',"value":'
_CRC, _KEY, _STATE, _HASH = slice(8, 16), slice(25, 41), slice(52, 53), slice(63, 95)


class Prefix(NamedTuple):
    """First fields of a record: the row's key, its state, and the hash of its body."""

    key: int
    state: str
    hash: str


class Record(NamedTuple):
    """One outcome.

    Attributes:
        key: 64-bit digest of the row's name (see :func:`key_of`).
        state: :data:`OK`, :data:`FAILED` or :data:`RETRY`.
        hash: digest of path and body of the request.
        custom_id: the row's name, None where its place is its name.
        row: its place in the input.
        at: when it ended, in seconds since the epoch.
        elapsed: seconds from its first send to its end.
        attempts: the exchanges with the server.
        error: facts of the error of a failure, None for a success.
        meta: data that the input carried along with the row.
        value: the answer's JSON, encoded; ``b"null"`` where there is none.  A failure has one that was not accepted.
        usage: tokens of all answers, where they are more than ``value`` says; None where they are not.
        model: the model that was asked for, where ``value`` names another one or none; None where it does not.
        charges: what each request has cost, where ``usage`` and ``model`` do not say it: after a fallback, or in a
            service tier.
        fallback: the number of the fallback that has answered, 0 for the request itself.
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
    charges: Tuple[Charge, ...] = ()
    fallback: int = 0

    @property
    def has_own_fallback(self) -> bool:
        """True if the last exchange does not say which fallback has answered: nothing was sent for it, say."""
        return self.fallback != _last_fallback(self.attempts)


def _last_fallback(attempts: Sequence[Attempt]) -> int:
    return attempts[-1].fallback if attempts else 0


_quoted = json.encoder.encode_basestring_ascii
# Made once: json.dumps makes a new one whenever it is not asked for its defaults.
_ascii = json.JSONEncoder(separators=(",", ":")).encode
_unicode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_strict = json.JSONEncoder(allow_nan=False).encode

# Line breaks to some readers of lines, and to no reader of JSON, in which they may stand as they are.
_LINE_BREAKS = tuple((mark.encode("utf-8"), b"\\u%04x" % ord(mark)) for mark in "\x85\u2028\u2029")


def key_of(name: str) -> int:
    """Return the 64-bit digest of a row's name, never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") or 1


def hash_of(path: str, body: bytes) -> str:
    """Return the digest of a request, as 32 hexadecimal digits."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass") + b"\n" + body, digest_size=16).hexdigest()


def without_nan(value: Any) -> Any:
    """Return ``value`` with None in the place of NaN and infinities, which Python's JSON has and JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    return [without_nan(part) for part in value] if isinstance(value, (list, tuple)) else value


def json_text(value: Any) -> str:
    """Return ``value`` as JSON by RFC 8259, in ASCII; null in the place of NaN and infinities."""
    try:
        return _strict(value)
    except ValueError:
        return _strict(without_nan(value))


def encode_value(value: Any) -> bytes:
    """Return ``value`` as JSON on one line, as Python has it: with NaN and infinities."""
    try:
        return _unicode(value).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which servers do send
        return _ascii(value).encode("ascii")


def one_line(answer: bytes) -> Optional[bytes]:
    """Return the JSON object of an answer on one line of UTF-8, otherwise unchanged; None if it has to be encoded."""
    if not answer.startswith(b"{") or b"\0" in answer:  # UTF-16, which Python reads
        return None
    if not answer.isascii():
        try:
            answer.decode("utf-8")
        except UnicodeDecodeError:
            return None
    # Line breaks stand between values only: within a text they are escaped.
    return answer.replace(b"\r", b" ").replace(b"\n", b" ").rstrip()


def may_hold_nan(answer: bytes) -> bool:
    """Return whether JSON, as Python reads it, may hold NaN or an infinity; the words may stand in a text as well."""
    return b"NaN" in answer or b"Infinity" in answer


def escape_line_breaks(line: bytes) -> bytes:
    """Return the same JSON as a line that is one line to every reader."""
    if not line.isascii():
        for mark, escaped in _LINE_BREAKS:
            line = line.replace(mark, escaped)
    return line


def encode_record(record: Record) -> bytes:
    """Return the record as a line with its end."""
    # The fields that every record has by hand, without json: half a million records a minute may come.
    attempts = ",".join(_attempt(*attempt) for attempt in record.attempts)
    fields = f'"id":{text_or_null(record.custom_id)},"row":{record.row},"at":{record.at:.3f},'
    fields += f'"elapsed":{record.elapsed:.6f},"attempts":[{attempts}]'
    if record.model is not None:
        fields += f',"model":{_quoted(record.model)}'
    is_plain = record.error is None and record.meta is None and record.usage is None and not record.charges
    if not is_plain or record.has_own_fallback:
        fields += "," + _optional_fields(record)
    start = _FIRST_FIELDS % (record.key, record.state, record.hash)
    checked = (start + fields).encode("ascii") + _VALUE_FIELD + record.value + b"}"
    return _LINE % (zlib.crc32(checked), checked) + b"\n"


def text_or_null(text: Optional[str]) -> str:
    """Return ``text`` as JSON in ASCII."""
    return "null" if text is None else _quoted(text)


def _attempt(
    reason: str,
    status: Optional[int],
    wait: Optional[float],
    elapsed: float,
    request_id: Optional[str],
    endpoint: Optional[str],
    fallback: int,
) -> str:
    status_json = "null" if status is None else status
    wait_json = "null" if wait is None else f"{wait:.4f}"
    more = f",{text_or_null(endpoint)},{fallback}" if fallback else "" if endpoint is None else f",{_quoted(endpoint)}"
    return f"[{_quoted(reason)},{status_json},{wait_json},{elapsed:.4f},{text_or_null(request_id)}{more}]"


def _optional_fields(record: Record) -> str:
    fields: Dict[str, Any] = {}
    if record.error is not None:
        fields["error"] = record.error
    if record.meta is not None:
        fields["meta"] = record.meta
    if record.usage is not None:
        fields["usage"] = vars(record.usage)
    if record.charges:
        fields["charges"] = [[vars(usage), *others] for usage, *others in record.charges if usage is not None]
    if record.has_own_fallback:
        fields["fallback"] = record.fallback
    # A field of the name "value" may be in there, too; within a text its quotes are escaped.
    return _ascii(fields)[1:-1].replace(',"value":', ', "value":')


def prefix_of(line: bytes, *, whole: bool = True) -> Optional[Prefix]:
    """Return the first fields of a line; None for a line that is not whole, or no record.

    Args:
        line: the line with its end, or at least :data:`PREFIX_BYTES` bytes of it.
        whole: whether it is a whole line, whose checksum is to be checked.
    """
    try:
        if whole and not (line.startswith(_LINE[:8]) and line.endswith(b"\n")):
            return None
        if whole and int(line[_CRC], 16) != zlib.crc32(line[16:-1]):
            return None
        state = line[_STATE].decode("ascii")
        return Prefix(int(line[_KEY], 16), state, line[_HASH].decode("ascii")) if state in _STATES else None
    except ValueError:
        return None


def decode_record(line: bytes) -> Record:
    """Return the record in a line.

    Raises:
        ValueError: the line holds none.
    """
    head, separator, tail = line.rstrip(b"\n").partition(_VALUE_FIELD)
    if not separator:
        raise ValueError("not a record")
    fields = json.loads(head + b"}")
    attempts = tuple(Attempt(*attempt) for attempt in fields["attempts"])
    return Record(
        int(fields["key"], 16),
        fields["state"],
        fields["hash"],
        fields["id"],
        fields["row"],
        fields["at"],
        fields["elapsed"],
        attempts,
        fields.get("error"),
        fields.get("meta"),
        tail[:-1],
        Usage(**fields["usage"]) if "usage" in fields else None,
        fields.get("model"),
        tuple(Charge(Usage(**usage), *others) for usage, *others in fields.get("charges", ())),
        fields.get("fallback", _last_fallback(attempts)),
    )


def decode_value(value: bytes) -> Any:
    """Return the answer's JSON, decoded."""
    return json.loads(value)


_API_ERROR_FACTS = ("status_code", "request_id", "code", "type", "param", "body", "retry_after")
_SUBCLASS_FACTS = ("text", "reason")  # of subclasses of APIError
_BODY_BYTES_FACT = "body_base64"  # the body of a response that is not JSON


def error_facts(error: ChatPoolError) -> Dict[str, Any]:
    """Return the facts of an error that a record keeps."""
    facts: Dict[str, Any] = {"class": type(error).__name__, "message": error.message}
    for name in _API_ERROR_FACTS + _SUBCLASS_FACTS:
        value = getattr(error, name, None)
        # The text of a whole answer is in the answer, which is kept beside the facts.
        is_kept = getattr(error, "completion", None) is not None and error.samples is None
        if value is not None and not (name == "text" and is_kept):
            facts[name] = value
    if isinstance(facts.get("body"), bytes):
        facts[_BODY_BYTES_FACT] = base64.b64encode(facts.pop("body")).decode("ascii")
    return facts


def error_of(facts: Mapping[str, Any], attempts: int) -> ChatPoolError:
    """Return the error with these facts; one of a class that does not exist any more is a plain ChatPoolError."""
    error_class = getattr(errors, str(facts.get("class")), None)
    message = str(facts.get("message", ""))
    if not (isinstance(error_class, type) and issubclass(error_class, ChatPoolError)):
        return ChatPoolError(message, attempts=attempts)
    if not issubclass(error_class, APIError):
        return error_class(message, attempts=attempts)
    error = error_class(message, attempts=attempts, **{name: facts.get(name) for name in _API_ERROR_FACTS})
    error.__dict__.update({name: facts[name] for name in _SUBCLASS_FACTS if name in facts})
    if _BODY_BYTES_FACT in facts:
        error.body = base64.b64decode(facts[_BODY_BYTES_FACT])
    return error
