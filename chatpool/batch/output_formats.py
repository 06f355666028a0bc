"""The forms of an output: how a name says which, and how a table is written in each."""

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

_ENDINGS = {
    ".jsonl": BATCH,
    ".ndjson": BATCH,
    ".json": BATCH,
    ".npy": BATCH,  # the lines that the matrix is made of
    ".csv": CSV,
    ".tsv": CSV,
    ".parquet": PARQUET,
    ".db": SQLITE,
    ".sqlite": SQLITE,
    ".sqlite3": SQLITE,
    ".txt": TEXT,
}
_NEEDS_A_FILE = (PARQUET, SQLITE)

_ROWS_AT_ONCE = 1024
_TABLE = "answers"  # in a database


def format_of(output: str, given: Optional[str]) -> str:
    """The form of an output.

    Args:
        output: its name.
        given: what the user has said, None for what the name says.

    Raises:
        ConfigurationError: there is no such form, or the name says none.
    """
    refuse_no_file(output)
    ending = os.path.splitext(output)[1].lower()
    if given is not None:
        if given not in FORMATS:
            raise ConfigurationError(f"format must be one of {', '.join(FORMATS)}; got {given!r}")
        if ending == ".npy" and given != BATCH:
            raise ConfigurationError(f"{output}: an output that ends in .npy is a matrix; leave out format {given!r}")
        if output == STDOUT and given in _NEEDS_A_FILE:
            raise ConfigurationError(f"format {given!r} needs a file: name one with a suitable ending")
        return given
    # Until 0.1.0 any ending was one of batch lines: what was begun goes on.
    if output == STDOUT or (ending not in _ENDINGS and os.path.exists(f"{output}.journal")):
        return BATCH
    if ending in (".gz", ".gzip"):
        raise ConfigurationError(f"{output}: the output is not compressed; choose a name without {ending}")
    if ending not in _ENDINGS:
        what = f"the ending {ending!r}" if ending else "a name without an ending"
        hint = "; for a spreadsheet write .csv" if ending in (".xlsx", ".xls", ".ods") else ""
        raise ConfigurationError(
            f"the output {output}: {what} says no format: choose .jsonl (the Batch API's lines), .csv, .tsv, .parquet, "
            f".db, .txt or .npy, or name one of {', '.join(FORMATS)} (format, --format){hint}"
        )
    return _ENDINGS[ending]


def refuse_no_file(output: str) -> None:
    """Refuse an output that cannot be one.

    Raises:
        ConfigurationError: it is a folder, a device, or no name.
    """
    if not os.path.basename(output) or (os.path.exists(output) and not os.path.isfile(output)):
        raise ConfigurationError(f"the output must be a file, got {output!r}")


def check_parquet() -> Any:
    """pyarrow's module for Parquet.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigurationError(
            "an output in the format 'parquet' needs pyarrow: pip install 'chatpool[tables]'"
        ) from None


# --- columns and values ----------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of a table: its name, and where its values are in a row of a :class:`Spool`."""

    name: str
    group: int
    key: str


Row = Sequence[Mapping[str, Any]]
"""Groups of named values."""


class Spool:
    """The rows of a table, on disk, until it is known which columns it has and of what kind.

    Args:
        groups: how many groups of values a row has.
        folder: where there is room for them.

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
        """What all values of a column are: ``bool``, ``int``, ``float``, ``vector``, else ``text``."""
        kinds = self._kinds[column.group].get(column.key, set())
        if kinds == {"int", "float"}:
            return "float"
        return next(iter(kinds)) if len(kinds) == 1 else "text"

    def close(self) -> None:
        """Forget the rows."""
        self._file.close()


def _told(value: Any) -> str:
    """A value that JSON has no form for: a date, a decimal number; bytes, such as those of a picture, in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


_encode = json.JSONEncoder(allow_nan=False, default=_told).encode


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(1 << 63) <= value < 1 << 63 else "text"
    if isinstance(value, float):
        return "float"
    is_vector = isinstance(value, list) and value and all(type(part) in (int, float) for part in value)
    return "vector" if is_vector else "text"


def _text(value: Any) -> Optional[str]:
    """A value as the text of a cell: JSON, unless it is a text; without halves of surrogate pairs."""
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
        file: where to.
        path: the file's name, which says what separates columns, and in which folder there is room.
        form: one of :data:`FORMATS`.
        spool: the rows.
        columns: their columns.
        raw: whether texts are left as they are that a spreadsheet would take for formulas, and line breaks in texts.

    Raises:
        OSError: it could not be written.
    """
    if form == PARQUET:
        _write_parquet(file, spool, columns)
    elif form == SQLITE:
        _write_sqlite(file, path, spool, columns)
    elif form == JSONL:
        file.writelines(_json_line(row, columns) for row in spool)
    else:
        mark = "\t" if path.lower().endswith(".tsv") else ","
        lines = _csv_lines(spool, columns, mark, raw) if form == CSV else _text_lines(spool, columns[0], raw)
        file.writelines(line.encode("utf-8") for line in lines)


def _values(row: Row, columns: Sequence[Column]) -> List[Any]:
    return [row[column.group].get(column.key) for column in columns]


def _json_line(row: Row, columns: Sequence[Column]) -> bytes:
    return (
        escape_line_breaks(encode_value({column.name: value for column, value in zip(columns, _values(row, columns))}))
        + b"\n"
    )


# What a spreadsheet looks at to tell a formula: OWASP's list, "CSV Injection".
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)([eE][+-]?\d+)?%?")
_LINE_BREAK = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def _defused(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _csv_lines(spool: Spool, columns: Sequence[Column], mark: str, raw: bool) -> Iterator[str]:
    # By hand: what the csv module quotes depends on the version of Python where a text has a carriage return.
    quoted = re.compile(f'[{mark}"\r\n]')

    def cell(value: Any) -> str:
        text = (_text(value) or "").replace("\0", "\ufffd")  # with which many readers end a file
        if isinstance(value, str) and not raw:
            text = _defused(text)
        return '"' + text.replace('"', '""') + '"' if quoted.search(text) else text

    def line(values: Iterable[Any]) -> str:
        return (mark.join(map(cell, values)) or '""') + "\n"  # an empty line is none to many readers

    yield line(column.name for column in columns)
    for row in spool:
        yield line(_values(row, columns))


def _text_lines(spool: Spool, column: Column, raw: bool) -> Iterator[str]:
    for row in spool:
        text = _text(row[column.group].get(column.key)) or ""
        yield (text if raw else _LINE_BREAK.sub(r"\\n", text)) + "\n"


def _typed(value: Any, kind: str) -> Any:
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
                arrow.array([_typed(row[place], kind) for row in values], types[kind])
                for place, kind in enumerate(kinds)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _chunks(spool: Spool) -> Iterator[List[Row]]:
    chunk: List[Row] = []
    for row in spool:
        chunk.append(row)
        if len(chunk) >= _ROWS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


_SQL_TYPES = {"bool": "INTEGER", "int": "INTEGER", "float": "REAL"}


def _write_sqlite(file: BinaryIO, path: str, spool: Spool, columns: Sequence[Column]) -> None:
    kinds = [spool.kind(column) if spool.kind(column) in _SQL_TYPES else "text" for column in columns]
    names = [_quoted(name) for name in _apart([_text(column.name) or "" for column in columns])]
    made = ", ".join(f"{name} {_SQL_TYPES.get(kind, 'TEXT')}" for name, kind in zip(names, kinds))
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path))) as folder:
        built = os.path.join(folder, "table")
        try:
            with contextlib.closing(sqlite3.connect(built)) as database, database:
                database.execute(f"CREATE TABLE {_TABLE} ({made})")
                places = ", ".join("?" * len(columns))
                rows = (map(_typed, _values(row, columns), kinds) for row in spool)
                database.executemany(f"INSERT INTO {_TABLE} VALUES ({places})", map(tuple, rows))  # noqa: S608 - places
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        with open(built, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)


def refuse_other_tables(path: str) -> None:
    """Refuse to write a database anew that holds more than our table.

    Raises:
        ConfigurationError: somebody has put other tables, views or indexes into it.
    """
    if not os.path.exists(path) or not os.path.getsize(path):
        return
    others: List[str] = []
    address = f"{pathlib.Path(path).resolve().as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        # No database: version 0.1.0 wrote lines to any name.
        found = database.execute("SELECT type, name FROM sqlite_master WHERE name != ? ORDER BY rowid", (_TABLE,))
        others = [" ".join(row) for row in found]
    if others:
        shown = ", ".join(others[:5])
        raise ConfigurationError(
            f"{path} holds more than the table {_TABLE!r}, which is written anew ({shown}): keep such things in a "
            "database of their own (ATTACH reads both), or choose another output"
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _apart(names: Sequence[str]) -> List[str]:
    """The names, told apart by more than the case of their letters, which is all one to SQLite."""
    taken: Set[str] = set()
    return [free_name(name.replace("\0", "") or "column", taken) for name in names]


def free_name(name: str, taken: Set[str]) -> str:
    """The name, or one with a number behind it if it is taken; it is taken afterwards."""
    found, number = name, 1
    while found.lower() in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found.lower())
    return found
