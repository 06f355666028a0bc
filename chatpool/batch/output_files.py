"""The files of a run: their paths, and the outputs that write answers and errors into them.

Answers go to lines of the Batch API, or to standard output; embeddings also to a file of numpy.  Tables are in
:mod:`.output_tables`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import shutil
import sys
import tempfile
import time
from types import TracebackType
from typing import IO, Any, BinaryIO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Type, cast

from .._files import atomic_replace
from .._journal import OK, AppendOnly, Journal, Record, decode_record
from ..errors import ConfigurationError
from .jsonl import answer_line, error_line, vector_in
from .output_formats import BATCH, PARQUET, STDOUT, TEXT, check_parquet, refuse_no_file
from .rows import RowRequest
from .sound_files import is_sound

__all__ = [
    "BatchOutputs",
    "Outputs",
    "Paths",
    "PrintedOutputs",
    "check_numpy",
    "journal_beside",
    "refuse_before_start",
    "refuse_foreign_files",
    "stdout",
    "write_npy",
    "write_whole",
]

_FLUSH_SECONDS = 1.0
_FLUSH_BYTES = 1 << 16
_CHUNK_ROWS = 4096  # of a .npy file


class Paths(NamedTuple):
    """The files that a run writes: for ``OUT.jsonl`` also ``OUT.errors.jsonl`` and ``OUT.journal``.

    For ``OUT.npy`` the answers go to ``OUT.jsonl``, and the matrix is made of them at the end.  ``errors`` is None
    if failures are among the answers; ``journal`` is "" for standard output without a named journal.
    """

    answers: str
    errors: Optional[str]
    journal: str
    npy: Optional[str] = None
    format: str = BATCH

    @classmethod
    def of(cls, output: str, form: str = BATCH, journal: Optional[str] = None) -> Paths:
        """Return the files for an output in one of :data:`~.output_formats.FORMATS`."""
        if output == STDOUT:
            return cls(STDOUT, None, journal or "", None, form)
        refuse_no_file(output)
        stem, suffix = _stem(output), os.path.splitext(output)[1]
        if suffix.lower() in (".gz", ".gzip"):
            raise ConfigurationError(f"{output}: the output is not compressed; choose a name without {suffix}")
        if suffix.lower() == ".npy":
            check_numpy()
            return cls(f"{stem}.jsonl", f"{stem}.errors.jsonl", journal or journal_beside(output), output)
        if form == PARQUET:
            check_parquet()
        errors = f"{stem}.errors.jsonl" if form in (BATCH, TEXT) else None
        return cls(output, errors, journal or journal_beside(output), None, form)


def _stem(output: str) -> str:
    """Return the name of an output without its ending, where that does not belong to the names of its other files."""
    stem, suffix = os.path.splitext(output)
    return stem if suffix.lower() in (".jsonl", ".ndjson", ".json", ".npy") else output


def journal_beside(output: str) -> str:
    """Return the path of the journal that a run to this output keeps unless it was told another."""
    return f"{_stem(output)}.journal"


class Outputs:
    """Takes rows that have ended, and are in the journal; the base class of all outputs."""

    def on_row(self, row_request: RowRequest) -> None:
        """Take a row of the input, in the order of the input."""

    def on_done_before(self, row_request: RowRequest) -> None:
        """Take a row that ended in an earlier run and is not sent again."""

    def on_restored(self, record: Record) -> None:
        """Take the record of a row that has come back to the input, and is not sent again."""

    def add(self, records: Iterable[Record]) -> None:
        """Take records of rows that have ended.

        Raises:
            OSError: they could not be written.
        """

    def finish(self, *, whole: bool = True) -> None:
        """Write everything that was taken.

        Args:
            whole: whether files may be written anew to put them right; otherwise the next start does that.

        Raises:
            OSError: a file could not be written.
        """

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        """Close open files."""


class BatchOutputs(Outputs):
    """Answers and errors as lines of the Batch API.

    The files grow with the run.  At its start and end they are rewritten from the journal where needed, so that each
    row of the input has one line, however earlier runs ended.

    Args:
        paths: the files.
        journal: the records of all runs.
        in_order: whether the lines are put into the order of the input at the end.

    Raises:
        ConfigurationError: there is an output, and the journal has nothing of it.
    """

    def __init__(self, paths: Paths, journal: Journal, *, in_order: bool) -> None:
        self._paths = paths
        self._errors = paths.errors or paths.answers
        self._journal = journal
        self._order: Optional[IO[bytes]] = None  # the rows' keys, 8 bytes each
        if journal.is_empty:
            refuse_foreign_files(paths)
        else:
            self._rewrite(line for _, line in journal.lines())
        if in_order:
            folder = os.path.dirname(os.path.abspath(paths.answers))
            self._order = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - gone with this object
        self._files = {True: AppendOnly(paths.answers), False: AppendOnly(self._errors)}
        self._buffered: Dict[bool, List[bytes]] = {True: [], False: []}
        self._buffered_bytes = 0
        self._flushed_at = time.monotonic()
        self._overwritten = journal.overwritten

    def on_row(self, row_request: RowRequest) -> None:
        self.on_key(row_request.key)

    def on_key(self, key: int) -> None:
        """Take the key of a row of the input, in the order of the input."""
        if self._order is not None:
            self._order.write(key.to_bytes(8, "big"))

    def on_restored(self, record: Record) -> None:
        self.add([record])

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            line = _line(record)
            self._buffered[record.state == OK].append(line)
            self._buffered_bytes += len(line)
        if self._buffered_bytes > _FLUSH_BYTES or time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        for ok, lines in self._buffered.items():
            if lines:
                self._files[ok].append(b"".join(lines))
                self._buffered[ok] = []
        self._buffered_bytes = 0
        self._flushed_at = time.monotonic()

    def finish(self, *, whole: bool = True) -> None:
        self._flush()
        self._close_files()
        if whole and self._order is not None:
            self._rewrite(self._ordered_lines())
            if self._paths.npy is not None:
                write_npy(self._paths.npy, self._lines_of_input())
        elif whole and self._journal.overwritten > self._overwritten:
            self._rewrite(line for _, line in self._journal.lines())

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # the next start rewrites them from the journal
                self._flush()
            with contextlib.suppress(OSError):
                self._close_files()
        if self._order is not None:
            self._order.close()

    def _rewrite(self, lines: Iterable[bytes]) -> None:
        with atomic_replace(self._paths.answers) as answers, atomic_replace(self._errors) as errors:
            _write_lines(lines, answers, errors)

    def _lines_of_input(self) -> Iterator[Optional[bytes]]:
        """Yield the journal's line of each row of this run in the order of the input, None without one."""
        assert self._order is not None
        self._order.seek(0)
        while True:
            key = self._order.read(8)
            if not key:
                return
            yield self._journal.line(int.from_bytes(key, "big"))

    def _ordered_lines(self) -> Iterator[bytes]:
        """Yield the lines of this run's rows in the order of the input, then those of other rows."""
        for line in self._lines_of_input():
            if line is not None:
                yield line
        for prefix, line in self._journal.lines():
            if not self._journal.seen(prefix.key):
                yield line


class PrintedOutputs(Outputs):
    """Lines of the Batch API on standard output, with failures and with rows of earlier runs.

    Args:
        journal: the records of all runs.
        in_order: whether the lines come in the order of the input, all at the end.
    """

    def __init__(self, journal: Journal, *, in_order: bool) -> None:
        self._journal = journal
        self._keys: Optional[List[int]] = [] if in_order else None

    def on_row(self, row_request: RowRequest) -> None:
        if self._keys is not None:
            self._keys.append(row_request.key)

    def on_done_before(self, row_request: RowRequest) -> None:
        if self._keys is None:
            self._print_stored([row_request.key])

    def add(self, records: Iterable[Record]) -> None:
        if self._keys is None:
            self._print(map(_line, records))

    def finish(self, *, whole: bool = True) -> None:
        if self._keys is not None:
            self._print_stored(self._keys)

    def _print_stored(self, keys: Iterable[int]) -> None:
        lines = map(self._journal.line, keys)
        self._print(_line(decode_record(line)) for line in lines if line is not None)

    def _print(self, lines: Iterable[bytes]) -> None:
        file = stdout()
        for line in lines:
            file.write(line)
        file.flush()


class _TextStream(io.RawIOBase):
    """A stream of UTF-8 bytes over a standard output that takes text only, as in a notebook."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        sys.stdout.write(bytes(data).decode("utf-8"))
        return len(data)

    def flush(self) -> None:
        sys.stdout.flush()


def stdout() -> BinaryIO:
    """Return standard output as a stream of bytes."""
    sys.stdout.flush()
    return getattr(sys.stdout, "buffer", None) or cast(BinaryIO, _TextStream())


def _write_lines(lines: Iterable[bytes], answers: BinaryIO, errors: BinaryIO) -> None:
    for line in lines:
        record = decode_record(line)
        (answers if record.state == OK else errors).write(_line(record))


def _line(record: Record) -> bytes:
    return answer_line(record) if record.state == OK else error_line(record)


def check_numpy() -> Any:
    """Return the module numpy.

    Raises:
        ConfigurationError: numpy is not installed.
    """
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise ConfigurationError("an output that ends in .npy needs numpy: pip install numpy") from None


def write_npy(path: str, lines: Iterable[Optional[bytes]]) -> None:
    """Write one row of 32-bit floats per line of a journal; NaN for a line without a vector.

    The file takes its name when it is whole.

    Raises:
        ConfigurationError: the vectors have different lengths, or there is none.
        OSError: the file could not be written.
    """
    numpy: Any = check_numpy()
    width, count = 0, 0
    vectors: List[Any] = []
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(path))) as content:
        for line in lines:
            vector = None if line is None else vector_in(decode_record(line))
            if vector is not None:
                if width and len(vector) != width:
                    raise ConfigurationError(
                        f"{path}: row {count} has {len(vector)} numbers, those before have {width}"
                    )
                width = len(vector)
            vectors.append(vector)
            count += 1
            if width and len(vectors) >= _CHUNK_ROWS:
                _flush(numpy, vectors, width, content)
        if not width:
            raise ConfigurationError(f"{path}: there is no vector to put into it")
        _flush(numpy, vectors, width, content)
        _write_with_header(numpy, path, content, (count, width))


def _flush(numpy: Any, vectors: List[Any], width: int, content: Any) -> None:
    missing = [float("nan")] * width
    rows = numpy.asarray([missing if vector is None else vector for vector in vectors], dtype="<f4")
    content.write(rows.tobytes())
    vectors.clear()


def _write_with_header(numpy: Any, path: str, content: Any, shape: Any) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    content.seek(0)
    with atomic_replace(path) as file:
        numpy.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(content, file, 1 << 20)


def refuse_foreign_files(paths: Paths) -> None:
    """Refuse to overwrite files that no earlier run has written.

    Raises:
        ConfigurationError: there is an output already, and the journal has nothing of it.
    """
    if paths.answers == STDOUT:
        return
    for path in filter(None, (paths.npy, paths.answers, paths.errors)):
        size: Any = None
        with contextlib.suppress(OSError):
            size = os.path.getsize(path)
        if size:
            raise ConfigurationError(
                f"{path} is there already and {paths.journal} knows nothing of it: choose another output, "
                "or move the file away"
            )


def refuse_before_start(paths: Paths, source: str) -> None:
    """Refuse outputs that cannot work, before there is a journal.

    Raises:
        ConfigurationError: the output is the input or would be one of its files, is the journal, or a file that no
            run has written.
    """
    if paths.answers == STDOUT and sys.stdout is None:
        raise ConfigurationError("standard output is closed: name a file")
    outputs = [path for path in (paths.answers, paths.errors, paths.npy) if path is not None]
    if paths.journal in outputs:
        raise ConfigurationError(f"{paths.journal} is the output: choose another journal")
    for path in (*outputs, paths.journal):
        with contextlib.suppress(OSError):
            if is_sound(path) and os.path.samefile(os.path.dirname(path) or ".", source):
                raise ConfigurationError(f"{path} would be one of the sounds in {source}: choose another name")
        with contextlib.suppress(OSError):
            if path != STDOUT and os.path.samefile(path, source):
                raise ConfigurationError(f"{path} is the input: choose another output")
    if not os.path.exists(paths.journal):
        refuse_foreign_files(paths)


# Errors that another name, or another permission, puts right; a full disk is none.
_CURES = {
    errno.ENOENT: "make its folder, or choose another file",
    errno.EISDIR: "name a file in it",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a file that you may write to"),
    **dict.fromkeys((errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP), "choose another name"),
}


def write_whole(path: str, text: str) -> None:
    """Write ``text`` to a file, pipe or device; a file is replaced whole, or stays as it was.

    Raises:
        ConfigurationError: no file of this name can be written.
        OSError: the text could not be written.
    """
    data = text.encode("utf-8")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as stream:
                stream.write(data)
            return
        with atomic_replace(path) as file:
            file.write(data)
    except OSError as error:
        if error.errno not in _CURES:
            raise
        reason = getattr(error.__cause__, "strerror", None) or error.strerror
        raise ConfigurationError(f"cannot write {path or repr(path)}: {reason}; {_CURES[error.errno]}") from error
