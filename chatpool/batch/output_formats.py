"""The formats of an output: which one a file name stands for, and how a table is written in each."""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import pathlib
import re
import shutil
import sqlite3
import tempfile
from typing import IO, Any, BinaryIO, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

from .._journal import encode_value, escape_line_breaks, without_nan
from ..errors import ConfigurationError

__all__ = [
    "BATCH",
    "CSV",
    "FORMATS",
    "JSONL",
    "PARQUET",
    "SQLITE",
    "STDOUT",
    "TEXT",
    "Column",
    "Spool",
    "check_parquet",
    "format_of",
    "free_name",
    "refuse_no_file",
    "refuse_other_tables",
    "write_table",
]

STDOUT = "-"
BATCH, JSONL, CSV, PARQUET, SQLITE, TEXT = "batch", "jsonl", "csv", "parquet", "sqlite", "text"
FORMATS = (BATCH, JSONL, CSV, PARQUET, SQLITE, TEXT)

_FORMAT_BY_SUFFIX = {
    ".jsonl": BATCH,
    ".ndjson": BATCH,
    ".json": BATCH,
    ".npy": BATCH,  # the matrix is made of these lines
    ".csv": CSV,
    ".tsv": CSV,
    ".parquet": PARQUET,
    ".db": SQLITE,
    ".sqlite": SQLITE,
    ".sqlite3": SQLITE,
    ".txt": TEXT,
}
_NEEDS_A_FILE = (PARQUET, SQLITE)

_CHUNK_ROWS = 1024
_TABLE = "answers"  # in a database


def format_of(output: str, requested: Optional[str]) -> str:
    """Return the format of an output.

    Args:
        output: its name.
        requested: the format that the user has named, None for the one of the file's suffix.

    Raises:
        ConfigurationError: there is no such format, or the suffix stands for none.
    """
    refuse_no_file(output)
    suffix = os.path.splitext(output)[1].lower()
    if requested is not None:
        if requested not in FORMATS:
            raise ConfigurationError(f"format must be one of {', '.join(FORMATS)}, got {requested!r}")
        if suffix == ".npy" and requested != BATCH:
            raise ConfigurationError(
                f"{output}: an output that ends in .npy is a matrix; leave out format {requested!r}"
            )
        if output == STDOUT and requested in _NEEDS_A_FILE:
            raise ConfigurationError(f"format {requested!r} needs a file: name one with a suitable ending")
        return requested
    # Until 0.1.0 a file of any suffix had batch lines: a run that was begun then goes on.
    if output == STDOUT or (suffix not in _FORMAT_BY_SUFFIX and os.path.exists(f"{output}.journal")):
        return BATCH
    if suffix in (".gz", ".gzip"):
        raise ConfigurationError(f"{output}: the output is not compressed; choose a name without {suffix}")
    if suffix not in _FORMAT_BY_SUFFIX:
        subject = f"the ending {suffix!r}" if suffix else "a name without an ending"
        hint = "; for a spreadsheet write .csv" if suffix in (".xlsx", ".xls", ".ods") else ""
        raise ConfigurationError(
            f"the output {output}: {subject} says no format: choose .jsonl (the Batch API's lines), .csv, .tsv, "
            f".parquet, .db, .txt or .npy, or name one of {', '.join(FORMATS)} (format, --format){hint}"
        )
    return _FORMAT_BY_SUFFIX[suffix]


def refuse_no_file(output: str) -> None:
    """Refuse an output that cannot be a file.

    Raises:
        ConfigurationError: the output is a folder, a device, or an empty name.
    """
    if not os.path.basename(output) or (os.path.exists(output) and not os.path.isfile(output)):
        raise ConfigurationError(f"the output must be a file, got {output!r}")


def check_parquet() -> Any:
    """Return pyarrow's module for Parquet.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigurationError(
            "an output in the format 'parquet' needs pyarrow: pip install 'chatpool[tables]'"
        ) from None


# --- columns and values ----------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of a table: its name, and the group and key of its values in a row of a :class:`Spool`."""

    name: str
    group: int
    key: str


Row = Sequence[Mapping[str, Any]]
"""Groups of named values."""


class Spool:
    """The rows of a table, on disk until all its columns and their kinds are known.

    Args:
        groups: how many groups of values a row has.
        folder: the folder of the temporary file.

    Attributes:
        names: the names of each group, in the order of their first appearance.
    """

    def __init__(self, groups: int, folder: Optional[str] = None) -> None:
        self.names: List[Dict[str, None]] = [{} for _ in range(groups)]
        self._kinds: List[Dict[str, Set[str]]] = [{} for _ in range(groups)]
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()

    def add(self, *row: Mapping[str, Any]) -> None:
        """Add a row."""
        for group, (names, kinds) in zip(row, zip(self.names, self._kinds)):
            for name, value in group.items():
                names[name] = None
                if value is not None:
                    kinds.setdefault(name, set()).add(_kind(value))
        try:
            line = _encode(row)
        except ValueError:  # NaN, an infinity
            line = _encode([without_nan(dict(group)) for group in row])
        self._file.write(line.encode("ascii") + b"\n")

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)

    def kind(self, column: Column) -> str:
        """Return the kind of all values of a column: ``bool``, ``int``, ``float``, ``vector``, else ``text``."""
        kinds = self._kinds[column.group].get(column.key, set())
        if kinds == {"int", "float"}:
            return "float"
        return next(iter(kinds)) if len(kinds) == 1 else "text"

    def close(self) -> None:
        """Delete the rows."""
        self._file.close()


def _json_form(value: Any) -> str:
    """Return a JSON value for one that JSON has no form for: a date, a decimal number, or bytes (in base64)."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


_encode = json.JSONEncoder(allow_nan=False, default=_json_form).encode


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(1 << 63) <= value < 1 << 63 else "text"
    if isinstance(value, float):
        return "float"
    return "vector" if isinstance(value, list) and value and all(map(_fits_float, value)) else "text"


def _fits_float(number: Any) -> bool:
    """Return True for a float, and for an int in the range in which floats have every whole number."""
    return type(number) is float or (type(number) is int and abs(number) <= 1 << 53)


def _text(value: Any) -> Optional[str]:
    """Return the text of a cell: a text as it is, other values as JSON; without halves of surrogate pairs."""
    if value is None:
        return None
    text = value if isinstance(value, str) else encode_value(value).decode("utf-8")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# --- forms -----------------------------------------------------------------------------------------------------------


def write_table(
    file: BinaryIO, path: str, form: str, spool: Spool, columns: Sequence[Column], *, raw: bool = False
) -> None:
    """Write a table.

    Args:
        file: the file.
        path: its name; the suffix decides on the delimiter, the folder takes temporary files.
        form: one of :data:`FORMATS`.
        spool: the rows.
        columns: the columns to write.
        raw: whether line breaks, and texts that a spreadsheet would take for formulas, are left as they are.

    Raises:
        OSError: the table could not be written.
    """
    if form == PARQUET:
        _write_parquet(file, spool, columns)
    elif form == SQLITE:
        _write_sqlite(file, path, spool, columns)
    elif form == JSONL:
        file.writelines(_json_line(row, columns) for row in spool)
    else:
        delimiter = "\t" if path.lower().endswith(".tsv") else ","
        lines = _csv_lines(spool, columns, delimiter, raw) if form == CSV else _text_lines(spool, columns[0], raw)
        file.writelines(line.encode("utf-8") for line in lines)


def _values(row: Row, columns: Sequence[Column]) -> List[Any]:
    return [row[column.group].get(column.key) for column in columns]


def _json_line(row: Row, columns: Sequence[Column]) -> bytes:
    return (
        escape_line_breaks(encode_value({column.name: value for column, value in zip(columns, _values(row, columns))}))
        + b"\n"
    )


# The first characters by which spreadsheets recognise a formula: OWASP's list, "CSV Injection".
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)([eE][+-]?\d+)?%?")
_LINE_BREAK = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def _without_formula(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _csv_lines(spool: Spool, columns: Sequence[Column], delimiter: str, raw: bool) -> Iterator[str]:
    # Not the csv module: whether it quotes a text with a carriage return depends on the version of Python.
    quoted = re.compile(f'[{delimiter}"\r\n]')

    def cell(value: Any) -> str:
        text = (_text(value) or "").replace("\0", "\ufffd")  # many readers take it for the end of the file
        if isinstance(value, str) and not raw:
            text = _without_formula(text)
        return '"' + text.replace('"', '""') + '"' if quoted.search(text) else text

    def line(values: Iterable[Any]) -> str:
        return (delimiter.join(map(cell, values)) or '""') + "\n"  # many readers skip an empty line

    yield line(column.name for column in columns)
    for row in spool:
        yield line(_values(row, columns))


def _text_lines(spool: Spool, column: Column, raw: bool) -> Iterator[str]:
    for row in spool:
        text = _text(row[column.group].get(column.key)) or ""
        yield (text if raw else _LINE_BREAK.sub(r"\\n", text)) + "\n"


def _of_type(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "text":
        return _text(value)
    return float(value) if kind == "float" else value


def _write_parquet(file: BinaryIO, spool: Spool, columns: Sequence[Column]) -> None:
    parquet, arrow = check_parquet(), importlib.import_module("pyarrow")
    types = {
        "bool": arrow.bool_(),
        "int": arrow.int64(),
        "float": arrow.float64(),
        "vector": arrow.list_(arrow.float64()),
        "text": arrow.string(),
    }
    kinds = [spool.kind(column) for column in columns]
    schema = arrow.schema([(_text(column.name), types[kind]) for column, kind in zip(columns, kinds)])
    with parquet.ParquetWriter(file, schema) as writer:
        for rows in _chunks(spool):
            values = [_values(row, columns) for row in rows]
            arrays = [
                arrow.array([_of_type(row[place], kind) for row in values], types[kind])
                for place, kind in enumerate(kinds)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _chunks(spool: Spool) -> Iterator[List[Row]]:
    chunk: List[Row] = []
    for row in spool:
        chunk.append(row)
        if len(chunk) >= _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


_SQL_TYPES = {"bool": "INTEGER", "int": "INTEGER", "float": "REAL"}


def _write_sqlite(file: BinaryIO, path: str, spool: Spool, columns: Sequence[Column]) -> None:
    kinds = [spool.kind(column) if spool.kind(column) in _SQL_TYPES else "text" for column in columns]
    names = [_quoted(name) for name in _distinct_names([_text(column.name) or "" for column in columns])]
    definitions = ", ".join(f"{name} {_SQL_TYPES.get(kind, 'TEXT')}" for name, kind in zip(names, kinds))
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path))) as folder:
        database_path = os.path.join(folder, "table")
        try:
            with contextlib.closing(sqlite3.connect(database_path)) as database, database:
                database.execute(f"CREATE TABLE {_TABLE} ({definitions})")
                places = ", ".join("?" * len(columns))
                rows = (map(_of_type, _values(row, columns), kinds) for row in spool)
                database.executemany(f"INSERT INTO {_TABLE} VALUES ({places})", map(tuple, rows))  # noqa: S608 - places
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        with open(database_path, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)


def refuse_other_tables(path: str) -> None:
    """Refuse to rewrite a database that holds more than our table.

    Raises:
        ConfigurationError: the database has other tables, views or indexes.
    """
    if not os.path.exists(path) or not os.path.getsize(path):
        return
    others: List[str] = []
    address = f"{pathlib.Path(path).resolve().as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        # An error: no database; version 0.1.0 wrote lines to any name.
        result = database.execute("SELECT type, name FROM sqlite_master WHERE name != ? ORDER BY rowid", (_TABLE,))
        others = [" ".join(row) for row in result]
    if others:
        shown = ", ".join(others[:5])
        raise ConfigurationError(
            f"{path} holds more than the table {_TABLE!r}, which is written anew ({shown}): keep such things in a "
            "database of their own (ATTACH reads both), or choose another output"
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _distinct_names(names: Sequence[str]) -> List[str]:
    """Return names that differ in more than the case of their letters, which SQLite ignores."""
    taken: Set[str] = set()
    return [free_name(name.replace("\0", "") or "column", taken) for name in names]


def free_name(name: str, taken: Set[str]) -> str:
    """Return the name, with a number behind it if it is taken, and add it to ``taken``."""
    result, number = name, 1
    while result.lower() in taken:
        number += 1
        result = f"{name}_{number}"
    taken.add(result.lower())
    return result
