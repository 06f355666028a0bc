"""The rows of tables: CSV, Parquet and Excel; and the refusal of files that have no rows.

Files of other kinds are recognised by their first bytes, and refused with advice on how to convert them.
"""

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
import warnings
import zipfile
from typing import (
    Any,
    BinaryIO,
    Dict,
    Generator,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    TextIO,
    Tuple,
    Union,
)

from ..errors import ConfigurationError

__all__ = [
    "BLANK",
    "EXCEL",
    "PARQUET",
    "SEPARATOR_LINE",
    "Heading",
    "InputLine",
    "InputProblem",
    "Uncomputed",
    "csv_lines",
    "delimiter_of",
    "detach",
    "excel_lines",
    "import_reader",
    "is_torn",
    "not_decoded",
    "parquet_batches",
    "parquet_lines",
    "refuse_binary",
    "refuse_text",
    "table_kind",
]

EXCEL, PARQUET = "excel", "parquet"
_KIND_NAMES = {EXCEL: "an Excel workbook", PARQUET: "a Parquet file"}

# -- kinds of files ---------------------------------------------------------------------------------------

_ROWS = "an input has one row a line: name such files in its rows, or put what they hold into a table"
_AS_CSV = 'save the sheet as "CSV UTF-8" or as .xlsx'
_EXPORT = "export its rows as CSV, as JSON lines or as Parquet"
_UNPACK = "unpack it first (only gzip is unpacked on the way)"
_READ = "read it with Python and write JSON lines"

# (the first bytes, the kind of file, advice)
_SIGNATURES = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or protected document of Excel or Word", _AS_CSV),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "write it as Parquet"),
    (b"ORC", "an ORC file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or as JSON lines"),
    (b"\x93NUMPY", "an array of numpy's", _READ),
    (b"\x89HDF\r\n", "an HDF5 file", _READ),
    (b"%PDF-", "a PDF document", _ROWS),
    (b"{\\rtf", "an RTF document", "save it as plain text in UTF-8"),
    (b"\x89PNG", "a picture (PNG)", _ROWS),
    (b"\xff\xd8\xff", "a picture (JPEG)", _ROWS),
    (b"GIF8", "a picture (GIF)", _ROWS),
    (b"II*\x00", "a picture (TIFF)", _ROWS),
    (b"MM\x00*", "a picture (TIFF)", _ROWS),
    (b"ID3", "a sound (MP3)", _ROWS),
    (b"OggS", "a sound (Ogg)", _ROWS),
    (b"fLaC", "a sound (FLAC)", _ROWS),
    (b"\x1aE\xdf\xa3", "a film (Matroska, WebM)", _ROWS),
    (b"(\xb5/\xfd", "compressed by zstd", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed by xz", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
)
_RIFF = {b"WEBP": "a picture (WebP)", b"WAVE": "a sound (WAV)", b"AVI ": "a film (AVI)"}
_ZIPPED = (
    ("word/", "a Word document", "save it as plain text in UTF-8"),
    ("ppt/", "a PowerPoint document", "save it as plain text in UTF-8"),
    ("content.xml", "an OpenDocument file", _AS_CSV),
    ("", "a zip archive", _UNPACK),
)


def table_kind(head: bytes, file: BinaryIO) -> Optional[str]:
    """Return :data:`EXCEL` or :data:`PARQUET` if the file is one of these, else None.

    Args:
        head: its first bytes.
        file: the file; if it cannot seek, ``head`` has to do.
    """
    if head.startswith(b"PAR1"):
        return PARQUET
    if head.startswith(b"PK\x03\x04") and any(name.startswith("xl/") for name in _names(head, file)):
        return EXCEL
    return None


def refuse_binary(name: str, head: bytes, file: BinaryIO) -> None:
    """Refuse files that are not text.

    Raises:
        ConfigurationError: the file is of another kind; the message names it, with advice.
    """
    for start, kind, advice in _SIGNATURES:
        if head.startswith(start):
            _refuse(name, kind, advice)
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        _refuse(name, _RIFF[head[8:12]], _ROWS)
    if head[4:8] == b"ftyp":
        _refuse(name, "a film or a picture (MP4, HEIC)", _ROWS)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        _refuse(name, "a pickle of Python's", _READ)
    if head.startswith(b"PK\x03\x04"):
        members = [*_names(head, file), ""]
        _, kind, advice = next(row for row in _ZIPPED if any(member.startswith(row[0]) for member in members))
        _refuse(name, kind, advice)
    if head.count(b"\x00") > len(head) // 8:
        _refuse(name, "no text in UTF-8 (it has NUL bytes)", "if it is UTF-16, say so: encoding=, --encoding utf-16-le")


def refuse_text(name: str, text: str, *, is_json: bool, is_table: bool) -> None:
    """Refuse texts that do not have one row per line.

    Args:
        name: the file.
        text: its beginning.
        is_json: whether each line should be JSON.
        is_table: whether the text should be CSV.

    Raises:
        ConfigurationError: as for :func:`refuse_binary`.
    """
    if text.startswith("version https://git-lfs"):
        _refuse(name, "a pointer of Git LFS and not the file itself", "get it with: git lfs pull")
    if (is_json or is_table) and re.match(r"<(!doctype|html|\?xml|table)", text, re.IGNORECASE):
        _refuse(name, "a page of HTML or XML", "perhaps a download that went wrong; get the file itself")
    first, _, more = text.partition("\n")
    if is_json and more.strip() and first.startswith("[") and not first.rstrip().endswith("]"):
        refuse_array(name)
    if is_json and more.strip() and first.rstrip() == "{":
        _refuse(name, "one JSON object over several lines", "write each object on one line: jq -c . IN > OUT.jsonl")


def refuse_array(name: str) -> NoReturn:
    """Refuse a JSON array.

    Raises:
        ConfigurationError: always.
    """
    advice = "write each of them on a line of its own: jq -c '.[]' IN > OUT.jsonl"
    _refuse(
        name, "a JSON array, a list of requests", f"{advice}, or, of pandas, to_json(..., orient='records', lines=True)"
    )


def _refuse(name: str, kind: str, advice: str) -> NoReturn:
    raise ConfigurationError(f"{name} is {kind}: {advice}")


def _names(head: bytes, file: BinaryIO) -> list[str]:
    """Return the names of the files in a zip archive; of one that cannot be sought, those that its head shows."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        known = ("xl/", "word/", "ppt/", "content.xml")
        return [name for name in known if name.encode() in head]


# -- lines ------------------------------------------------------------------------------------------------


class InputProblem(NamedTuple):
    """The reason why a line cannot be used, as its value."""

    reason: str


class InputLine(NamedTuple):
    """One record of an input.

    Attributes:
        number: its number among the records, from 1; blank lines have none, the header of a table has the first.
        value: its JSON value, its fields, its text, an :class:`InputProblem`, or :data:`BLANK`.
        place: the line of the file, or the row of the sheet, at which it begins, from 1.
        end: the line at which it ends; version 0.1.0 made the names of rows of it.
    """

    number: int
    value: Any
    place: int
    end: int


class Heading:
    """The heading of a table.

    Attributes:
        columns: the names of its columns, in their order.
        end: the line of CSV at which it ends, 0 before it is read.
        sheet: the sheet of the workbook, for a person; "" if there is only one.
    """

    def __init__(self) -> None:
        self.columns: Dict[str, None] = {}
        self.end = 0
        self.sheet = ""


BLANK: Any = object()
"""The value of a row that has only separators."""

# -- CSV --------------------------------------------------------------------------------------------------

_MAX_FIELD_CHARACTERS = 1 << 27
_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 50  # that the delimiter is detected in

_QUOTED = re.compile(r'(^|[,;\t|\r\n]) *"(?:[^"]|"")*"')
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r?\n|\r)', re.IGNORECASE)


def delimiter_of(head: str) -> str:
    """Detect the delimiter of CSV: not every spreadsheet writes commas.

    It is the character that most lines have as often, outside quotes, as the first line; of several, the most frequent.

    Args:
        head: the beginning of the file.
    """
    lines = [line for line in re.split(r"[\r\n]+", _QUOTED.sub(r"\1x", head)) if line.strip(_DELIMITERS + " ")]
    if len(lines) > 2 and not head.endswith(("\n", "\r")):
        lines.pop()  # it may be incomplete
    counts = {mark: [line.count(mark) for line in lines[:_SAMPLE_LINES]] for mark in _DELIMITERS}
    candidates = {mark: numbers for mark, numbers in counts.items() if numbers and numbers[0]}

    def rank(mark: str) -> Tuple[float, int]:
        numbers = candidates[mark]
        return round(numbers.count(numbers[0]) / len(numbers), 1), numbers[0]

    return max(candidates, key=rank, default=",")


def detach(text: io.TextIOWrapper) -> None:
    """Take a wrapper off its file, so that the file stays open; nothing where that was closed meanwhile."""
    if not text.closed:
        text.detach()


def csv_lines(
    file: BinaryIO, name: str, delimiter: str, encoding: str, heading: Heading, *, has_separator_line: bool
) -> Iterator[InputLine]:
    """Yield the rows of CSV, each a dict of texts.

    Args:
        file: the file.
        name: its name for messages.
        delimiter: the character between columns.
        encoding: the encoding of its text.
        heading: takes the names of the columns.
        has_separator_line: whether its first line is one such as ``sep=;``.

    Raises:
        ConfigurationError: the first line cannot be used.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARACTERS))
    text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
    try:
        if has_separator_line:
            text.readline()
        records = _csv_records(text, name, delimiter, encoding, lines_before=int(has_separator_line))
        names: Optional[List[str]] = None
        number = 0
        for fields, place, end in records:
            if names is None:
                if isinstance(fields, InputProblem):
                    raise ConfigurationError(f"line {place} of {name} is {fields.reason}")
                if not any(map(str.strip, fields)):
                    continue
                names = _checked_names(fields, name, encoding)
                heading.columns.update(dict.fromkeys(filter(None, names)))
                number, heading.end = 1, end
            elif fields:
                value = _row_value(names, fields, encoding)
                number += value is not BLANK
                yield InputLine(number, value, place, end)
    finally:
        detach(text)


def _csv_records(
    text: TextIO, name: str, delimiter: str, encoding: str, *, lines_before: int
) -> Iterator[Tuple[Union[List[str], InputProblem], int, int]]:
    """Yield the fields of each record, and the lines at which it begins and ends."""
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        place = reader.line_num + 1 + lines_before
        fields: Union[List[str], InputProblem]
        try:
            fields = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{name} is {not_decoded(error, encoding)}") from None
        except csv.Error as error:
            fields = InputProblem(f"not CSV: {error}")
        yield fields, place, reader.line_num + lines_before


def _row_value(names: Sequence[str], fields: Union[List[str], InputProblem], encoding: str) -> Any:
    if isinstance(fields, InputProblem):
        return fields
    return _fields_by_name(names, fields, encoding) if any(map(str.strip, fields)) else BLANK


def _checked_names(names: List[str], file: str, encoding: str) -> List[str]:
    """Return the names of the columns, "" for a column without one.

    Raises:
        ConfigurationError: a name is there twice, or is not in the encoding.
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
    duplicate = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if duplicate is not None:
        raise ConfigurationError(f"{file} has two columns {duplicate!r}: rename one of them")


def _fields_by_name(names: Sequence[str], fields: Sequence[str], encoding: str) -> Any:
    """Return the fields by name; columns without a name are left out."""
    if len(fields) != len(names):
        if any(map(str.strip, fields[len(names) :])):
            shown = ", ".join(name or "''" for name in names)[:80]
            return InputProblem(
                f"it has more fields than the first line has names ({shown}): that line names every column, and a text "
                "with a separator in it stands in quotes; for another separator there is delimiter= (--delimiter)"
            )
        missing = [name for name in names[len(fields) :] if name]
        if missing:
            return InputProblem(f"it has no field {missing[0]!r}")
    if is_torn("".join(fields)):
        return InputProblem(not_decoded(None, encoding))
    row = dict(zip(names, fields))
    row.pop("", None)
    return row


def is_torn(text: str) -> bool:
    """Return True if the text has bytes that are not in its encoding."""
    return not text.isascii() and any("\udc80" <= mark <= "\udcff" for mark in text)


def not_decoded(error: Optional[UnicodeDecodeError], encoding: str) -> str:
    """Return a message about bytes that are not in the encoding, with advice."""
    is_default = encoding.startswith("utf-8")
    location = "" if error is None else f": {error.reason} at byte {error.start}"
    advice = "save the file as UTF-8, or name its encoding" if is_default else "name the encoding that it has"
    return f"not {'UTF-8' if is_default else encoding}{location}; {advice} (encoding=, --encoding cp1252)"


# -- Parquet ----------------------------------------------------------------------------------------------

_CHUNK_ROWS = 1024


def parquet_lines(path: str, name: str, heading: Heading) -> Iterator[InputLine]:
    """Yield the rows of a Parquet file, each a dict of JSON values, infinities, and bytes that are not text.

    Args:
        path: the file.
        name: its name for messages.
        heading: takes the names of the columns.

    Raises:
        ConfigurationError: pyarrow is not installed, or cannot read the file.
    """
    number = place = 0
    with _parquet_file(path, name) as file:
        names = [column for column in file.schema_arrow.names if not column.startswith("__index_level_")]
        _refuse_twice(names, name)
        heading.columns.update(dict.fromkeys(names))
        for batch in file.iter_batches(_CHUNK_ROWS, columns=names):
            for row in batch.to_pylist():
                value = _plain_row(row)
                place += 1
                number += value is not BLANK
                yield InputLine(number, value, place, place)


def parquet_batches(path: str) -> Generator[Any, None, None]:
    """Yield the rows of a Parquet file as they stand, in record batches of pyarrow's.

    Args:
        path: the file.

    Raises:
        ConfigurationError: as for :func:`parquet_lines`.
    """
    with _parquet_file(path, path) as file:
        yield from file.iter_batches(_CHUNK_ROWS)


@contextlib.contextmanager
def _parquet_file(path: str, name: str) -> Iterator[Any]:
    """Lend a Parquet file to a generator that reads it.

    Raises:
        ConfigurationError: it cannot be read.
    """
    package: Any = import_reader("pyarrow.parquet", PARQUET, name)
    try:
        with package.ParquetFile(path, pre_buffer=False) as file:  # pre-buffered, all that was read stays in memory
            yield file
    except ConfigurationError:
        raise
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error}") from error
    except Exception as error:  # pyarrow's own, of several kinds
        _refuse_unreadable(name, PARQUET, error)


def _plain_row(row: Mapping[str, Any]) -> Any:
    fields: Dict[str, Any] = {}
    for column, value in row.items():
        try:
            fields[column] = _plain_cell(value)
        except ValueError as error:
            return InputProblem(f"column {column!r} {error}")
    return fields if any(value is not None and value != "" for value in fields.values()) else BLANK


def _plain_cell(value: Any) -> Any:
    """Return a cell's JSON value.

    Fields of a struct that are null are left out: all structs of a column have the same fields.  Infinities, and bytes
    that are not text, stay as they are and are refused only if they are sent; within a struct or a list, bytes become
    base64.
    """
    if isinstance(value, dict):
        return {name: _plain_part(part) for name, part in value.items() if part is not None or name == "content"}
    if isinstance(value, (list, tuple)):  # tuples: the pairs of a map
        return [_plain_part(part) for part in value]
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, decimal.Decimal):
        if value == value.to_integral_value():
            return int(value)
        number = float(value)
        return number if decimal.Decimal(repr(number)) == value else str(value)  # a text keeps all the digits
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):  # Hive, Impala and others do not mark texts as such
            return value.decode("utf-8")
        return value
    if isinstance(value, (uuid.UUID, datetime.timedelta)):
        return str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    raise ValueError(f"holds a value of type {type(value).__name__}, which JSON has no form for")


def _plain_part(value: Any) -> Any:
    plain = _plain_cell(value)
    return base64.b64encode(plain).decode("ascii") if isinstance(plain, bytes) else plain


def import_reader(module: str, kind: str, name: str) -> Any:
    """Import the module that reads files of a kind.

    Raises:
        ConfigurationError: its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{name} is {_KIND_NAMES[kind]}: to read it, pip install 'chatpool[tables]', or save it as CSV in UTF-8"
        ) from None


def _refuse_unreadable(name: str, kind: str, error: Exception) -> NoReturn:
    """Refuse a file that its package cannot read.

    Raises:
        ConfigurationError: always.
    """
    reason = str(error).strip() or type(error).__name__
    raise ConfigurationError(
        f"{name} is {_KIND_NAMES[kind]} that cannot be read ({reason[:200]}): write it anew, or save it as CSV in UTF-8"
    ) from error


# -- Excel ------------------------------------------------------------------------------------------------

_FORMULA = re.compile(rb"<(\w+:)?f[ />]")
# ECMA-376, ST_Xstring: a character that XML cannot hold, often the carriage return of a line's end.
_ESCAPED = re.compile("_x((?![Dd][89A-Fa-f])[0-9A-Fa-f]{4})_")


def excel_lines(path: str, name: str, heading: Heading) -> Iterator[InputLine]:
    """Yield the rows of the first visible sheet of an Excel workbook, each a dict of texts.

    Args:
        path: the workbook.
        name: its name for messages.
        heading: takes the names of the columns, and the name of the sheet if there are several.

    Raises:
        ConfigurationError: openpyxl is not installed, or cannot read the file; or the rows are in another sheet.
    """
    package: Any = import_reader("openpyxl", EXCEL, name)
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and other things that are not read
            data = file.read()
            sheet, others = _sheet_of(package, data, data_only=True)
            rows = sheet.iter_rows(values_only=True)
            if _has_formulas(data):
                rows = map(_computed, sheet.iter_rows(), _sheet_of(package, data)[0].iter_rows())
        heading.sheet = f"sheet {sheet.title!r} of {1 + len(others)}" if others else ""
        yield from _sheet_lines(rows, name, heading)
    except ConfigurationError:
        raise
    except Exception as error:  # of any kind: openpyxl does not check its input
        _refuse_unreadable(name, EXCEL, error)
    if others and not heading.columns:
        raise ConfigurationError(
            f"the sheet {sheet.title!r} of {name} is empty, and there are others ({', '.join(others)}): move the one "
            "with the rows to the front"
        )


def _sheet_of(package: Any, data: bytes, *, data_only: bool = False) -> Tuple[Any, List[str]]:
    """Return the sheet to read, and the names of the other visible ones."""
    sheets = package.load_workbook(io.BytesIO(data), read_only=True, data_only=data_only).worksheets
    visible = [sheet for sheet in sheets if sheet.sheet_state == "visible"] or sheets
    visible[0].reset_dimensions()  # some programs write wrong ones
    return visible[0], [repr(sheet.title) for sheet in visible[1:]]


def _has_formulas(data: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sheets = [part for part in archive.namelist() if part.startswith("xl/worksheets/") and part.endswith(".xml")]
        return any(_FORMULA.search(archive.read(part)) for part in sheets)


class Uncomputed(str):  # noqa: SLOT000 - there are few of them
    """A formula that no program has computed the value of: a text that may go into a table, but is not sent.

    Attributes:
        place: its cell.
    """

    place = ""

    def refuse(self) -> NoReturn:
        """Refuse to send it, or to name a row by it.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"no program has computed the formula in {self.place} ({self[:40]}): open the workbook in one and save it, "
            "or write values in the place of formulas"
        )


def _computed(values: Sequence[Any], formulas: Sequence[Any]) -> Sequence[Any]:
    """Return the values of a row's cells, an :class:`Uncomputed` for a formula without a value."""
    row = [cell.value for cell in values]
    for index, cell in enumerate(formulas):
        if cell.data_type == "f" and row[index] is None and values[index].data_type != "str":  # str: an empty text
            row[index] = Uncomputed(getattr(cell.value, "text", cell.value))
            row[index].place = cell.coordinate
    return row


def _sheet_lines(rows: Iterable[Sequence[Any]], name: str, heading: Heading) -> Iterator[InputLine]:
    names: Optional[List[str]] = None
    number = 0
    for place, cells in enumerate(rows, 1):
        fields = [_cell_text(cell) for cell in cells]
        if not any(field.strip() for field in fields):
            if names is not None and fields:
                yield InputLine(number, BLANK, place, place)
            continue
        number += 1
        if names is None:
            names = _checked_names(fields, name, "utf-8")
            heading.columns.update(dict.fromkeys(filter(None, names)))
            continue
        fields += [""] * (len(names) - len(fields))
        yield InputLine(number, _fields_by_name(names, fields, "utf-8"), place, place)


def _cell_text(cell: Any) -> str:
    """Return a cell as a spreadsheet would write it into CSV."""
    if cell is None:
        return ""
    if isinstance(cell, Uncomputed):
        return cell
    if isinstance(cell, str):
        return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), cell)
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return str(cell)
