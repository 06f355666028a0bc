"""Files of shards: the lines or rows of an input, copied as they stand."""

from __future__ import annotations

import collections
import contextlib
import gzip
import itertools
from typing import IO, Any, Iterator, Optional, Union, cast

from ..errors import ConfigurationError
from .input_files import CSV, JSON, PARQUET, TEXT, Source
from .input_tables import import_reader, parquet_batches

__all__ = ["Copier", "copier_of"]

_SUFFIXES = {JSON: ".jsonl", CSV: ".csv", TEXT: ".txt"}


class TextCopier:
    """Copies the lines of a text, and its heading before each part of them.

    Args:
        source: the input.
        is_gzip: whether the copies are compressed.

    Attributes:
        suffix: the ending of the copies' names.
    """

    def __init__(self, source: Source, *, is_gzip: bool) -> None:
        self.suffix = _SUFFIXES[source.format] + (".gz" if is_gzip else "")
        self._source = source
        self._is_gzip = is_gzip
        self._lines = source.text_lines()
        self._copied = 0  # lines
        self._heading: Optional[bytes] = None
        self._file: Optional[IO[bytes]] = None

    @contextlib.contextmanager
    def into(self, file: IO[bytes], place: int) -> Iterator[None]:
        """Within the block, lines go into a file; those between its first line and the one copied last are left out.

        Args:
            file: takes the lines.
            place: the number of its first line.
        """
        if self._heading is None:
            self._heading = b"".join(self._take(self._source.heading.end))
        with contextlib.ExitStack() as stack:
            packed = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)) if self._is_gzip else file
            self._file = cast(IO[bytes], packed)
            self._file.write(self._heading)
            collections.deque(self._take(place - 1), maxlen=0)
            yield

    def copy(self, end: int) -> None:
        """Copy the lines up to this one.  Those that are no rows come along: so the numbers of rows stay theirs."""
        assert self._file is not None
        self._file.writelines(self._take(end))

    def _take(self, end: int) -> Iterator[bytes]:
        count, self._copied = end - self._copied, end
        return itertools.islice(self._lines, count)

    def close(self) -> None:
        """Close the input."""
        self._lines.close()


class ParquetCopier:
    """Copies the rows of a Parquet file, with all its columns and their types, a batch of rows at a time.

    Args:
        path: the file.

    Attributes:
        suffix: as of :class:`TextCopier`.
    """

    suffix = ".parquet"

    def __init__(self, path: str) -> None:
        self._package: Any = import_reader("pyarrow.parquet", PARQUET, path)
        self._batches = parquet_batches(path)
        self._batch: Any = next(self._batches, None)  # its rows that are not copied yet; None if the file has no rows
        self._copied = self._end = 0
        self._writer: Any = None

    @contextlib.contextmanager
    def into(self, file: IO[bytes], place: int) -> Iterator[None]:
        """Do what :meth:`TextCopier.into` does."""
        collections.deque(self._take(place - 1), maxlen=0)
        with self._package.ParquetWriter(file, self._batch.schema) as self._writer:
            yield
            self._write()

    def copy(self, end: int) -> None:
        """Copy the rows up to this one, when there are enough of them for a row group of their own."""
        self._end = end
        if end - self._copied >= self._batch.num_rows:
            self._write()

    def _write(self) -> None:
        for batch in self._take(self._end):
            self._writer.write_batch(batch)

    def _take(self, end: int) -> Iterator[Any]:
        """Yield the rows from the last one that was taken up to this one, in batches."""
        while self._copied < end:
            if not self._batch.num_rows:
                self._batch = next(self._batches)
            part = self._batch.slice(0, end - self._copied)
            self._batch = self._batch.slice(part.num_rows)
            self._copied += part.num_rows
            yield part

    def close(self) -> None:
        """Close the input."""
        self._batches.close()


Copier = Union[TextCopier, ParquetCopier]


def copier_of(source: Source, *, is_gzip: bool) -> Copier:
    """Return what copies the rows of an input.

    Args:
        source: the input.
        is_gzip: whether it is compressed.

    Raises:
        ConfigurationError: its format cannot be cut.
    """
    if source.format == PARQUET:
        return ParquetCopier(source.name)
    if source.format not in _SUFFIXES:
        raise ConfigurationError(
            f"{source.name} is a file of {source.format.capitalize()}, which is not split: save its rows as CSV in "
            "UTF-8, as JSON lines or as Parquet"
        )
    return TextCopier(source, is_gzip=is_gzip)
