"""The answers in a cache: found, kept, and removed when there are too many or they are too old."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import zlib
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .database import Database

__all__ = ["CacheStats", "Entry", "Store"]

_USED_STEP_SECONDS = 3600.0  # "used" is no more exact, so that most hits write nothing
_MAX_USED = 1000  # rows whose use is noted at the next write
_ROWS_PER_EVICTION, _MAX_EVICTIONS = 16, 16  # for each write, so that none takes long
_LARGEST_SHARE = 4  # of max_bytes, for one answer
_READ_ROWS = 100
# Times that were damaged may be texts, bytes or any number: then they are in no order with these.
_FIND = """
    SELECT id, checksum, made, used, facts, answer FROM answers
    WHERE key = ? AND made BETWEEN 0 AND 1e11 AND used BETWEEN 0 AND 1e11
"""
_READ = """
    SELECT id, key, checksum, made, facts, answer FROM answers
    WHERE id > ? AND made BETWEEN 0 AND 1e11 AND used BETWEEN 0 AND 1e11
    ORDER BY id LIMIT ?
"""
_COUNT = "SELECT count(*), min(made), max(made) FROM answers WHERE made BETWEEN 0 AND 1e11"  # its index is enough


class Entry(NamedTuple):
    """One answer.

    Attributes:
        answer: the answer, encoded.
        facts: what is known about it, as JSON.
        made: when it was kept, in seconds since the epoch.
    """

    answer: bytes
    facts: bytes
    made: float


class CacheStats(NamedTuple):
    """Numbers of a cache.

    Attributes:
        answers: number of answers.
        bytes: size of the file, without the room that is free in it.
        oldest, newest: when the first and the last of them were kept, in seconds since the epoch; None without any.
    """

    answers: int
    bytes: int
    oldest: Optional[float]
    newest: Optional[float]


class Store:
    """The answers in one file; any number of threads and processes may use it.

    Args:
        path: the file.
        max_age: seconds after which an answer does not count any more; None for ever.
        max_bytes: the size from which on those go that were not used for longest; None for no limit.
        is_read_only: whether nothing is written.
    """

    def __init__(
        self,
        path: str,
        max_age: Optional[float] = None,
        max_bytes: Optional[int] = None,
        *,
        is_read_only: bool = False,
    ) -> None:
        self._database = Database(path, is_read_only=is_read_only)
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._used: Dict[int, float] = {}  # rows that were found, until the next write

    @property
    def path(self) -> str:
        """The file, with its folder."""
        return self._database.path

    def check(self) -> None:
        """Open the file.

        Raises:
            ForeignDatabase: it is none of a cache.
        """
        self._database.check()

    def find(self, digests: Sequence[bytes], now: float) -> Optional[Entry]:
        """Return the answer that is kept under the first of these digests that has one, None without any."""
        return self._database.use(lambda connection: self._find(connection, digests, now))

    def _find(self, connection: sqlite3.Connection, digests: Sequence[bytes], now: float) -> Optional[Entry]:
        for digest in digests:
            key = self._key(digest)
            rows = connection.execute(_FIND, (key,)).fetchall()
            for row_id, checksum, made, used, facts, answer in rows:
                is_young = self._max_age is None or made > now - self._max_age
                if is_young and checksum == _checksum(key, facts, answer):
                    if now - used > _USED_STEP_SECONDS and len(self._used) < _MAX_USED:
                        self._used[row_id] = now
                    return Entry(answer, facts, made)
        return None

    def keep(self, entries: Sequence[Tuple[bytes, bytes, bytes]], now: float) -> None:
        """Keep answers, each in the place of an older one.

        Args:
            entries: (digest, facts, answer) of each.
            now: in seconds since the epoch.
        """
        most = None if self._max_bytes is None else self._max_bytes // _LARGEST_SHARE
        kept = [entry for entry in entries if most is None or len(entry[2]) <= most]
        if kept:
            self._database.write(lambda connection: self._keep(connection, kept, now))

    def _keep(self, connection: sqlite3.Connection, entries: Sequence[Tuple[bytes, bytes, bytes]], now: float) -> None:
        rows = []
        for digest, facts, answer in entries:
            key = self._key(digest)
            rows.append((key, _checksum(key, facts, answer), now, now, facts, answer))
        connection.executemany(
            "INSERT OR REPLACE INTO answers (key, checksum, made, used, facts, answer) VALUES (?, ?, ?, ?, ?, ?)", rows
        )
        self._note_used(connection)
        if self._max_age is not None:
            connection.execute(
                "DELETE FROM answers WHERE id IN (SELECT id FROM answers WHERE made <= ? ORDER BY made LIMIT ?)",
                (now - self._max_age, _ROWS_PER_EVICTION),
            )
        self._evict(connection)

    def _note_used(self, connection: sqlite3.Connection) -> None:
        if self._used:
            used = [(at, row_id) for row_id, at in self._used.items()]
            connection.executemany("UPDATE answers SET used = ? WHERE id = ?", used)
            self._used.clear()

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Remove answers that were not used for longest, if the file is too large; a bounded number of them."""
        for _ in range(_MAX_EVICTIONS):
            if self._max_bytes is None or _size_of(connection) <= self._max_bytes:
                return
            connection.execute(
                "DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY used, id LIMIT ?)",
                (_ROWS_PER_EVICTION,),
            )

    def _key(self, digest: bytes) -> bytes:
        """Return the key of an answer in this file, from which nobody can tell the account or the request."""
        return hashlib.blake2b(digest, key=self._database.salt, digest_size=32).digest()

    # -- the whole file -----------------------------------------------------------------------------------------

    def stats(self) -> Optional[CacheStats]:
        """Return its numbers; None if it cannot be read."""
        return self._database.use(_stats_of)

    def clear(self, before: Optional[float] = None) -> Optional[int]:
        """Remove answers; return how many, None if the file cannot be written.

        Args:
            before: in seconds since the epoch: only those that were kept before; None for all.
        """
        removed: List[int] = []

        def remove(connection: sqlite3.Connection) -> None:
            latest = math.inf if before is None else before
            removed.append(connection.execute("DELETE FROM answers WHERE made < ?", (latest,)).rowcount)

        self._database.write(remove)
        self._database.use(_give_back, is_write=True)
        return removed[0] if removed else None

    def entries(self) -> Iterator[Entry]:
        """Yield all answers that are whole, in the order in which they were kept."""
        last = 0
        while True:
            rows = self._database.use(lambda connection: _rows_after(connection, last))  # noqa: B023 - called at once
            if not rows:
                return
            for row_id, key, checksum, made, facts, answer in rows:
                last = row_id
                if checksum == _checksum(key, facts, answer):
                    yield Entry(answer, facts, made)

    def close(self) -> None:
        """Close the file."""
        if self._used:
            self._database.write(self._note_used)
        self._database.close()


def _checksum(key: object, facts: object, answer: object) -> int:
    """Return the checksum of a row, -1 for one whose values have other types than they were written with."""
    if not (isinstance(key, bytes) and isinstance(facts, bytes) and isinstance(answer, bytes)):
        return -1
    return zlib.crc32(answer, zlib.crc32(facts, zlib.crc32(key)))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    ((value,),) = connection.execute(f"PRAGMA {name}").fetchall()
    return int(value)


def _size_of(connection: sqlite3.Connection) -> int:
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def _stats_of(connection: sqlite3.Connection) -> CacheStats:
    ((count, oldest, newest),) = connection.execute(_COUNT).fetchall()
    return CacheStats(count, _size_of(connection), oldest, newest)


def _give_back(connection: sqlite3.Connection) -> None:
    """Give the room of removed answers back to the disk."""
    # Not with execute: some Pythons (3.11) end a statement whose rows have no columns at the first, which is one page.
    connection.executescript("PRAGMA incremental_vacuum")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _rows_after(connection: sqlite3.Connection, last: int) -> List[Tuple[int, bytes, int, float, bytes, bytes]]:
    return connection.execute(_READ, (last, _READ_ROWS)).fetchall()
