"""Input files of all kinds, as a stream of numbered lines."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import sys
import zlib
from typing import Any, BinaryIO, Dict, Iterator, NamedTuple, Optional, cast

from ..errors import ConfigurationError

__all__ = ["CSV", "JSON", "STDIN", "TEXT", "Line", "Problem", "Source"]

STDIN = "-"
JSON, CSV, TEXT = "json", "csv", "text"

_SUFFIXES = {".csv": CSV, ".tsv": CSV, ".txt": TEXT, ".jsonl": JSON, ".ndjson": JSON, ".json": JSON}
_LONGEST_FIELD = 1 << 27
_HEAD = 1 << 16


class Problem(NamedTuple):
    """Why a line cannot be used."""

    reason: str


class Line(NamedTuple):
    """A line: its number in the file, from 1, and its JSON value, its CSV fields, its text or what is wrong with it."""

    number: int
    value: Any


class Source:
    """An input file.  It is read anew for every iteration, standard input only once.

    Args:
        path: the file, or ``"-"`` for standard input; compressed by gzip or not.
        column: set where a column holds the prompts: then what does not look like JSON is CSV.

    Attributes:
        name: how it is called in messages.
        format: :data:`JSON`, :data:`CSV` or :data:`TEXT`, by its name and its first line.
        is_stream: whether it can be read only once.

    Raises:
        ConfigurationError: it cannot be read, or is not UTF-8.
    """

    def __init__(self, path: str, column: Optional[str] = None) -> None:
        self._path = path
        self.is_stream = path == STDIN
        self.name = "standard input" if self.is_stream else path
        self._stdin: Optional[io.BufferedReader] = None
        if self.is_stream:
            self._stdin = _unpacked(cast(BinaryIO, sys.stdin.buffer))
        with self._opened() as file:
            head = file.peek(_HEAD)[:_HEAD]
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ConfigurationError(f"{self.name} is UTF-16 text: save it as UTF-8")
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        self.format = self._format(head, column)
        self._delimiter = _delimiter(path, head.partition(b"\n")[0])

    def _format(self, head: bytes, column: Optional[str]) -> str:
        stem, suffix = os.path.splitext(self._path)
        if suffix.lower() in (".gz", ".gzip"):
            suffix = os.path.splitext(stem)[1]
        named = _SUFFIXES.get(suffix.lower())
        if named is not None:
            return named
        if head[:1] in (b"{", b"["):
            return JSON
        return CSV if column is not None else TEXT

    @contextlib.contextmanager
    def _opened(self) -> Iterator[io.BufferedReader]:
        if self._stdin is not None:
            yield self._stdin
            return
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise ConfigurationError(f"cannot read {self._path}: {error.strerror or error}") from error
        with file, self._trouble():
            yield _unpacked(file)

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigurationError(f"cannot read {self.name}: {error}") from error

    def __iter__(self) -> Iterator[Line]:
        """Its lines; empty ones are left out.

        Raises:
            ConfigurationError: the file breaks off.
        """
        with self._opened() as file:
            yield from _records(file, self._delimiter, self.name) if self.format == CSV else _lines(file, self.format)


def _delimiter(path: str, header: bytes) -> str:
    """What separates the columns: not every spreadsheet writes commas."""
    if ".tsv" in path.lower()[-7:]:
        return "\t"
    return next((mark for mark in ",;\t" if mark.encode() in header), ",")


def _unpacked(file: BinaryIO) -> io.BufferedReader:
    reader = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file))
    if reader.peek(2)[:2] == b"\x1f\x8b":
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=reader)), 1 << 17)
    return reader


def _lines(file: BinaryIO, kind: str) -> Iterator[Line]:
    for number, raw in enumerate(file, 1):
        data = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if data.isspace() or not data:
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            yield Line(number, Problem(f"not UTF-8: {error.reason} at byte {error.start}"))
            continue
        yield Line(number, _json(text) if kind == JSON else text.rstrip("\r\n"))


def _json(text: str) -> Any:
    try:
        return json.loads(text.rstrip())
    except json.JSONDecodeError as error:
        return Problem(f"not JSON: {error.msg} at column {error.colno} (each line has to be whole)")
    except ValueError as error:  # an integer of more digits than Python reads
        return Problem(f"not JSON that can be read: {error}")
    except RecursionError:
        return Problem("not JSON that can be read: nested too deeply")


def _records(file: BinaryIO, delimiter: str, name: str) -> Iterator[Line]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.DictReader(text, delimiter=delimiter, restkey="", restval=None, strict=True)
    try:
        _check_names(reader, name)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Line(reader.line_num, Problem(f"not CSV: {error}"))
                continue
            yield Line(reader.line_num, _checked(fields))
    finally:
        text.detach()


def _check_names(reader: csv.DictReader[str], name: str) -> None:
    try:
        columns = list(reader.fieldnames or ())
    except csv.Error as error:
        raise ConfigurationError(f"line 1 of {name} is not CSV: {error}") from error
    twice = next((column for place, column in enumerate(columns) if column in columns[:place]), None)
    if twice is not None:
        raise ConfigurationError(f"{name} has two columns {twice!r}: rename one of them")


def _checked(fields: Dict[Any, Any]) -> Any:
    if "" in fields and isinstance(fields[""], list):
        return Problem("it has more fields than the first line has names")
    missing = [name for name, value in fields.items() if value is None]
    if missing:
        return Problem(f"it has no field {missing[0]!r}")
    if any("\udc80" <= mark <= "\udcff" for value in fields.values() for mark in value if mark > "\ud7ff"):
        return Problem("not UTF-8")
    return fields
