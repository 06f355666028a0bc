"""The journal of a run: append-only, the last record of a row wins.

:class:`Journal` is for the run that writes to it: locked, repaired when it is opened, with an index of its rows in
memory.  :func:`read_journal` only reads, without a lock and without repairing anything, also while a run writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from types import TracebackType
from typing import Any, BinaryIO, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple, Type, Union

from .._files import atomic_replace, is_write_error, resolve_own_link
from .._locks import convoy_free
from ..errors import ConfigurationError
from .append_only import AppendOnly, SharedAppender, Tail
from .digest_table import DigestTable
from .folder_lease import FolderLease
from .lock_file import FileLock
from .record import (
    FAILED,
    MARKS,
    OK,
    PENDING,
    PREFIX_BYTES,
    RENAMED,
    RESTORED,
    RETRY,
    RUN,
    SET_ASIDE,
    Prefix,
    Record,
    decode_record,
    decode_value,
    encode_record,
    encode_value,
    prefix_of,
)

__all__ = ["Journal", "count_states", "is_journal", "pending_mark", "read_journal", "read_runs"]


logger = logging.getLogger("chatpool")

# A number in the table: where the row's last record starts, whether that is set aside, whether the row was seen in this
# run, how it ended.
_START_SHIFT_BITS, _ASIDE_BIT, _SEEN_BIT, _STATE_BITS = 4, 8, 4, 3
_ALL_BITS = (1 << 64) - 1
_MARKED = {SET_ASIDE: (_ALL_BITS, _ASIDE_BIT), RESTORED: (_ALL_BITS & ~_ASIDE_BIT, 0), RENAMED: (_SEEN_BIT, 0)}
_CODES: Dict[str, int] = {OK: 1, FAILED: 2, RETRY: 3}
_STATES = {code: state for state, code in _CODES.items()}

_MIN_COMPACTED_BYTES = 1 << 20

_NO_ANSWER = b"null"
_NO_ANSWER_END = b',"value":null}\n'


def _mark(key: int, state: str) -> Record:
    return Record(key, state, "0" * 32, None, 0, 0.0, 0.0, ())


def pending_mark(key: int, hash_: str, row: int, at: float, facts: Mapping[str, Any]) -> Record:
    """Return the mark of a row that is made in the background.

    Args:
        key: key of the row.
        hash_: digest of its request.
        row: its place in the input.
        at: when it was promised, in seconds since the epoch.
        facts: where it is made, as JSON has it.
    """
    return Record(key, PENDING, hash_, None, row, at, 0.0, (), value=encode_value(facts))


class _Line(NamedTuple):
    """Line of a journal: where it starts, its bytes, and the record that it holds."""

    start: int
    data: bytes
    prefix: Optional[Prefix]


class Journal:
    """Outcomes of a run's rows, in a file that survives the death of the process at any moment.

    Args:
        path: the file, or a link of the user's own to it; it is made if it is not there, and a last line that a crash
            has cut short is removed.
        needs_lock: whether it is an error, and not only a warning, if the file system has no locks.
        lease: keeps other processes away instead of a lock; it is held, and for the caller to release.

    Attributes:
        path: the file.
        is_empty: whether no outcome was ever recorded.
        was_empty: whether none had been when it was opened.
        overwritten: number of records that were followed by a later one of the same row, or by a mark, since it was
            opened.

    Any thread may use it.  It is synced about once a second.

    Raises:
        ConfigurationError: another process uses it, it is no journal, or its place cannot be written to.
        JournalLostError: of all that writes, if the lease was lost.
    """

    HEADER = b'{"chatpool_journal":1}\n'

    def __init__(
        self, path: Union[str, os.PathLike[str]], *, needs_lock: bool = False, lease: Optional[FolderLease] = None
    ) -> None:
        self.path = os.fspath(path)
        self._lease = lease
        self._lock = FileLock(self.path, is_needed=needs_lock)
        self._exclusive = convoy_free(threading.Lock())  # every worker appends its outcomes
        self._shared: Optional[SharedAppender] = None
        self._table = DigestTable()
        self._pending: Dict[int, int] = {}  # where the mark of each row starts that is made in the background
        self.overwritten = 0
        try:
            if lease is None:
                self._lock.acquire()
            self._open()
        except ConfigurationError:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            message = error.strerror or str(error)
            if not is_write_error(error):
                message = f"cannot write {self.path}: {message}; choose another output"
            raise ConfigurationError(message) from error

    def _open(self) -> None:
        self._is_new = not os.path.exists(self.path)
        self._file = AppendOnly(self.path)
        self._reader: BinaryIO = open(self.path, "rb")  # noqa: SIM115 - closed by close()
        self.is_empty = True
        try:
            stale_bytes = self._load()
            if stale_bytes > self._file.size // 2 and self._file.size > _MIN_COMPACTED_BYTES:
                self._compact()
            self.was_empty = self.is_empty
        except BaseException:
            self._close_files()
            raise

    def _load(self) -> int:
        """Read the file and repair its end; return the number of stale bytes, those of overwritten records."""
        self._check_header()
        good_bytes, stale_bytes, lost_lines = len(self.HEADER), 0, 0
        for start, data, prefix in self.scan(self._reader):
            if prefix is None:
                lost_lines += data != b"\n"  # a blank line comes before each record of a shared journal
                continue
            if prefix.state != RUN and self._index(prefix.key, prefix.state, start):
                stale_bytes += len(data)
            if self._pending and prefix.state not in MARKS:
                self._forget_pending(prefix.key, prefix.state, has_answer=not data.endswith(_NO_ANSWER_END))
            good_bytes = start + len(data)
        if good_bytes < self._file.size:
            if lost_lines > 0:
                lost_lines -= 1
            logger.warning(
                "%s: its last record was not finished when the process or the machine died; its row will run again",
                self.path,
            )
            self._file.truncate(good_bytes)
        if lost_lines > 0:
            logger.warning("%s: %d damaged lines were left out; their rows will run again", self.path, lost_lines)
        self.overwritten = 0
        return stale_bytes

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
        """Yield every line of a journal after its header."""
        start = len(cls.HEADER)
        file.seek(start)
        for data in file:
            yield _Line(start, data, prefix_of(data))
            start += len(data)

    def _index(self, key: int, state: str, start: int) -> bool:
        """Make the record at ``start`` its row's last one, or apply the mark; return whether it overwrites another."""
        if state == PENDING:
            self._pending[key] = start
            return False
        self.is_empty = False
        if state in MARKS:
            kept_bits, value = _MARKED[state]
            self._table.update(key, kept_bits, value)
            return False
        replaced = self._table.update(key, _SEEN_BIT, start << _START_SHIFT_BITS | _CODES[state]) & _STATE_BITS != 0
        self.overwritten += replaced
        return replaced

    def _forget_pending(self, key: int, state: str, *, has_answer: bool) -> None:
        """Forget where a row is made in the background; after a failure without an answer it may go on there."""
        if state != RETRY or has_answer:
            self._pending.pop(key, None)

    # -- the index ------------------------------------------------------------------------------------

    def register(self, key: int) -> bool:
        """Note that the row was seen in this run; return False if it had been before."""
        with self._exclusive:
            return not self._table.update(key, _ALL_BITS, _SEEN_BIT) & _SEEN_BIT

    def seen(self, key: int) -> bool:
        """Return whether the row was seen in this run."""
        with self._exclusive:
            return bool(self._table.get(key) & _SEEN_BIT)

    def has(self, key: int) -> bool:
        """Return whether there is a record of the row, whatever its body was, that is not set aside."""
        with self._exclusive:
            return bool(self._table.get(key) & _STATE_BITS) and not self._table.get(key) & _ASIDE_BIT

    def unseen(self) -> List[int]:
        """Return the rows with a record that were not seen in this run, and are not set aside."""
        with self._exclusive:
            return [
                key
                for key, entry in self._table.items()
                if entry & _STATE_BITS and not entry & (_SEEN_BIT | _ASIDE_BIT)
            ]

    def state(self, key: int, hash_: str) -> Optional[str]:
        """Return the state in which the row ended last, also if that is set aside.

        None if it has not ended, or had another body.
        """
        with self._exclusive:
            entry = self._table.get(key)
            if not entry & _STATE_BITS:
                return None
            self._reader.seek(entry >> _START_SHIFT_BITS)
            prefix = prefix_of(self._reader.read(PREFIX_BYTES), whole=False)
        return (
            _STATES[entry & _STATE_BITS] if prefix is not None and (prefix.key, prefix.hash) == (key, hash_) else None
        )

    def has_ended(self, key: int) -> bool:
        """Return whether the row has ended before, whatever its body was."""
        with self._exclusive:
            return bool(self._table.get(key) & _STATE_BITS)

    def has_answer(self, key: int) -> bool:
        """Return whether the row has an answer, whatever its body was."""
        with self._exclusive:
            return self._table.get(key) & _STATE_BITS == _CODES[OK]

    def line(self, key: int) -> Optional[bytes]:
        """Return the row's last record as a line, None without one that counts."""
        return self._line(key) if self.has(key) else None

    def _line(self, key: int) -> Optional[bytes]:
        with self._exclusive:
            entry = self._table.get(key)
            if not entry & _STATE_BITS:
                return None
            self._reader.seek(entry >> _START_SHIFT_BITS)
            return self._reader.readline()

    def read(self, key: int, hash_: str) -> Optional[Record]:
        """Return the last record of the row with this body, also one that is set aside; None without one."""
        line = self._line(key)
        if line is None:
            return None
        record = decode_record(line)
        return record if record.hash == hash_ else None

    def lines(self, *, with_set_aside: bool = False) -> Iterator[Tuple[Prefix, bytes]]:
        """Yield the last record of every row, as a line, in the order in which the rows ended.

        Args:
            with_set_aside: whether those that are set aside come too, each with its mark.
        """
        with open(self.path, "rb", buffering=1 << 20) as file:
            for start, data, prefix in self.scan(file):
                if prefix is None or prefix.state in MARKS:
                    continue
                with self._exclusive:
                    entry = self._table.get(prefix.key)
                if not entry & _STATE_BITS or entry >> _START_SHIFT_BITS != start:
                    continue
                if not entry & _ASIDE_BIT:
                    yield prefix, data
                elif with_set_aside:
                    yield prefix, data + encode_record(_mark(prefix.key, SET_ASIDE))

    # -- writing --------------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Write a record; when this returns it survives the death of the process.

        Raises:
            OSError: it could not be written.
        """
        if self._lease is not None:
            self._lease.check()
        try:
            self._append(record)
        except OSError:
            if self._lease is not None:  # whoever takes a lease over removes the files of others
                self._lease.check(at_once=True)
            raise

    def _append(self, record: Record) -> None:
        if self._shared is not None:
            start, _ = self._shared.append(record)
            self.index_record(record.key, record.state, start)
            return
        line, file = encode_record(record), self._file
        # As few calls as can be with the lock held: all workers want it.
        with self._exclusive:
            start = file.size
            file.append(line)
            self.is_empty = False
            before = self._table.update(record.key, _SEEN_BIT, start << _START_SHIFT_BITS | _CODES[record.state])
            self.overwritten += before & _STATE_BITS != 0
            if self._pending:
                self._forget_pending(record.key, record.state, has_answer=record.value != _NO_ANSWER)
        if not file.is_sync_scheduled:
            file.schedule_sync()

    def mark(self, key: int, state: str) -> None:
        """Set the row's record aside, or have it count again; its answer stays.

        Args:
            key: key of the row.
            state: one of :data:`~.record.MARKS`, those of rows.

        Raises:
            OSError: it could not be written.
        """
        with self._exclusive:
            self._append_mark(_mark(key, state))
            self._index(key, state, 0)
            self.overwritten += 1

    def note_pending(self, mark: Record) -> None:
        """Write that a row is made in the background, a mark of :func:`pending_mark`; :meth:`pending` finds it.

        Raises:
            OSError: it could not be written.
            JournalLostError: the lease was lost.
        """
        if self._lease is not None:
            self._lease.check()
        with self._exclusive:
            start = self._file.size
            self._append_mark(mark)
            self._pending[mark.key] = start
        self._file.schedule_sync()

    def pending(self, key: int, hash_: str) -> Optional[Dict[str, Any]]:
        """Return where a row with this body is made in the background; None if it is not, as far as is known."""
        start = self._pending.get(key)
        if start is None:
            return None
        with self._exclusive:
            self._reader.seek(start)
            line = self._reader.readline()
        prefix = prefix_of(line)
        if prefix is None or (prefix.key, prefix.state, prefix.hash) != (key, PENDING, hash_):
            return None
        facts = decode_value(decode_record(line).value)
        return facts if isinstance(facts, dict) else None

    def begin_run(self, options: Mapping[str, Any], at: float) -> None:
        """Note that a run begins to send; :func:`read_runs` reads it.

        Args:
            options: those of the run, as JSON has them; no secrets.
            at: seconds since the epoch.

        Raises:
            OSError: it could not be written.
        """
        with self._exclusive:
            self._append_mark(_mark(0, RUN)._replace(at=at, value=encode_value(options)))

    def _append_mark(self, mark: Record) -> None:
        if self._shared is not None:
            self._shared.append(mark)
        else:
            self._file.append(encode_record(mark))

    def sync(self) -> None:
        """Write everything to the disk before returning."""
        self._file.sync()

    # -- other processes write, too -------------------------------------------------------------------

    @property
    def lock_descriptor(self) -> Optional[int]:
        """Descriptor that keeps the journal locked; child processes that write to it hold it open."""
        return self._lock.descriptor if self._lease is None else self._lease.descriptor

    def tail(self) -> Tail:
        """Return a reader of records that other processes append; :meth:`index_record` is to be called for each."""
        self._shared = SharedAppender(self.path)
        return Tail(self.path)

    def index_record(self, key: int, state: str, start: int) -> None:
        """Make the record at ``start`` the last one of the row ``key``, which ended in ``state``."""
        with self._exclusive:
            self._index(key, state, start)

    def _compact(self) -> None:
        """Rewrite the file without stale records."""
        with atomic_replace(self.path) as new:
            new.write(self.HEADER)
            new.writelines(_run_lines(self.path))
            for _, data in self.lines(with_set_aside=True):
                new.write(data)
            for start in self._pending.values():
                self._reader.seek(start)
                new.write(self._reader.readline())
        self._close_files()
        self._file = AppendOnly(self.path)
        self._reader = open(self.path, "rb")  # noqa: SIM115 - closed by close()
        self._table, self._pending = DigestTable(), {}
        self._load()

    # -- closing --------------------------------------------------------------------------------------

    def _close_files(self) -> None:
        if self._shared is not None:
            self._shared.close()
        self._reader.close()
        self._file.close()

    def close(self) -> None:
        """Sync, close and release the lock; a second call does nothing.

        A file that was made for this run, and that nothing was written to, is removed.
        """
        try:
            self._close_files()
        finally:
            with contextlib.suppress(OSError):
                if self._is_new and os.path.getsize(self.path) <= len(self.HEADER):
                    os.unlink(resolve_own_link(self.path))
            self._is_new = False
            self._lock.release()

    def abandon(self) -> None:
        """Release the lock and nothing else, without waiting for anything: for the garbage collector."""
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
        with contextlib.suppress(OSError):  # the error that is being raised says more
            self.close()


def is_journal(path: str) -> bool:
    """Return whether the file is a journal."""
    with open(path, "rb") as file:
        return file.read(len(Journal.HEADER)) == Journal.HEADER


def _run_lines(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is not None and line.prefix.state == RUN:
                yield line.data


def read_runs(path: str) -> List[Tuple[float, Dict[str, Any]]]:
    """Return when each run of a journal has begun to send, in seconds since the epoch, and its options.

    Journals of version 0.1.0 have none.

    Raises:
        OSError: the file cannot be read.
    """
    records = map(decode_record, _run_lines(path))
    runs = [(record.at, decode_value(record.value)) for record in records]
    return [(at, options) for at, options in runs if isinstance(at, (int, float)) and isinstance(options, dict)]


def count_states(path: str) -> Dict[str, int]:
    """Return how many rows ended last in each state; rows that are set aside do not count.

    It decodes no record, and so takes a sixth of the time of :func:`read_journal`; memory is about 130 bytes a row.

    Raises:
        OSError: the file cannot be read.
    """
    codes: Dict[int, int] = {}
    with open(path, "rb", buffering=1 << 20) as file:
        for _, _, prefix in Journal.scan(file):
            if prefix is None or prefix.state in (RUN, PENDING):
                continue
            if prefix.state in MARKS:
                kept_bits, value = _MARKED[prefix.state]
                codes[prefix.key] = codes.get(prefix.key, 0) & kept_bits | value
            else:
                codes[prefix.key] = _CODES[prefix.state]
    ended = list(codes.values())
    return {state: ended.count(code) for state, code in _CODES.items()}


def read_journal(path: str) -> Iterator[Tuple[Record, bool]]:
    """Yield every record of a journal, and whether it is the last one of its row and is not set aside.

    Raises:
        OSError: the file cannot be read.
    """
    last_starts = DigestTable()
    aside: Set[int] = set()
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is None:
                continue
            if line.prefix.state not in MARKS:
                last_starts[line.prefix.key] = line.start
            if line.prefix.state in (SET_ASIDE, RENAMED):
                aside.add(line.prefix.key)
            elif aside and line.prefix.state != PENDING:
                aside.discard(line.prefix.key)
        for line in Journal.scan(file):
            if line.prefix is not None and line.prefix.state not in MARKS:
                key = line.prefix.key
                yield decode_record(line.data), last_starts.get(key) == line.start and key not in aside
