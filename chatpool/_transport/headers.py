"""Headers: checks of those to be sent, a parser of those received, and mappings that are faster than requests' own."""

from __future__ import annotations

import http.client
import re
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union, cast

from requests.structures import CaseInsensitiveDict
from urllib3._collections import HTTPHeaderDict

from ..errors import ConfigurationError

__all__ = [
    "Field",
    "Fields",
    "ParsedHeaders",
    "RequestHeaders",
    "check_headers",
    "header_problem",
    "parse_fields",
    "parse_leniently",
]

Field = Tuple[str, str]

# A field line as RFC 9112, 5 has it, of printable ASCII; anything else is left to parse_loosely().
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([ -~\t]*)")

_FRAMING_FIELDS = ("content-length", "transfer-encoding", "connection")
_BODY_FIELDS = ("content-length", "content-encoding")

# Lines that were parsed before, by their text: a server sends most of them with every response.
_parsed_lines: Dict[str, Tuple[str, Field]] = {}
_MAX_CACHED_LINES, _MAX_CACHED_LINE_CHARS = 512, 200


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
        ConfigurationError: there is a line break, a NUL or a character that no header can carry in one of them. The
            message names the parameter and the header, and does not show the value, which may be a key.
    """
    for name, value in headers.items():
        if not isinstance(name, (str, bytes)):
            raise TypeError(f"{parameter}: the name of a header must be a str, got {name!r}")
        if not isinstance(value, (str, bytes, type(None))):
            raise TypeError(f"{parameter}: the header {name!r} must be a str, got {type(value).__name__}")
        problem = header_problem(name) or header_problem(value or "")
        if problem:
            raise ConfigurationError(f"{parameter}: the header {name!r} must not contain {problem}")


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


class ResponseHeaders(CaseInsensitiveDict):  # type: ignore[type-arg]
    """Headers of a response, which are searched without an exception where a name is missing."""

    _store: Any

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default``."""
        field = self._store.get(key.lower())
        return default if field is None else field[1]


class ParsedHeaders(http.client.HTTPMessage):
    """Headers of a response, already parsed.

    Attributes:
        is_partial: whether :meth:`items` are only those by which urllib3 reads the body; when it has made its response,
            it is given all of them in its own form.
    """

    is_partial = False

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._headers, self._merged = fields

    def to_requests(self) -> CaseInsensitiveDict[str]:
        """Return them as requests has them, without parsing every name again."""
        headers: Any = ResponseHeaders.__new__(ResponseHeaders)
        headers._store = self._merged.copy()
        return cast("CaseInsensitiveDict[str]", headers)

    def to_urllib3(self) -> HTTPHeaderDict:
        """Return them as urllib3 has them, without adding one after the other."""
        headers = _RawHeaders.__new__(_RawHeaders)
        headers._fields = Fields(self._headers, self._merged)
        return headers

    def items(self) -> List[Field]:
        """Return the fields, as they were received."""
        if self.is_partial:
            # urllib3 asks for the coding of every answer, and a name that is missing costs it an exception.
            coding = self._merged.get("transfer-encoding", ("Transfer-Encoding", ""))
            return [coding, *(self._merged[name] for name in _BODY_FIELDS if name in self._merged)]
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
    for line in text.split("\r\n")[:-1]:
        parsed = _parsed_lines.get(line) or _parse_line(line)
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
        if len(_parsed_lines) >= _MAX_CACHED_LINES:
            _parsed_lines.clear()
        _parsed_lines[line] = parsed
    return parsed
