"""Header mappings that do less work than requests' and http.client's own."""

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
    "LeanHeaders",
    "ParsedHeaders",
    "check_headers",
    "header_problem",
    "parse_fields",
    "parse_loosely",
]

Field = Tuple[str, str]

# A field line as RFC 9112, 5 has it, of printable ASCII; anything else is left to parse_loosely().
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([ -~\t]*)")

_FRAMING = ("content-length", "transfer-encoding", "connection")
_NEEDED_TO_READ = ("content-length", "content-encoding")

# Lines that were taken apart before, by their text: a server sends most of them with every answer.
_known: Dict[str, Tuple[str, Field]] = {}
_MOST_KNOWN, _LONGEST_KNOWN = 512, 200


def header_problem(text: Union[str, bytes]) -> str:
    """Return what is in ``text`` that no header may hold, "" for nothing."""
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
    """The fields of an answer's head.

    Attributes:
        all: pairs of name and value, in the answer's order.
        merged: the same by their names in lower case, the values of a repeated one joined by commas (RFC 9110, 5.2).
    """

    all: List[Field]
    merged: Dict[str, Field]


class LeanHeaders(CaseInsensitiveDict):  # type: ignore[type-arg]  # generic in the stubs only
    """Headers of a request, which copies and lists them without lowering every name again."""

    _store: Any

    def copy(self) -> LeanHeaders:
        """An independent copy."""
        copied = LeanHeaders.__new__(LeanHeaders)
        copied._store = self._store.copy()
        return copied

    def items(self) -> Any:
        """Pairs of name and value."""
        return self._store.values()

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._store.values()])

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "***"))


class AnswerHeaders(CaseInsensitiveDict):  # type: ignore[type-arg]
    """Headers of an answer, which look for a name without raising where it is missing."""

    _store: Any

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default``."""
        found = self._store.get(key.lower())
        return default if found is None else found[1]


class ParsedHeaders(http.client.HTTPMessage):
    """Headers of an answer, already taken apart.

    Attributes:
        brief: whether :meth:`items` are only those by which urllib3 reads the body; it is given the others, already
            in the form it wants them, when it has made its response.
    """

    brief = False

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._headers, self._merged = fields

    def case_insensitive(self) -> CaseInsensitiveDict[str]:
        """As requests has them, made without taking every name apart again."""
        headers: Any = AnswerHeaders.__new__(AnswerHeaders)
        headers._store = self._merged.copy()
        return cast("CaseInsensitiveDict[str]", headers)

    def as_urllib3_has_them(self) -> HTTPHeaderDict:
        """All of them, without urllib3 adding one after the other."""
        headers = _RawHeaders.__new__(_RawHeaders)
        headers._fields = Fields(self._headers, self._merged)
        return headers

    def items(self) -> List[Field]:
        """The fields, as they were given."""
        if self.brief:
            # urllib3 asks for the coding of every answer, and a name that is missing costs it an exception.
            coding = self._merged.get("transfer-encoding", ("Transfer-Encoding", ""))
            return [coding, *(self._merged[name] for name in _NEEDED_TO_READ if name in self._merged)]
        return list(self._headers)

    def get_payload(self, i: Optional[int] = None, decode: bool = False) -> Any:
        """Nothing: there is no body in a head."""
        return None


class _RawHeaders(HTTPHeaderDict):
    """urllib3's headers of an answer, which it hardly looks at: filled once somebody wants more than single values."""

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
        """The value, or ``default``."""
        if "_container" in self.__dict__:  # it may have been changed
            return super().get(key, default)
        found = self._fields.merged.get(key.lower())
        return default if found is None else found[1]


def parse_fields(lines: bytes) -> Optional[Fields]:
    """The fields of a head's lines.

    None if there is anything unusual about one of them, or one is repeated that says where the body ends:
    :func:`parse_loosely` is asked then.
    """
    fields: List[Field] = []
    merged: Dict[str, Field] = {}
    text = lines.decode("latin-1")
    if text and not text.endswith("\r\n"):
        return None
    for line in text.split("\r\n")[:-1]:
        known = _known.get(line) or _take_apart(line)
        if known is None:
            return None
        name, field = known
        fields.append(field)
        if name not in merged:
            merged[name] = field
        elif name in _FRAMING:
            return None
        else:
            first = merged[name]
            merged[name] = (first[0], f"{first[1]}, {field[1]}")
    return Fields(fields, merged)


def parse_loosely(lines: Sequence[bytes]) -> Fields:
    """The fields of a head's lines, whatever they look like.

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


def _take_apart(line: str) -> Optional[Tuple[str, Field]]:
    """The name of a line's field in lower case, and the field; None if the line is unusual."""
    match = _FIELD.fullmatch(line)
    if match is None or line.endswith((" ", "\t")):
        return None
    known = (match[1].lower(), (match[1], match[2].lstrip(" \t")))
    if len(line) <= _LONGEST_KNOWN:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[line] = known
    return known
