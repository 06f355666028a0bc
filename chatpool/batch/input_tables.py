"""The rows of tables: CSV, Excel, Parquet."""

from __future__ import annotations

import csv
import datetime
import decimal
import importlib
import io
import math
import re
import uuid
import warnings
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Mapping, NamedTuple, NoReturn, Optional, Sequence

from ..errors import ConfigurationError
from .file_kinds import EXCEL, PARQUET

__all__ = [
    "BLANK",
    "SEPARATOR_LINE",
    "Line",
    "Problem",
    "csv_lines",
    "delimiter_of",
    "excel_lines",
    "is_torn",
    "not_decoded",
    "parquet_lines",
]

_LONGEST_FIELD = 1 << 27
_MARKS = ",;\t|"
_LOOKED_AT = 50  # lines that the separator is found from
_ROWS_AT_ONCE = 1024

_QUOTED = re.compile(r'(^|[,;\t|]) *"(?:[^"]|"")*"', re.MULTILINE)
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)


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


BLANK: Any = object()
"""The value of a row that is nothing but separators."""


def delimiter_of(head: str) -> str:
    """What separates the columns: not every spreadsheet writes commas.

    The mark that the lines have as often as the first one does, outside quotes; of several, that which is there most.

    Args:
        head: the beginning of the file.
    """
    lines = [line for line in _QUOTED.sub(r"\1", head).splitlines() if line.strip(_MARKS + " ")]
    if len(lines) > 2 and not head.endswith("\n"):
        lines.pop()  # which may be half of one
    counts = {mark: [line.count(mark) for line in lines[:_LOOKED_AT]] for mark in _MARKS}
    found = {mark: counted for mark, counted in counts.items() if counted and counted[0]}
    if not found:
        return ","
    return max(found, key=lambda mark: (round(found[mark].count(found[mark][0]) / len(found[mark]), 1), found[mark][0]))


def csv_lines(file: BinaryIO, name: str, delimiter: str, encoding: str, *, has_separator_line: bool) -> Iterator[Line]:
    """The rows of CSV, each a dict of texts.

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
                    value = fields if names is None else _by_name(names, fields, encoding)
                elif not fields or names is None:
                    end = reader.line_num
                    continue
                else:
                    value = BLANK
            end = reader.line_num
            number += value is not BLANK
            if names is None:
                names = _checked_names(value, name, encoding)
            else:
                yield Line(number, value, place + before, end + before)
    finally:
        text.detach()


def _checked_names(names: List[str], file: str, encoding: str) -> List[str]:
    """The names of the columns, "" for one without."""
    names = [name.removeprefix("\ufeff") for name in names]
    names = [name if name.strip() else "" for name in names]
    while not names[-1]:
        names.pop()
    if any(map(is_torn, names)):
        raise ConfigurationError(f"{file} is {not_decoded(None, encoding)}")
    named = [name for name in names if name]
    twice = next((name for place, name in enumerate(named) if name in named[:place]), None)
    if twice is not None:
        raise ConfigurationError(f"{file} has two columns {twice!r}: rename one of them")
    return names


def _by_name(names: Sequence[str], fields: Sequence[str], encoding: str) -> Any:
    """The fields under the names; columns without a name are left out."""
    if len(fields) != len(names):
        if any(map(str.strip, fields[len(names) :])):
            return Problem("it has more fields than the first line has names")
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


def excel_lines(path: str, name: str) -> Iterator[Line]:
    """The rows of the first sheet of an Excel workbook, each a dict of texts.

    Raises:
        ConfigurationError: openpyxl is not installed, or cannot read it.
    """
    package: Any = _package("openpyxl", EXCEL, name)
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, and what else is no matter of ours
            book = package.load_workbook(io.BytesIO(file.read()), read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # which not every program writes as they are
        yield from _sheet_lines(sheet.iter_rows(values_only=True), name)
    except ConfigurationError:
        raise
    except Exception as error:  # of any kind: it parses what it is given
        _unreadable(name, EXCEL, error)


def _sheet_lines(rows: Iterable[Sequence[Any]], name: str) -> Iterator[Line]:
    names: Optional[List[str]] = None
    number = 0
    for place, cells in enumerate(rows, 1):
        fields = [_cell_text(cell) for cell in cells]
        if not any(field.strip() for field in fields):
            if names is not None and fields:
                yield Line(number, BLANK, place, place)
            continue
        number += 1
        if names is None:
            names = _checked_names(fields, name, "utf-8")
            continue
        fields += [""] * (len(names) - len(fields))
        yield Line(number, _by_name(names, fields, "utf-8"), place, place)


def _cell_text(cell: Any) -> str:
    """A cell as a spreadsheet would write it into CSV."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return str(cell)


def parquet_lines(path: str, name: str) -> Iterator[Line]:
    """The rows of a Parquet file, each a dict of JSON values.

    Raises:
        ConfigurationError: pyarrow is not installed, or cannot read it.
    """
    package: Any = _package("pyarrow.parquet", PARQUET, name)
    try:
        number = place = 0
        with package.ParquetFile(path) as file:
            columns = [column for column in file.schema_arrow.names if not column.startswith("__index_level_")]
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                for row in batch.to_pylist():
                    value = _plain_row(row)
                    place += 1
                    number += value is not BLANK
                    yield Line(number, value, place, place)
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error}") from error
    except Exception as error:  # pyarrow's own, of several kinds
        _unreadable(name, PARQUET, error)


def _plain_row(row: Mapping[str, Any]) -> Any:
    try:
        fields: Dict[str, Any] = {column: _plain_cell(value) for column, value in row.items()}
    except ValueError as error:
        return Problem(str(error))
    return fields if any(value is not None and value != "" for value in fields.values()) else BLANK


def _plain_cell(value: Any) -> Any:
    """A cell's JSON value; fields of a struct that are null are left out, as a column's structs have all the fields."""
    if isinstance(value, dict):
        return {name: _plain_cell(part) for name, part in value.items() if part is not None or name == "content"}
    if isinstance(value, list):
        return [_plain_cell(part) for part in value]
    if isinstance(value, float) and not math.isinf(value):
        return None if value != value else value
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    shown = repr(value) if isinstance(value, float) else f"a value of type {type(value).__name__}"
    raise ValueError(f"a cell holds {shown}, which JSON has no form for")


def _package(module: str, kind: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{name} is {_CALLED[kind]}: to read it, pip install 'chatpool[tables]', or save it as CSV in UTF-8"
        ) from None


_CALLED = {EXCEL: "an Excel workbook", PARQUET: "a Parquet file"}


def _unreadable(name: str, kind: str, error: Exception) -> NoReturn:
    said = str(error).strip() or type(error).__name__
    raise ConfigurationError(
        f"{name} is {_CALLED[kind]} that cannot be read ({said[:200]}): write it anew, or save it as CSV in UTF-8"
    ) from error
