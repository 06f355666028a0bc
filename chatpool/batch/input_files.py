"""Input files of all formats, as streams of numbered lines."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import sys
import zlib
from typing import Any, BinaryIO, Generator, Iterator, List, Optional, cast

from .._wire.codec import strict_loads
from ..errors import ConfigurationError
from .input_tables import (
    BLANK,
    EXCEL,
    PARQUET,
    SEPARATOR_LINE,
    Heading,
    InputLine,
    InputProblem,
    csv_lines,
    delimiter_of,
    detach,
    excel_lines,
    is_torn,
    not_decoded,
    parquet_lines,
    refuse_binary,
    refuse_text,
    table_kind,
)

__all__ = ["BLANK", "CSV", "EXCEL", "JSON", "PARQUET", "TEXT", "InputLine", "InputProblem", "Source"]

_STDIN = "-"
JSON, CSV, TEXT = "json", "csv", "text"

_SUFFIXES = {".csv": CSV, ".tsv": CSV, ".txt": TEXT, ".jsonl": JSON, ".ndjson": JSON, ".json": JSON}
_TABLE_NAMES = {
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls"), "an Excel workbook"),  # an .xls may be HTML, or text with tabs
    ".parquet": "a Parquet file",
}
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_HEAD_BYTES = 1 << 16  # that the format is detected in
_UTF8 = "utf-8-sig"


class Source:
    """An input file.  Every iteration reads it again; standard input is read once.

    Args:
        path: the file, or ``"-"`` for standard input; compressed by gzip or not.
        column: set if a column holds the prompts: then a text that does not look like JSON is CSV.
        delimiter: the character between the columns of CSV, or ``"tab"``, ``"comma"``, ``"semicolon"``,
            ``"pipe"``. Default: detected in the first lines.
        encoding: the encoding of the text, by Python's name. Default: UTF-8.
        rows_before: the number of rows that come before those of this file, which is a part of a larger one.

    Attributes:
        name: its name for messages.
        folder: its folder; "" for the current one, and for standard input.
        format: :data:`JSON`, :data:`CSV`, :data:`TEXT`, :data:`EXCEL` or :data:`PARQUET`, by its name and its
            first bytes.
        is_stream: whether it can be read only once.
        unit: the word for a place in it: a line, or a row.
        heading: the heading of a table, once its first row is read.

    Raises:
        ConfigurationError: the file cannot be read, has no rows, or is not UTF-8; or an option does not fit.
    """

    def __init__(
        self,
        path: str,
        column: Optional[str] = None,
        delimiter: Optional[str] = None,
        encoding: Optional[str] = None,
        rows_before: int = 0,
    ) -> None:
        self._path = path
        self._rows_before = rows_before
        self.is_stream = path == _STDIN
        self.folder = "" if self.is_stream else os.path.dirname(path)
        self.name = "standard input" if self.is_stream else path
        self._encoding = _UTF8 if encoding is None else _checked_encoding(encoding)
        self._delimiter = "" if delimiter is None else _checked_delimiter(delimiter)
        self.heading = Heading()
        self._being_read: List[BinaryIO] = []
        self._stdin: Optional[io.BufferedReader] = None
        if self.is_stream:
            self._stdin = _unpacked(cast(BinaryIO, sys.stdin.buffer))
        self._suffix = self._suffix_of(path)
        with self._opened() as file:
            head = file.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            kind = table_kind(head, file)
            if kind is not None:
                self._take_table(kind, file)
                return
            if encoding is None:
                self._refuse_utf_16(head)
                refuse_binary(self.name, head, file)
        self._take_text(head, column)

    def _take_text(self, head: bytes, column: Optional[str]) -> None:
        self.unit = "line"
        if self._suffix in _TABLE_NAMES and head:
            kind = _TABLE_NAMES[self._suffix]
            raise ConfigurationError(f"{self.name} is not {kind}, whatever its name says: give it that of its kind")
        text = self._decoded(head).lstrip("\ufeff \t\r\n\f\v")
        self.format = self._format_of(text, column)
        refuse_text(self.name, text, is_json=self.format == JSON, is_table=self.format == CSV)
        self._detect_delimiter(text)

    def _take_table(self, kind: str, file: io.BufferedReader) -> None:
        self.format, self.unit = kind, "row"
        if self.is_stream or isinstance(file.raw, gzip.GzipFile):
            raise ConfigurationError(
                f"{self.name} is a file of {kind.capitalize()}, which is not read as it comes: "
                "write it to a file, not compressed, and name that"
            )
        for option, is_set in (("delimiter", self._delimiter), ("encoding", self._encoding != _UTF8)):
            if is_set:
                raise ConfigurationError(f"{option} is for text, and {self.name} is a file of {kind.capitalize()}")

    def _refuse_utf_16(self, head: bytes) -> None:
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ConfigurationError(
                f"{self.name} is UTF-16 text: save it as UTF-8, or pass encoding= (--encoding utf-16)"
            )

    def _decoded(self, head: bytes) -> str:
        if self._encoding == _UTF8:
            return head.decode("utf-8", "replace")
        return codecs.getincrementaldecoder(self._encoding)("replace").decode(head)

    @staticmethod
    def _suffix_of(path: str) -> str:
        stem, suffix = os.path.splitext(path)
        if suffix.lower() in (".gz", ".gzip"):
            suffix = os.path.splitext(stem)[1]
        return suffix.lower()

    def _format_of(self, text: str, column: Optional[str]) -> str:
        named = _SUFFIXES.get(self._suffix)
        if named == JSON or (named is None and text[:1] in ("{", "[")):
            if self._delimiter:
                raise ConfigurationError(f"delimiter is for CSV, and {self.name} is JSON lines")
            return JSON
        is_table = column is not None or self._delimiter or SEPARATOR_LINE.match(text)
        return CSV if named == CSV or is_table else TEXT

    def _detect_delimiter(self, text: str) -> None:
        separator_line = SEPARATOR_LINE.match(text) if self.format == CSV else None
        self._has_separator_line = separator_line is not None
        if self._delimiter or self.format != CSV:
            return
        if separator_line is not None:
            self._delimiter = separator_line[1]
        else:
            self._delimiter = "\t" if self._suffix == ".tsv" else delimiter_of(text)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[io.BufferedReader]:
        if self._stdin is not None:
            yield self._stdin
            return
        try:
            file = open(self._path, "rb", buffering=_HEAD_BYTES)  # noqa: SIM115 - closed below
        except OSError as error:
            raise ConfigurationError(f"cannot read {self._path}: {error.strerror or error}") from error
        self._being_read.append(file)
        try:
            with file, self._read_errors():
                yield _unpacked(file)
        finally:
            self._being_read.remove(file)

    def close(self) -> None:
        """Close it where a reading was left early.

        A generator that nobody refers to any more does so by itself, on a Python without the global lock some time
        later.
        """
        for file in list(self._being_read):
            file.close()

    @contextlib.contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigurationError(f"cannot read {self.name}: {error}") from error

    @property
    def delimiter(self) -> str:
        """The character between the columns of CSV; "" of other formats."""
        return self._delimiter

    def text_lines(self) -> Generator[bytes, None, None]:
        """Yield every line of a text as it stands, empty ones too, in UTF-8.

        Lines are split as those of the rows are, so that the rows' places count these.
        """
        with self._opened() as file:
            newline = "" if self.format == CSV else "\n"
            text = io.TextIOWrapper(file, encoding=self._encoding, errors="surrogateescape", newline=newline)
            try:
                for line in text:
                    yield line.encode("utf-8", "surrogateescape")
            finally:
                detach(text)

    def __iter__(self) -> Iterator[InputLine]:
        """Yield its lines; empty ones are left out.

        Raises:
            ConfigurationError: the file breaks off.
        """
        for line in self._input_lines():
            yield line._replace(number=line.number + self._rows_before) if self._rows_before else line

    def _input_lines(self) -> Iterator[InputLine]:
        if self.format == EXCEL:
            yield from excel_lines(self._path, self.name, self.heading)
        elif self.format == PARQUET:
            yield from parquet_lines(self._path, self.name, self.heading)
        else:
            with self._opened() as file:
                yield from self._text_lines(file)

    def _text_lines(self, file: io.BufferedReader) -> Iterator[InputLine]:
        if self.format == CSV:
            has_line = self._has_separator_line
            return csv_lines(
                file, self.name, self._delimiter, self._encoding, self.heading, has_separator_line=has_line
            )
        return _lines(file, self.format) if self._encoding == _UTF8 else self._decoded_lines(file)

    def _decoded_lines(self, file: io.BufferedReader) -> Iterator[InputLine]:
        """Yield lines of another encoding than UTF-8."""
        text = io.TextIOWrapper(file, encoding=self._encoding, errors="surrogateescape", newline="\n")
        number = 0
        try:
            for place, line in enumerate(text, 1):
                data = line.removeprefix("\ufeff") if place == 1 else line
                if data and not data.isspace():
                    number += 1
                    torn = is_torn(data)
                    value = InputProblem(not_decoded(None, self._encoding)) if torn else _value(data, self.format)
                    yield InputLine(number, value, place, place)
        except UnicodeError as error:
            raise ConfigurationError(f"{self.name} is not {self._encoding}: {error}") from error
        finally:
            detach(text)


def _checked_encoding(name: str) -> str:
    try:
        codec = codecs.lookup(name)
        "".encode(name)  # fails for an encoding of bytes, such as hex
    except (LookupError, TypeError, ValueError):
        raise ConfigurationError(
            f"encoding must be the name of an encoding of text, such as utf-8, cp1252 or utf-16, got {name!r}"
        ) from None
    return _UTF8 if codec.name in ("utf-8", _UTF8) else codec.name


def _checked_delimiter(delimiter: str) -> str:
    mark = _DELIMITERS.get(delimiter, delimiter)
    if len(mark) != 1 or mark in '"\r\n':
        raise ConfigurationError(
            f"delimiter must be one character, or tab, comma, semicolon, pipe or space, got {delimiter!r}"
        )
    return mark


def _unpacked(file: BinaryIO) -> io.BufferedReader:
    reader = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file))
    if reader.peek(2)[:2] == b"\x1f\x8b":
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=reader)), 1 << 17)
    return reader


def _lines(file: BinaryIO, kind: str) -> Iterator[InputLine]:
    number = 0
    for place, raw in enumerate(file, 1):
        data = raw.removeprefix(b"\xef\xbb\xbf") if place == 1 else raw
        if data.isspace() or not data:
            continue
        number += 1
        try:
            value = _value(data.decode("utf-8"), kind)
        except UnicodeDecodeError as error:
            value = InputProblem(not_decoded(error, _UTF8))
        yield InputLine(number, value, place, place)


def _value(text: str, kind: str) -> Any:
    if kind != JSON:
        return text.rstrip("\r\n")
    try:
        return strict_loads(text.rstrip())
    except ValueError as error:
        whole = " (each line has to be whole)" if " at column " in str(error) else ""
        return InputProblem(f"{error}{whole}")
