"""The files that a run's answers and errors go to.

Embeddings as a matrix in a file of numpy's.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import sys
import tempfile
import time
from types import TracebackType
from typing import IO, Any, BinaryIO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Type, cast

from .._journal import OK, AppendOnly, Journal, Record, atomic_replace, decode_record
from ..errors import ConfigurationError
from .batch_format import answer_line, error_line, vector_in
from .output_formats import BATCH, PARQUET, STDOUT, TEXT, check_parquet, refuse_no_file
from .rows import RowRequest

__all__ = [
    "BatchOutputs",
    "Outputs",
    "Paths",
    "PrintedOutputs",
    "check_numpy",
    "refuse_before_start",
    "refuse_strangers",
    "stdout",
    "write_matrix",
    "write_whole",
]


_ROWS_AT_ONCE = 4096


def check_numpy() -> Any:
    """numpy.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise ConfigurationError("an output that ends in .npy needs numpy: pip install numpy") from None


def write_matrix(path: str, lines: Iterable[Optional[bytes]]) -> None:
    """Write one row of 32-bit floats per line of a journal; NaN where there is no vector.

    The file takes its name when it is whole.

    Raises:
        ConfigurationError: the vectors have different lengths, or there is none.
        OSError: it could not be written.
    """
    numpy: Any = check_numpy()
    width, count = 0, 0
    waiting: List[Any] = []
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(path))) as raw:
        for line in lines:
            vector = None if line is None else vector_in(decode_record(line))
            if vector is not None:
                if width and len(vector) != width:
                    raise ConfigurationError(
                        f"{path}: row {count} has {len(vector)} numbers, those before have {width}"
                    )
                width = len(vector)
            waiting.append(vector)
            count += 1
            if width and len(waiting) >= _ROWS_AT_ONCE:
                _flush(numpy, waiting, width, raw)
        if not width:
            raise ConfigurationError(f"{path}: there is no vector to put into it")
        _flush(numpy, waiting, width, raw)
        _with_header(numpy, path, raw, (count, width))


def _flush(numpy: Any, waiting: List[Any], width: int, raw: Any) -> None:
    nothing = [float("nan")] * width
    rows = numpy.asarray([nothing if vector is None else vector for vector in waiting], dtype="<f4")
    raw.write(rows.tobytes())
    waiting.clear()


def _with_header(numpy: Any, path: str, raw: Any, shape: Any) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    raw.seek(0)
    with atomic_replace(path) as file:
        numpy.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(raw, file, 1 << 20)


_FLUSH_EVERY = 1.0  # seconds
_FLUSH_SIZE = 1 << 16


class Paths(NamedTuple):
    """Where a run writes to: for ``OUT.jsonl`` also ``OUT.errors.jsonl`` and ``OUT.journal``.

    For ``OUT.npy`` the answers go to ``OUT.jsonl``, and the matrix is made of them at the end.  ``errors`` is None
    where failures stand among the answers, and ``journal`` is "" where nobody has named one.
    """

    answers: str
    errors: Optional[str]
    journal: str
    matrix: Optional[str] = None
    format: str = BATCH

    @classmethod
    def of(cls, output: str, form: str = BATCH, journal: Optional[str] = None) -> Paths:
        """The files for an output in one of the forms of :mod:`.formats`."""
        if output == STDOUT:
            return cls(STDOUT, None, journal or "", None, form)
        refuse_no_file(output)
        stem, suffix = os.path.splitext(output)
        if suffix.lower() in (".gz", ".gzip"):
            raise ConfigurationError(f"{output}: the output is not compressed; choose a name without {suffix}")
        if suffix.lower() == ".npy":
            check_numpy()
            return cls(f"{stem}.jsonl", f"{stem}.errors.jsonl", journal or f"{stem}.journal", output)
        if suffix.lower() not in (".jsonl", ".ndjson", ".json"):
            stem = output
        if form == PARQUET:
            check_parquet()
        errors = f"{stem}.errors.jsonl" if form in (BATCH, TEXT) else None
        return cls(output, errors, journal or f"{stem}.journal", None, form)


class Outputs:
    """What becomes of rows that have ended, and are in the journal."""

    def met(self, work: RowRequest) -> None:
        """A row of the input, in the order of the input."""

    def ended_before(self, work: RowRequest) -> None:
        """A row that is not sent again."""

    def returned(self, record: Record) -> None:
        """A row of an earlier run that is not sent again, and that did not count when this one began."""

    def add(self, records: Iterable[Record]) -> None:
        """Rows that have ended.

        Raises:
            OSError: they could not be written.
        """

    def finish(self, *, whole: bool = True) -> None:
        """Have everything written.

        Args:
            whole: whether to write it anew where that puts it right; without it the next start does.

        Raises:
            OSError: it could not be written.
        """

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        """Close what is open."""


class BatchOutputs(Outputs):
    """Answers and errors in the shapes of the Batch API.  They grow with the run; at its start and end they are made
    whole from the journal, so that each holds one line per row of the input whatever happened in between.

    Args:
        paths: the files.
        journal: what has been recorded.
        in_order: whether the lines are put into the order of the input at the end.

    Raises:
        ConfigurationError: there is an output of which the journal knows nothing.
    """

    def __init__(self, paths: Paths, journal: Journal, *, in_order: bool) -> None:
        self._paths = paths
        self._errors = paths.errors or paths.answers
        self._journal = journal
        self._order: Optional[IO[bytes]] = None
        if journal.is_empty:
            refuse_strangers(paths)
        else:
            self._rewrite(line for _, line in journal.lines())
        if in_order:
            folder = os.path.dirname(os.path.abspath(paths.answers))
            self._order = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - gone with this object
        self._files = {True: AppendOnly(paths.answers), False: AppendOnly(self._errors)}
        self._waiting: Dict[bool, List[bytes]] = {True: [], False: []}
        self._size = 0
        self._flushed = time.monotonic()
        self._superseded = journal.overwritten

    def met(self, work: RowRequest) -> None:
        if self._order is not None:
            self._order.write(work.key.to_bytes(8, "big"))

    def returned(self, record: Record) -> None:
        self.add([record])

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            line = _line(record)
            self._waiting[record.state == OK].append(line)
            self._size += len(line)
        if self._size > _FLUSH_SIZE or time.monotonic() - self._flushed > _FLUSH_EVERY:
            self._flush()

    def _flush(self) -> None:
        for ok, lines in self._waiting.items():
            if lines:
                self._files[ok].append(b"".join(lines))
                self._waiting[ok] = []
        self._size = 0
        self._flushed = time.monotonic()

    def finish(self, *, whole: bool = True) -> None:
        self._flush()
        self._close_files()
        if whole and self._order is not None:
            self._rewrite(self._in_order())
            if self._paths.matrix is not None:
                write_matrix(self._paths.matrix, self._rows())
        elif whole and self._journal.overwritten > self._superseded:
            self._rewrite(line for _, line in self._journal.lines())

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # they are made whole from the journal at the next start
                self._flush()
            with contextlib.suppress(OSError):
                self._close_files()
        if self._order is not None:
            self._order.close()

    def _rewrite(self, lines: Iterable[bytes]) -> None:
        with atomic_replace(self._paths.answers) as answers, atomic_replace(self._errors) as errors:
            _write(lines, answers, errors)

    def _rows(self) -> Iterator[Optional[bytes]]:
        """The lines of this run's rows in the order of the input, None where there is none."""
        assert self._order is not None
        self._order.seek(0)
        while True:
            key = self._order.read(8)
            if not key:
                return
            yield self._journal.line(int.from_bytes(key, "big"))

    def _in_order(self) -> Iterator[bytes]:
        """The lines of this run's rows in the order of the input, then those of other rows."""
        for line in self._rows():
            if line is not None:
                yield line
        for prefix, line in self._journal.lines():
            if not self._journal.seen(prefix.key):
                yield line


class PrintedOutputs(Outputs):
    """Lines of the Batch API on standard output, failures among them, those of earlier runs too.

    Args:
        journal: what has been recorded.
        in_order: whether the lines come in the order of the input, and then all at the end.
    """

    def __init__(self, journal: Journal, *, in_order: bool) -> None:
        self._journal = journal
        self._keys: Optional[List[int]] = [] if in_order else None

    def met(self, work: RowRequest) -> None:
        if self._keys is not None:
            self._keys.append(work.key)

    def ended_before(self, work: RowRequest) -> None:
        if self._keys is None:
            self._print_known([work.key])

    def add(self, records: Iterable[Record]) -> None:
        if self._keys is None:
            self._print(map(_line, records))

    def finish(self, *, whole: bool = True) -> None:
        if self._keys is not None:
            self._print_known(self._keys)

    def _print_known(self, keys: Iterable[int]) -> None:
        lines = map(self._journal.line, keys)
        self._print(_line(decode_record(line)) for line in lines if line is not None)

    def _print(self, lines: Iterable[bytes]) -> None:
        file = stdout()
        for line in lines:
            file.write(line)
        file.flush()


class _TextStream(io.RawIOBase):
    """Takes bytes of UTF-8 for a standard output that takes text only, as in a notebook."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        sys.stdout.write(bytes(data).decode("utf-8"))
        return len(data)

    def flush(self) -> None:
        sys.stdout.flush()


def stdout() -> BinaryIO:
    """Standard output, for bytes."""
    sys.stdout.flush()
    return getattr(sys.stdout, "buffer", None) or cast(BinaryIO, _TextStream())


def _write(lines: Iterable[bytes], answers: BinaryIO, errors: BinaryIO) -> None:
    for line in lines:
        record = decode_record(line)
        (answers if record.state == OK else errors).write(_line(record))


def _line(record: Record) -> bytes:
    return answer_line(record) if record.state == OK else error_line(record)


def refuse_strangers(paths: Paths) -> None:
    """Refuse to write over what is not ours.

    Raises:
        ConfigurationError: there is an output already, of which the journal knows nothing.
    """
    if paths.answers == STDOUT:
        return
    for path in filter(None, (paths.matrix, paths.answers, paths.errors)):
        size: Any = None
        with contextlib.suppress(OSError):
            size = os.path.getsize(path)
        if size:
            raise ConfigurationError(
                f"{path} is there already and {paths.journal} knows nothing of it: choose another output, "
                "or move the file away"
            )


def refuse_before_start(paths: Paths, source: str) -> None:
    """Refuse what could only go wrong, before there is a journal.

    Raises:
        ConfigurationError: the output is the input, or somebody else's file.
    """
    if paths.answers == STDOUT and sys.stdout is None:
        raise ConfigurationError("standard output is closed: name a file")
    outputs = [path for path in (paths.answers, paths.errors, paths.matrix) if path is not None]
    if paths.journal in outputs:
        raise ConfigurationError(f"{paths.journal} is the output: choose another journal")
    for path in (*outputs, paths.journal):
        with contextlib.suppress(OSError):
            if path != STDOUT and os.path.samefile(path, source):
                raise ConfigurationError(f"{path} is the input: choose another output")
    if not os.path.exists(paths.journal):
        refuse_strangers(paths)


def write_whole(path: str, text: str) -> None:
    """Have ``text`` in the file, or in the pipe or device that ``path`` names; a file is replaced, or as it was.

    Raises:
        OSError: it could not be written.
    """
    data = text.encode("utf-8")
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as stream:
            stream.write(data)
        return
    with atomic_replace(path) as file:
        file.write(data)
