"""The journal of a run: append-only, the last record of a row wins.

Looking at a journal without using it: no lock, nothing repaired, also while a run writes to it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from types import TracebackType
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Type, Union

from .._locks import convoy_free
from ..errors import ConfigurationError
from .append_only import AppendOnly, SharedAppender, Tail, has_words, replacing
from .digest_table import DigestTable
from .lock_file import FileLock
from .record import (
    ASIDE,
    BACK,
    FAILED,
    GONE,
    MARKS,
    OK,
    PREFIX,
    RETRY,
    Prefix,
    Record,
    decode_record,
    encode_record,
    prefix_of,
)

__all__ = ["Journal", "is_journal", "read_journal"]


logger = logging.getLogger("chatpool")

# A number in the table: where the row's last record starts, whether that is set aside, whether the row was met in this
# run, how it ended.
_START, _ASIDE, _MET = 4, 8, 4
_ALL = (1 << 64) - 1
_CODES: Dict[str, int] = {OK: 1, FAILED: 2, RETRY: 3}
_STATES = {code: state for state, code in _CODES.items()}

_WORTH_COMPACTING = 1 << 20  # bytes


def _mark(key: int, state: str) -> Record:
    return Record(key, state, "0" * 32, None, 0, 0.0, 0.0, ())


class _Line(NamedTuple):
    start: int
    data: bytes
    prefix: Optional[Prefix]


class Journal:
    """The outcomes of a run's rows, in a file that survives the death of the process at any moment.

    Args:
        path: the file, or a link of the user's own to it; it is made if it is not there, and what a crash has left of
            its last line is removed.
        needs_lock: whether it is an error, and not only a warning, where no lock can be had.

    Attributes:
        path: the file.
        was_empty: whether nothing had been recorded when it was opened.
        superseded: how many records were followed by a later one of the same row, or by a mark, since it was opened.

    Any thread may use it.  It is synced about once a second.

    Raises:
        ConfigurationError: another process uses it, it is no journal, or its place cannot be written to.
    """

    HEADER = b'{"chatpool_journal":1}\n'

    def __init__(self, path: Union[str, os.PathLike[str]], *, needs_lock: bool = False) -> None:
        self.path = os.fspath(path)
        self._lock = FileLock(self.path, is_needed=needs_lock)
        self._exclusive = convoy_free(threading.Lock())  # every worker appends its outcomes
        self._shared: Optional[SharedAppender] = None
        self._table = DigestTable()
        self.superseded = 0
        try:
            self._lock.acquire()
            self._open()
        except ConfigurationError:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            words = error.strerror or str(error)
            if not has_words(error):
                words = f"cannot write {self.path}: {words}; choose another output"
            raise ConfigurationError(words) from error

    def _open(self) -> None:
        self._file = AppendOnly(self.path)
        self._reader: BinaryIO = open(self.path, "rb")  # noqa: SIM115 - closed by close()
        try:
            dead = self._load()
            if dead > self._file.size // 2 and self._file.size > _WORTH_COMPACTING:
                self._compact()
            self.was_empty = self.is_empty
        except BaseException:
            self._close_files()
            raise

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever recorded."""
        return self._file.size == len(self.HEADER)

    def _load(self) -> int:
        """Read what is there and repair its end; returns how many bytes are out of date."""
        self._check_header()
        good, dead, lost = len(self.HEADER), 0, 0
        for start, data, prefix in self.scan(self._reader):
            if prefix is None:
                lost += data != b"\n"  # which comes before the records of a shared journal
                continue
            if self._note(prefix.key, prefix.state, start):
                dead += len(data)
            good = start + len(data)
        if good < self._file.size:
            if lost > 0:
                lost -= 1
            logger.warning(
                "%s: its last record was not finished when the process or the machine died; its row will run again",
                self.path,
            )
            self._file.truncate(good)
        if lost > 0:
            logger.warning("%s: %d damaged lines were left out; their rows will run again", self.path, lost)
        self.superseded = 0
        return dead

    def _check_header(self) -> None:
        head = self._reader.read(len(self.HEADER))
        if head == self.HEADER:
            return
        if not self.HEADER.startswith(head):
            raise ConfigurationError(f"{self.path} is not a journal of chatpool's; choose another name")
        self._file.truncate(0)
        self._file.append(self.HEADER)
        self._reader.seek(len(self.HEADER))

    @classmethod
    def scan(cls, file: BinaryIO) -> Iterator[_Line]:
        """Every line of a journal after its header: where it starts, its bytes, and what it is the record of."""
        start = len(cls.HEADER)
        file.seek(start)
        for data in file:
            yield _Line(start, data, prefix_of(data))
            start += len(data)

    def _note(self, key: int, state: str, start: int) -> bool:
        """Make the record at ``start`` its row's last one, or heed the mark; whether there was one before."""
        if state in MARKS:
            kept, value = {ASIDE: (_ALL, _ASIDE), BACK: (_ALL & ~_ASIDE, 0), GONE: (_MET, 0)}[state]
            self._table.change(key, kept, value)
            return False
        replaced = self._table.change(key, _MET, start << _START | _CODES[state]) & 3 != 0
        self.superseded += replaced
        return replaced

    # -- what is known --------------------------------------------------------------------------------

    def claim(self, key: int) -> bool:
        """Note that the row was met in this run; False if it had been before."""
        with self._exclusive:
            return not self._table.change(key, _ALL, _MET) & _MET

    def met(self, key: int) -> bool:
        """Whether the row was met in this run."""
        with self._exclusive:
            return bool(self._table.get(key) & _MET)

    def has(self, key: int) -> bool:
        """Whether there is a record of the row, whatever its body was, that is not set aside."""
        with self._exclusive:
            return bool(self._table.get(key) & 3) and not self._table.get(key) & _ASIDE

    def not_met(self) -> List[int]:
        """The rows with a record that were not met in this run, and are not set aside."""
        with self._exclusive:
            return [key for key, found in self._table.items() if found & 3 and not found & (_MET | _ASIDE)]

    def state(self, key: int, hash_: str) -> Optional[str]:
        """How the row with this body ended last, also where that is set aside; None where it did not, or its body was
        another.
        """
        with self._exclusive:
            found = self._table.get(key)
            if not found & 3:
                return None
            self._reader.seek(found >> _START)
            prefix = prefix_of(self._reader.read(PREFIX), whole=False)
        return _STATES[found & 3] if prefix is not None and (prefix.key, prefix.hash) == (key, hash_) else None

    def knows(self, key: int) -> bool:
        """Whether the row has ended before, whatever it asked for."""
        with self._exclusive:
            return bool(self._table.get(key) & 3)

    def has_answer(self, key: int) -> bool:
        """Whether the row has an answer, to whatever request."""
        with self._exclusive:
            return self._table.get(key) & 3 == _CODES[OK]

    def line(self, key: int) -> Optional[bytes]:
        """The row's last record as a line, None without one that counts."""
        return self._line(key) if self.has(key) else None

    def _line(self, key: int) -> Optional[bytes]:
        with self._exclusive:
            found = self._table.get(key)
            if not found & 3:
                return None
            self._reader.seek(found >> _START)
            return self._reader.readline()

    def read(self, key: int, hash_: str) -> Optional[Record]:
        """The last record of the row with this body, also one that is set aside; None without one."""
        line = self._line(key)
        if line is None:
            return None
        record = decode_record(line)
        return record if record.hash == hash_ else None

    def lines(self, *, aside: bool = False) -> Iterator[Tuple[Prefix, bytes]]:
        """The last record of every row, as lines, in the order in which the rows ended.

        Args:
            aside: whether those that are set aside come too, each with its mark.
        """
        with open(self.path, "rb", buffering=1 << 20) as file:
            for start, data, prefix in self.scan(file):
                if prefix is None or prefix.state in MARKS:
                    continue
                with self._exclusive:
                    found = self._table.get(prefix.key)
                if not found & 3 or found >> _START != start:
                    continue
                if not found & _ASIDE:
                    yield prefix, data
                elif aside:
                    yield prefix, data + encode_record(_mark(prefix.key, ASIDE))

    # -- what becomes known ---------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Write a record; when this returns it survives the death of the process.

        Raises:
            OSError: it could not be written.
        """
        if self._shared is not None:
            start, _ = self._shared.append(record)
            self.learn(record.key, record.state, start)
            return
        line, file = encode_record(record), self._file
        # As few calls as can be with the lock held: all workers want it.
        with self._exclusive:
            start = file.size
            file.append(line)
            before = self._table.change(record.key, _MET, start << _START | _CODES[record.state])
            self.superseded += before & 3 != 0
        if not file.is_due:
            file.sync_soon()

    def mark(self, key: int, state: str) -> None:
        """Set the row's record aside, or have it count again; its answer stays.

        Args:
            key: the row's.
            state: one of :data:`~.record.MARKS`.

        Raises:
            OSError: it could not be written.
        """
        mark = _mark(key, state)
        with self._exclusive:
            if self._shared is not None:
                self._shared.append(mark)
            else:
                self._file.append(encode_record(mark))
            self._note(key, state, 0)
            self.superseded += 1

    def sync(self) -> None:
        """Have everything on the disk before returning."""
        self._file.sync()

    # -- other processes write, too -----------------------------------------------------------------------

    @property
    def lock_descriptor(self) -> Optional[int]:
        """What keeps the journal locked; child processes that write to it hold it open."""
        return self._lock.descriptor

    def tail(self) -> Tail:
        """Reads what others append from now on; each such record has to be made known by :meth:`learn`."""
        self._shared = SharedAppender(self.path)
        return Tail(self.path)

    def learn(self, key: int, state: str, start: int) -> None:
        """The last record of the row ``key``, which ended so, is at ``start``, whoever wrote it."""
        with self._exclusive:
            self._note(key, state, start)

    def _compact(self) -> None:
        """Drop what is out of date."""
        with replacing(self.path) as new:
            new.write(self.HEADER)
            for _, data in self.lines(aside=True):
                new.write(data)
        self._close_files()
        self._file = AppendOnly(self.path)
        self._reader = open(self.path, "rb")  # noqa: SIM115 - closed by close()
        self._table = DigestTable()
        self._load()

    # -- the end ----------------------------------------------------------------------------------------

    def _close_files(self) -> None:
        if self._shared is not None:
            self._shared.close()
        self._reader.close()
        self._file.close()

    def close(self) -> None:
        """Sync, close and give the lock back; a second call does nothing."""
        try:
            self._close_files()
        finally:
            self._lock.release()

    def forsake(self) -> None:
        """Give the lock back and nothing else, without waiting for anything: for the garbage collector."""
        self._lock.release()

    def __del__(self) -> None:
        reader = getattr(self, "_reader", None)
        if reader is not None:
            reader.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError):  # what is raised already says more
            self.close()


def is_journal(path: str) -> bool:
    """Whether the file is a journal."""
    with open(path, "rb") as file:
        return file.read(len(Journal.HEADER)) == Journal.HEADER


def read_journal(path: str) -> Iterator[Tuple[Record, bool]]:
    """Every record in a journal, and whether it is the last one of its row and is not set aside.

    Raises:
        OSError: the file cannot be read.
    """
    last = DigestTable()
    aside: Set[int] = set()
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is None:
                continue
            if line.prefix.state not in MARKS:
                last[line.prefix.key] = line.start
            if line.prefix.state in (ASIDE, GONE):
                aside.add(line.prefix.key)
            elif aside:
                aside.discard(line.prefix.key)
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is not None and line.prefix.state not in MARKS:
                key = line.prefix.key
                yield decode_record(line.data), last.get(key) == line.start and key not in aside
