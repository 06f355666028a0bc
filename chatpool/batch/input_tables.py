"""The rows of tables: CSV and Parquet; those of spreadsheets are in :mod:`.workbooks`."""

from __future__ import annotations

import base64
import contextlib
import csv
import datetime
import decimal
import importlib
import io
import re
import uuid
from typing import (
    Any,
    BinaryIO,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
)

from ..errors import ConfigurationError
from .file_kinds import EXCEL, PARQUET

__all__ = [
    "BLANK",
    "SEPARATOR_LINE",
    "Heading",
    "Line",
    "Problem",
    "by_name",
    "checked_names",
    "csv_lines",
    "delimiter_of",
    "is_torn",
    "not_decoded",
    "package_for",
    "parquet_lines",
    "refuse_unreadable",
]

_LONGEST_FIELD = 1 << 27
_MARKS = ",;\t|"
_LOOKED_AT = 50  # lines that the separator is found from
_ROWS_AT_ONCE = 1024

_QUOTED = re.compile(r'(^|[,;\t|\r\n]) *"(?:[^"]|"")*"')
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r?\n|\r)', re.IGNORECASE)


class Problem(NamedTuple):
    """Why a line cannot be used."""

    reason: str


class Line(NamedTuple):
    """One record of an input.

    Attributes:
        number: its number among the records, from 1; blank lines have none, the header of a table has the first.
        value: its JSON value, its fields, its text, a :class:`Problem`, or :data:`BLANK`.
        place: the line of the file, or the row of the sheet, at which it begins, from 1.
        end: the line at which it ends, by which version 0.1.0 called it.
    """

    number: int
    value: Any
    place: int
    end: int


class Heading:
    """What a table says of itself before its first row.

    Attributes:
        columns: the names of its columns, in their order.
        sheet: which sheet of a workbook it is, for a person; "" where there is one only.
    """

    def __init__(self) -> None:
        self.columns: Dict[str, None] = {}
        self.sheet = ""


BLANK: Any = object()
"""The value of a row that is nothing but separators."""


def delimiter_of(head: str) -> str:
    """What separates the columns: not every spreadsheet writes commas.

    The mark that the lines have as often as the first one does, outside quotes; of several, that which is there most.

    Args:
        head: the beginning of the file.
    """
    lines = [line for line in re.split(r"[\r\n]+", _QUOTED.sub(r"\1x", head)) if line.strip(_MARKS + " ")]
    if len(lines) > 2 and not head.endswith(("\n", "\r")):
        lines.pop()  # which may be half of one
    counts = {mark: [line.count(mark) for line in lines[:_LOOKED_AT]] for mark in _MARKS}
    found = {mark: counted for mark, counted in counts.items() if counted and counted[0]}
    if not found:
        return ","
    return max(found, key=lambda mark: (round(found[mark].count(found[mark][0]) / len(found[mark]), 1), found[mark][0]))


def csv_lines(
    file: BinaryIO, name: str, delimiter: str, encoding: str, heading: Heading, *, has_separator_line: bool
) -> Iterator[Line]:
    """The rows of CSV, each a dict of texts.

    Args:
        file: it.
        name: how it is called in messages.
        delimiter: what separates its columns.
        encoding: of its text.
        heading: takes the names of the columns.
        has_separator_line: whether its first line is one such as ``sep=;``.

    Raises:
        ConfigurationError: the first line cannot be used.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
    try:
        before = 0
        if has_separator_line:
            text.readline()
            before = 1
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        names: Optional[List[str]] = None
        number = end = 0
        while True:
            place = end + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise ConfigurationError(f"{name} is {not_decoded(error, encoding)}") from None
            except csv.Error as error:
                if names is None:
                    raise ConfigurationError(f"line {place + before} of {name} is not CSV: {error}") from error
                value: Any = Problem(f"not CSV: {error}")
            else:
                if any(map(str.strip, fields)):
                    value = fields if names is None else by_name(names, fields, encoding)
                elif not fields or names is None:
                    end = reader.line_num
                    continue
                else:
                    value = BLANK
            end = reader.line_num
            number += value is not BLANK
            if names is None:
                names = checked_names(value, name, encoding)
                heading.columns.update(dict.fromkeys(filter(None, names)))
            else:
                yield Line(number, value, place + before, end + before)
    finally:
        text.detach()


def checked_names(names: List[str], file: str, encoding: str) -> List[str]:
    """The names of the columns, "" for one without.

    Raises:
        ConfigurationError: there is one twice, or it is not of the encoding.
    """
    names = [name.removeprefix("\ufeff") for name in names]
    names = [name if name.strip() else "" for name in names]
    while not names[-1]:
        names.pop()
    if any(map(is_torn, names)):
        raise ConfigurationError(f"{file} is {not_decoded(None, encoding)}")
    _refuse_twice([name for name in names if name], file)
    return names


def _refuse_twice(names: Sequence[str], file: str) -> None:
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ConfigurationError(f"{file} has two columns {twice!r}: rename one of them")


def by_name(names: Sequence[str], fields: Sequence[str], encoding: str) -> Any:
    """The fields under the names; columns without a name are left out."""
    if len(fields) != len(names):
        if any(map(str.strip, fields[len(names) :])):
            shown = ", ".join(name or "''" for name in names)[:80]
            return Problem(
                f"it has more fields than the first line has names ({shown}): that line names every column, and a text "
                "with a separator in it stands in quotes; for another separator there is delimiter= (--delimiter)"
            )
        missing = [name for name in names[len(fields) :] if name]
        if missing:
            return Problem(f"it has no field {missing[0]!r}")
    if is_torn("".join(fields)):
        return Problem(not_decoded(None, encoding))
    found = dict(zip(names, fields))
    found.pop("", None)
    return found


def is_torn(text: str) -> bool:
    """Whether there was something in the text that is not of its encoding."""
    return not text.isascii() and any("\udc80" <= mark <= "\udcff" for mark in text)


def not_decoded(error: Optional[UnicodeDecodeError], encoding: str) -> str:
    """What is wrong with bytes that are not of the encoding, and what to do."""
    is_default = encoding.startswith("utf-8")
    where = "" if error is None else f": {error.reason} at byte {error.start}"
    cure = "save the file as UTF-8, or name its encoding" if is_default else "name the encoding that it has"
    return f"not {'UTF-8' if is_default else encoding}{where}; {cure} (encoding=, --encoding cp1252)"


def parquet_lines(path: str, name: str, heading: Heading) -> Iterator[Line]:
    """The rows of a Parquet file, each a dict of JSON values, infinities, and bytes that are no text.

    Args:
        path: the file.
        name: how it is called in messages.
        heading: takes the names of the columns.

    Raises:
        ConfigurationError: pyarrow is not installed, or cannot read it.
    """
    package: Any = package_for("pyarrow.parquet", PARQUET, name)
    try:
        number = place = 0
        with package.ParquetFile(path) as file:
            names = [column for column in file.schema_arrow.names if not column.startswith("__index_level_")]
            _refuse_twice(names, name)
            heading.columns.update(dict.fromkeys(names))
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
                for row in batch.to_pylist():
                    value = _plain_row(row)
                    place += 1
                    number += value is not BLANK
                    yield Line(number, value, place, place)
    except ConfigurationError:
        raise
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error}") from error
    except Exception as error:  # pyarrow's own, of several kinds
        refuse_unreadable(name, PARQUET, error)


def _plain_row(row: Mapping[str, Any]) -> Any:
    fields: Dict[str, Any] = {}
    for column, value in row.items():
        try:
            fields[column] = _plain_cell(value)
        except ValueError as error:
            return Problem(f"column {column!r} {error}")
    return fields if any(value is not None and value != "" for value in fields.values()) else BLANK


def _plain_cell(value: Any) -> Any:
    """A cell's JSON value; fields of a struct that are null are left out, as a column's structs have all the fields.

    What does no harm unless it is sent stays as it is: an infinity, and bytes that are no text.  Within a struct or a
    list these bytes, such as those of a picture, are base64.
    """
    if isinstance(value, dict):
        return {name: _plain_part(part) for name, part in value.items() if part is not None or name == "content"}
    if isinstance(value, (list, tuple)):  # a map has pairs
        return [_plain_part(part) for part in value]
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, decimal.Decimal):
        if value == value.to_integral_value():
            return int(value)
        number = float(value)
        return number if decimal.Decimal(repr(number)) == value else str(value)  # with all its digits
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):  # texts of Hive, Impala and others are not marked as such
            return value.decode("utf-8")
        return value
    if isinstance(value, (uuid.UUID, datetime.timedelta)):
        return str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    raise ValueError(f"holds a value of type {type(value).__name__}, which JSON has no form for")


def _plain_part(value: Any) -> Any:
    found = _plain_cell(value)
    return base64.b64encode(found).decode("ascii") if isinstance(found, bytes) else found


def package_for(module: str, kind: str, name: str) -> Any:
    """The package that reads files of a kind.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{name} is {_CALLED[kind]}: to read it, pip install 'chatpool[tables]', or save it as CSV in UTF-8"
        ) from None


_CALLED = {EXCEL: "an Excel workbook", PARQUET: "a Parquet file"}


def refuse_unreadable(name: str, kind: str, error: Exception) -> NoReturn:
    """Refuse a file that its package cannot read.

    Raises:
        ConfigurationError: always.
    """
    said = str(error).strip() or type(error).__name__
    raise ConfigurationError(
        f"{name} is {_CALLED[kind]} that cannot be read ({said[:200]}): write it anew, or save it as CSV in UTF-8"
    ) from error
