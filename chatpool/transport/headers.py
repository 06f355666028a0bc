"""Header mappings that do less work than requests' and http.client's own."""

from __future__ import annotations

import http.client
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple, cast

from requests.structures import CaseInsensitiveDict
from urllib3._collections import HTTPHeaderDict

__all__ = ["Field", "LeanHeaders", "ParsedHeaders", "merge", "parse_fields"]

Field = Tuple[str, str]

# A field line as RFC 9112, 5 has it, of printable ASCII; anything else is left to http.client.
_FIELD = re.compile(r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([ -~\t]*)\r$", re.MULTILINE)


_FRAMING = ("content-length", "transfer-encoding", "connection")
_NEEDED_TO_READ = ("content-length", "transfer-encoding", "content-encoding")


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


class AnswerHeaders(CaseInsensitiveDict):  # type: ignore[type-arg]
    """Headers of an answer, which look for a name without raising where it is missing."""

    _store: Any

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default``."""
        found = self._store.get(key.lower())
        return default if found is None else found[1]


class ParsedHeaders(http.client.HTTPMessage):
    """Headers of an answer, already taken apart.

    Args:
        fields: pairs of name and value in the answer's order.
        merged: the same as :func:`merge` has them.

    Attributes:
        brief: whether :meth:`items` are only those by which urllib3 reads the body; it is given the others, already
            in the form it wants them, when it has made its response.
    """

    brief = False

    def __init__(self, fields: List[Field], merged: Dict[str, Field]) -> None:
        super().__init__()
        self._headers = fields
        self._merged = merged

    def case_insensitive(self) -> CaseInsensitiveDict[str]:
        """As requests has them, made without taking every name apart again."""
        headers: Any = AnswerHeaders.__new__(AnswerHeaders)
        headers._store = self._merged.copy()
        return cast("CaseInsensitiveDict[str]", headers)

    def as_urllib3_has_them(self) -> HTTPHeaderDict:
        """All of them, without urllib3 adding one after the other."""
        headers = HTTPHeaderDict()
        container: Dict[str, List[str]] = {}
        for name, value in self._headers:
            container.setdefault(name.lower(), [name]).append(value)
        headers._container = container
        return headers

    def items(self) -> List[Field]:
        """The fields, as they were given."""
        if self.brief:
            return [self._merged[name] for name in _NEEDED_TO_READ if name in self._merged]
        return list(self._headers)

    def get_payload(self, i: Optional[int] = None, decode: bool = False) -> Any:
        """Nothing: there is no body in a head."""
        return None


def parse_fields(lines: bytes) -> Optional[List[Field]]:
    """The fields of a head's lines; None if there is anything unusual about one of them."""
    text = lines.decode("latin-1")
    fields = _FIELD.findall(text)
    count = len(fields)
    # Then every line matched from its first to its last character.
    whole = text.count("\n") == text.count("\r") == count and (text.endswith("\r\n") or not text)
    return fields if whole and " \r" not in text and "\t\r" not in text else None


def merge(fields: List[Field]) -> Optional[Dict[str, Field]]:
    """The fields by their names in lower case, the values of a repeated one joined by commas (RFC 9110, 5.2).

    None where the repeated one says where the body ends: http.client's rules are asked then.
    """
    merged: Dict[str, Field] = {}
    for field in fields:
        name = field[0].lower()
        if name not in merged:
            merged[name] = field
        elif name in _FRAMING:
            return None
        else:
            first = merged[name]
            merged[name] = (first[0], f"{first[1]}, {field[1]}")
    return merged
