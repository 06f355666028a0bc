"""The fast path through http.client: a request in one piece, and the head of its response at less cost.

A head that is plain and has arrived is parsed at once; any other is read line by line, more strictly than http.client
does.  The fields that say where the body ends are brought to one plain form (RFC 9112, 6.3).  The header mappings do
less work than those of requests and http.client.
"""

from __future__ import annotations

import http.client
import io
import re
import threading
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from requests.structures import CaseInsensitiveDict
from urllib3._collections import HTTPHeaderDict

from .._wire import UnreadableAnswer
from ..errors import ConfigurationError

__all__ = [
    "FastPathConnection",
    "FastPathResponse",
    "Field",
    "Fields",
    "FinalResponse",
    "ParsedHeaders",
    "RequestHeaders",
    "check_headers",
    "header_problem",
    "parse_fields",
    "parse_leniently",
]


Field = Tuple[str, str]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# A field line as RFC 9112, 5 has it, of printable ASCII; anything else is left to parse_loosely().
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([ -~\t]*)")

_FRAMING_FIELDS = ("content-length", "transfer-encoding", "connection")
_BODY_FIELDS = ("content-length", "content-encoding")

_MAX_CACHED_LINES, _MAX_CACHED_LINE_CHARS = 128, 200


class _Parsed(threading.local):
    """Lines that this thread has parsed before, by their text: a server sends most of them with every response.

    Each thread has its own: without the global lock, threads would wait for each other at every line of a shared dict,
    as a str that another thread has made cannot be compared without the dict's lock.
    """

    def __init__(self) -> None:
        self.lines: Dict[str, Tuple[str, Field]] = {}


_parsed = _Parsed()


def header_problem(text: Union[str, bytes]) -> str:
    """Return a description of a character in ``text`` that no header may hold, "" for none."""
    try:
        data = text if isinstance(text, bytes) else text.encode("latin-1")
    except UnicodeEncodeError:
        return "a character that no HTTP header can carry"
    if b"\0" in data:
        return "a NUL character"
    return "a line break" if b"\r" in data or b"\n" in data else ""


def check_headers(parameter: str, headers: Mapping[Any, Any]) -> None:
    """Refuse headers that cannot be sent; None as a value takes one away.

    Raises:
        TypeError: a name or a value is no text.
        ConfigurationError: a name is none by RFC 9110, or there is a line break, a NUL or a character that no header
            can carry in a value. The message names the parameter and does not show the value, which may be a key.
    """
    for name, value in headers.items():
        if not isinstance(name, (str, bytes)):
            raise TypeError(f"{parameter}: the name of a header must be a str, got {name!r}")
        if not isinstance(value, (str, bytes, type(None))):
            raise TypeError(f"{parameter}: the header {name!r} must be a str, got {type(value).__name__}")
        problem = header_problem(name) or header_problem(value or "")
        if problem:
            raise ConfigurationError(f"{parameter}: the header {name!r} must not contain {problem}")
        _check_name(parameter, name)


def _check_name(parameter: str, name: Union[str, bytes]) -> None:
    text = name if isinstance(name, str) else name.decode("latin-1")
    if not _TOKEN.fullmatch(text):
        stranger = re.search(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]", text)
        # Not the name: where a colon is missing, it may be a key.
        got = "an empty one" if stranger is None else f"one with {stranger[0]!a}"
        raise ConfigurationError(f"{parameter}: the name of a header must be of letters, digits and hyphens, got {got}")


class Fields(NamedTuple):
    """Fields of the head of a response.

    Attributes:
        all: pairs of name and value, in the order of the response.
        merged: the same by their names in lower case, the values of a repeated one joined by commas (RFC 9110, 5.2).
    """

    all: List[Field]
    merged: Dict[str, Field]


class RequestHeaders(CaseInsensitiveDict):  # type: ignore[type-arg]  # generic in the stubs only
    """Headers of a request, copied and listed without lowering every name again."""

    _store: Any

    def copy(self) -> RequestHeaders:
        """Return an independent copy."""
        copied = RequestHeaders.__new__(RequestHeaders)
        copied._store = self._store.copy()
        return copied

    def items(self) -> Any:
        """Return pairs of name and value."""
        return self._store.values()

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._store.values()])

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "***"))

    def in_one_block(self) -> Optional[_HeaderBlock]:
        """Return them as one block of bytes; None if one of them is unusual, or urllib3 would add one."""
        if "user-agent" not in self._store:
            return None
        fields = self._store.values()
        try:
            text = "".join([value for _, value in fields])
            block = "\r\n".join([f"{name}: {value}" for name, value in fields]).encode("latin-1")
        except (TypeError, UnicodeEncodeError):  # bytes, or what no header can carry: urllib3 says so
            return None
        names = [name for name in _NAMES_THAT_ARE_LOOKED_FOR if name in self._store]
        return _HeaderBlock(names, block) if text.isprintable() else None


_BLOCK = ""  # in the place of a header's name

# What urllib3 and http.client would add, or would choose the framing of the body by.
_NAMES_THAT_ARE_LOOKED_FOR = (
    "accept-encoding",
    "content-length",
    "host",
    "transfer-encoding",
    "user-agent",
)


class _HeaderBlock:
    """Headers of a request for :class:`FastPathConnection`: to add each takes urllib3 as long as all the rest of it."""

    __slots__ = ("_block", "_names")

    def __init__(self, names: List[str], block: bytes) -> None:
        self._names = names
        self._block = block

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def copy(self) -> _HeaderBlock:
        """Return the same, which nobody changes."""
        return self

    def items(self) -> List[Tuple[str, bytes]]:
        """Return the block as the value of a header without a name."""
        return [(_BLOCK, self._block)]


class ResponseHeaders(CaseInsensitiveDict):  # type: ignore[type-arg]
    """Headers of a response, which are searched without an exception where a name is missing."""

    _store: Any

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default``."""
        field = self._store.get(key.lower())
        return default if field is None else field[1]

    def lacks(self, names: FrozenSet[str]) -> bool:
        """Return whether none of ``names``, in lower case, is there."""
        return names.isdisjoint(self._store)


class ParsedHeaders(http.client.HTTPMessage):
    """Headers of a response, already parsed.

    Attributes:
        is_partial: whether :meth:`items` are only those by which urllib3 reads the body; when it has made its response,
            it is given all of them in its own form.
    """

    is_partial = False

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._fields = fields
        self._headers, self._merged = fields

    def to_requests(self) -> CaseInsensitiveDict[str]:
        """Return them as requests has them, without parsing every name again."""
        headers: Any = ResponseHeaders.__new__(ResponseHeaders)
        headers._store = self._merged.copy()
        return headers  # type: ignore[no-any-return]  # a cast is a call

    def to_urllib3(self) -> HTTPHeaderDict:
        """Return them as urllib3 has them, without adding one after the other."""
        headers = _RawHeaders.__new__(_RawHeaders)
        headers._fields = self._fields
        return headers

    def items(self) -> List[Field]:
        """Return the fields, as they were received."""
        if self.is_partial:
            # urllib3 asks for the coding of every answer, and a name that is missing costs it an exception.
            coding = self._merged.get("transfer-encoding", ("Transfer-Encoding", ""))
            return [coding, *[self._merged[name] for name in _BODY_FIELDS if name in self._merged]]
        return list(self._headers)

    def get_payload(self, i: Optional[int] = None, decode: bool = False) -> Any:
        """Return None: there is no body in a head."""
        return None


class _RawHeaders(HTTPHeaderDict):
    """urllib3's headers of a response, which are hardly ever used: filled when more than single values are wanted."""

    _container: Any
    _fields: Fields

    def __getattr__(self, name: str) -> Any:
        if name != "_container":
            raise AttributeError(name)
        container: Dict[str, List[str]] = {}
        for field, value in self._fields.all:
            container.setdefault(field.lower(), [field]).append(value)
        self._container = container
        return container

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default``."""
        if "_container" in self.__dict__:  # it may have been changed
            return super().get(key, default)
        field = self._fields.merged.get(key.lower())
        return default if field is None else field[1]


def parse_fields(lines: bytes) -> Optional[Fields]:
    """Return the fields in the lines of a head.

    None if one of them is unusual, or one that says where the body ends is repeated: :func:`parse_leniently` is for
    such heads.
    """
    fields: List[Field] = []
    merged: Dict[str, Field] = {}
    text = lines.decode("latin-1")
    if text and not text.endswith("\r\n"):
        return None
    known_lines = _parsed.lines
    for line in text.split("\r\n")[:-1]:
        parsed = known_lines.get(line) or _parse_line(line)
        if parsed is None:
            return None
        name, field = parsed
        fields.append(field)
        if name not in merged:
            merged[name] = field
        elif name in _FRAMING_FIELDS:
            return None
        else:
            first = merged[name]
            merged[name] = (first[0], f"{first[1]}, {field[1]}")
    return Fields(fields, merged)


def parse_leniently(lines: Sequence[bytes]) -> Fields:
    """Return the fields in the lines of a head, whatever they look like.

    A folded line belongs to the one before it (RFC 9112, 5.2), and a line that is no field is passed over, as
    browsers do.  http.client would stop there, and miss the length of the body that comes after it.
    """
    fields: List[List[str]] = []
    foldable = False
    for line in lines:
        text = line.decode("latin-1").rstrip("\r\n").replace("\r", " ").replace("\0", " ")
        if text[:1] in (" ", "\t"):
            if foldable:
                fields[-1][1] = f"{fields[-1][1]} {text.strip()}".strip()
            continue
        name, colon, value = text.partition(":")
        foldable = bool(colon and name.strip())
        if foldable:
            fields.append([name.strip(), value.strip(" \t")])
    merged: Dict[str, Field] = {}
    for name, value in fields:
        first = merged.get(name.lower())
        merged[name.lower()] = (name, value) if first is None else (first[0], f"{first[1]}, {value}")
    return Fields([(name, value) for name, value in fields], merged)


def _parse_line(line: str) -> Optional[Tuple[str, Field]]:
    """Return the name of a line's field in lower case, and the field; None if the line is unusual."""
    match = _FIELD.fullmatch(line)
    if match is None or line.endswith((" ", "\t")):
        return None
    parsed = (match[1].lower(), (match[1], match[2].lstrip(" \t")))
    if len(line) <= _MAX_CACHED_LINE_CHARS:
        known_lines = _parsed.lines
        if len(known_lines) >= _MAX_CACHED_LINES:
            known_lines.clear()
        known_lines[line] = parsed
    return parsed


# Beyond this, copying a body costs more than sending it by itself.
_MAX_JOINED_BODY_BYTES = 64 * 1024
_MAX_LINE_BYTES = 65536
_MAX_FIELDS = 1000  # gateways add one for each of their decisions: http.client's own 100 are too few
_MAX_HEAD_BYTES = 1024 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)(?: ([ -~]*))?\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CONTENT_LENGTH, _TRANSFER_CODING = "content-length", "transfer-encoding"
_DIGITS = re.compile(r"[0-9]{1,18}")


class FinalResponse(http.client.HTTPResponse):
    """A final response: skips every interim one (1xx), not only 100, and refuses a head that breaks off.

    A 103 that passed for the final response would leave the real one on the connection, for the next exchange to read.
    """

    fp: Any
    headers: Any
    has_partial_headers = False  # until its connection completes them
    _method: str

    def begin(self, **options: Any) -> None:
        """Read the head; ``options`` are those of later Pythons, whose limits are replaced by the ones here.

        Raises:
            UnreadableAnswer: it does not say where the body ends, or has no end itself.
        """
        if self.headers is None and not self._begin_fast():
            self._begin_line_by_line()

    def _begin_line_by_line(self) -> None:
        file: Any = self.fp
        self.fp = _CompleteLines(file)
        try:
            version, status, reason = self._read_status()
            received = parse_leniently(self._read_lines())
        finally:
            # None: http.client has closed the file.
            self.fp = file if self.fp is not None else None
        if not version.startswith("HTTP/1.") and version != "HTTP/0.9":
            raise http.client.UnknownProtocol(version)
        number = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        bodiless = self._has_no_body(status)
        fields = _normalise_framing(received, closes=_closes_connection(received.merged, number), bodiless=bodiless)
        self._set_framing(status, fields.merged, number)
        if bodiless and "transfer-encoding" in received.merged:
            self.will_close = True  # chunks may follow all the same
        self.reason = reason.strip()
        self._set_headers(fields)

    def _read_lines(self) -> List[bytes]:
        """Return the lines up to the blank one."""
        lines: List[bytes] = []
        size = 0
        while True:
            line: bytes = self.fp.readline(_MAX_LINE_BYTES + 1)
            if len(line) > _MAX_LINE_BYTES:
                raise UnreadableAnswer(f"a line of the head or trailer is longer than {_MAX_LINE_BYTES:,} bytes")
            if line in (b"\r\n", b"\n", b""):
                return lines
            lines.append(line)
            size += len(line)
            if len(lines) > _MAX_FIELDS or size > _MAX_HEAD_BYTES:
                limits = f"{_MAX_FIELDS:,} lines or {_MAX_HEAD_BYTES:,} bytes"
                raise UnreadableAnswer(f"the head or trailer has more than {limits}")

    def _set_headers(self, fields: Fields) -> None:
        self.headers = self.msg = ParsedHeaders(fields)
        self.msg.is_partial = self.has_partial_headers

    def _begin_fast(self) -> bool:
        """Parse the head from bytes that have arrived; False, and nothing read, if it is incomplete or not plain."""
        buffered: bytes = self.fp.peek(1)
        end = buffered.find(b"\r\n\r\n")
        status_line = _STATUS_LINE.match(buffered)
        if status_line is None or not 0 <= end <= _MAX_LINE_BYTES:  # Python 3.15 buffers more than a line may have
            return False
        fields = parse_fields(buffered[status_line.end() : end + 2])
        if fields is None or len(fields.all) > _MAX_FIELDS or not self._set_framing(int(status_line[1]), fields.merged):
            return False
        self.reason = (status_line[2] or b"").decode("ascii").strip()
        self._set_headers(fields)
        self.fp.read(end + 4)
        return True

    def _has_no_body(self, status: int) -> bool:
        return status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED) or self._method == "HEAD"

    def _set_framing(self, status: int, fields: Dict[str, Field], version: int = 11) -> bool:
        """Set where the body ends (RFC 9112, 6.3); return False if the fields are not in their plain form."""
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        bodiless = self._has_no_body(status)
        if coding is not None and (coding[1].lower() != "chunked" or length is not None or bodiless):
            return False
        if length is not None and not _LENGTH.fullmatch(length[1]):
            return False
        self.version = version
        self.code = self.status = status
        self.chunked = coding is not None
        if self.chunked:
            self.chunk_left = None
        self.length = None if length is None else int(length[1])
        if bodiless:
            self.length = 0
        self.will_close = _closes_connection(fields, version) or (not self.chunked and self.length is None)
        return True

    def _read_status(self) -> Tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == http.client.SWITCHING_PROTOCOLS:
                raise http.client.BadStatusLine("101: the server changes to a protocol that was not asked for")
            if status >= http.client.OK:
                return version, status, reason
            while self.fp.readline(_MAX_LINE_BYTES).strip():
                pass

    def _close_conn(self) -> None:
        if type(self.fp) is not io.BufferedReader:
            super()._close_conn()  # type: ignore[misc]
            return
        # Not the reader, which has nothing to flush: its close() takes its lock twice, and CPython 3.13 without the
        # global lock gives way forty times before it finds that it waits for itself.
        file, self.fp = self.fp, None
        file.raw.close()

    def _read_and_discard_trailer(self) -> None:
        self._read_lines()  # http.client has no bound for it, or, from 3.14 on, one of 100 lines

    # http.client and urllib3 would read a negative length as "to the end".

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        return _not_negative(size)

    def _safe_read(self, amt: int) -> bytes:
        data: bytes = super()._safe_read(_not_negative(amt))  # type: ignore[misc]
        return data


class FastPathResponse(FinalResponse):
    """A final response whose headers are completed by :class:`FastPathConnection`."""

    has_partial_headers = True


class FastPathConnection:
    """Mixin for a connection class of urllib3 that is derived from that of http.client."""

    response_class = FastPathResponse
    _buffer: List[bytes]  # http.client's: the lines of the head
    _joined_body: Optional[bytes] = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send a request; a small one in one piece, which costs one system call and one wake-up instead of two."""
        if type(headers) is RequestHeaders and type(body) is bytes and 0 < len(body) <= _MAX_JOINED_BODY_BYTES:
            self._joined_body, body = body, None
            headers = headers.in_one_block() or headers
        try:
            super().request(method, url, body=body, headers=headers, **options)  # type: ignore[misc]
            if self._joined_body is not None:
                # Sent without http.client's _send_output: not a version this knows.
                self.send(self._joined_body)
        finally:
            self._joined_body = None

    def send(self, data: Any) -> None:
        """Send a part of a request.

        Raises:
            BrokenPipeError: the server has closed the connection, perhaps with an answer: urllib3 looks for one then.
        """
        try:
            super().send(data)  # type: ignore[misc]
        except ConnectionResetError as error:
            raise BrokenPipeError(error.errno, error.strerror) from error

    def getresponse(self, *args: Any, **options: Any) -> Any:
        """Return the response, its head read; urllib3 (from 2.0 on) would parse that once more, header by header."""
        response = super().getresponse(*args, **options)  # type: ignore[misc]
        headers = getattr(getattr(response, "_original_response", response), "msg", None)
        if type(headers) is ParsedHeaders:
            headers.is_partial = False
            if type(getattr(response, "headers", None)) is HTTPHeaderDict:
                response.headers = headers.to_urllib3()
        return response

    def putheader(self, header: Any, *values: Any) -> None:
        """Add a header, or a whole block of them."""
        if header is _BLOCK:
            self._buffer.append(values[0])
        elif self._joined_body is None or len(values) != 1 or not str(values[0]).isprintable():
            super().putheader(header, *values)  # type: ignore[misc]
        else:
            self._buffer.append(f"{header}: {values[0]}".encode("latin-1"))

    def _send_output(self, message_body: Any = None, encode_chunked: bool = False) -> None:
        if self._joined_body is None:
            super()._send_output(message_body, encode_chunked)  # type: ignore[misc]
            return
        message = b"\r\n".join((*self._buffer, b"", self._joined_body))
        self._buffer.clear()
        self._joined_body = None
        self.send(message)


def _not_negative(size: int) -> int:
    if size < 0:
        raise UnreadableAnswer(f"a chunk of the body has the length {size}")
    return size


class _CompleteLines:
    """Reader of lines that raises where one breaks off at the end of the connection."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lines = 0

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        self._lines += 1
        # No line at all is http.client's RemoteDisconnected; one as long as the limit is another error.
        if not line.endswith(b"\n") and len(line) < limit and (line or self._lines > 1):
            raise http.client.IncompleteRead(line)
        return line

    def close(self) -> None:
        self._file.close()


def _normalise_framing(fields: Fields, *, closes: bool, bodiless: bool = False) -> Fields:
    """Return ``fields`` with one length, or ``chunked`` alone, or neither, to say where the body ends.

    Gateways repeat the fields of the server behind them: the same length twice is that length.

    Args:
        fields: the fields of a response.
        bodiless: whether the response has no body, whatever they say.
        closes: whether the connection ends with the response: then a body of unknown length ends with it too.

    Raises:
        UnreadableAnswer: they do not say where the body ends; the message names the field.
    """
    coding, length = fields.merged.get(_TRANSFER_CODING), fields.merged.get(_CONTENT_LENGTH)
    if coding is None and (length is None or _DIGITS.fullmatch(length[1])):
        return fields
    if bodiless:
        return _with_framing(fields, {})
    if coding is not None and _is_chunked(coding[1]):
        return _with_framing(fields, {_TRANSFER_CODING: (coding[0], "chunked")})
    digits = None if length is None else _stated_length(length[1], closes=closes)
    if digits is not None and length is not None:
        return _with_framing(fields, {_CONTENT_LENGTH: (length[0], digits)})
    if coding is not None and _transfer_codings(coding[1]) and not closes:
        raise UnreadableAnswer(f"Transfer-Encoding {coding[1][:80]!r} does not tell where the body ends")
    return _with_framing(fields, {})


def _transfer_codings(value: str) -> List[str]:
    names = (name.partition(";")[0].strip().lower() for name in value.split(","))
    return [name for name in names if name not in ("", "identity")]


def _is_chunked(value: str) -> bool:
    names = _transfer_codings(value)
    if "chunked" not in names:
        return False
    if set(names) != {"chunked"}:
        raise UnreadableAnswer(f"Transfer-Encoding {value[:80]!r}: only 'chunked' is understood")
    return True


def _stated_length(value: str, *, closes: bool) -> Optional[str]:
    """Return the one length in ``value``; None where there is none and none is needed."""
    parts = [part for part in (part.strip() for part in value.split(",")) if part]
    lengths = {int(part) for part in parts if _DIGITS.fullmatch(part)}
    if len(lengths) == 1 and all(map(_DIGITS.fullmatch, parts)):
        return str(lengths.pop())
    if closes and not lengths:
        return None
    problem = "names several lengths" if len(lengths) > 1 else "is not a length"
    raise UnreadableAnswer(f"Content-Length {value[:80]!r} {problem}")


def _with_framing(fields: Fields, framing: Dict[str, Field]) -> Fields:
    """Return ``fields`` with ``framing`` in the place of those that say where the body ends."""
    merged = {name: field for name, field in fields.merged.items() if name not in (_CONTENT_LENGTH, _TRANSFER_CODING)}
    every: List[Tuple[str, str]] = [
        field for field in fields.all if field[0].lower() not in (_CONTENT_LENGTH, _TRANSFER_CODING)
    ]
    return Fields([*every, *framing.values()], {**merged, **framing})


def _closes_connection(fields: Dict[str, Field], version: int) -> bool:
    """Return whether the connection ends with the response, by the fields of its head."""
    options = (_value(fields, "connection") or "").lower()
    if version == 11:
        return "close" in options
    keeps_alive = "keep-alive" in options or "keep-alive" in fields
    return not (keeps_alive or "keep-alive" in (_value(fields, "proxy-connection") or "").lower())


def _value(fields: Dict[str, Field], name: str) -> Optional[str]:
    field = fields.get(name)
    return None if field is None else field[1]
