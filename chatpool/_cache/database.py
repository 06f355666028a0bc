"""The file of a cache: an SQLite database, opened when it is needed, closed around forks, set aside when damaged.

SQLite's locks belong to the process, and its state in memory does not survive a fork: so every connection is closed
before one, and each process opens its own after it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import secrets
import sqlite3
import stat
import time
import weakref
from typing import Callable, Dict, Iterator, Optional, Tuple, TypeVar

from .._file_lock import lock_file
from .._files import SAFE_OPEN_FLAGS, resolve_own_link
from .._locks import is_held, new_lock

__all__ = ["Database", "ForeignDatabase"]

T = TypeVar("T")

logger = logging.getLogger("chatpool")

_APPLICATION_ID = 0x63706C31
_SCHEMA_VERSION = 1
_BUSY_SECONDS = 2.0  # until other processes have ended their transactions, each of which takes milliseconds
_LOCK_SECONDS = 10.0
_REST_SECONDS = 5.0  # after a failure; otherwise a full disk or a busy file would hold up every call
_SALT_BYTES = 32
# The message of an error may quote a damaged file, and then be no text.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_COMPANIONS = ("-wal", "-shm", "-journal")

_SCHEMA = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    """
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        checksum INTEGER NOT NULL,
        made REAL NOT NULL,
        used REAL NOT NULL,
        facts BLOB NOT NULL,
        answer BLOB NOT NULL
    )
    """,
    "CREATE INDEX answers_made ON answers (made)",
    "CREATE INDEX answers_used ON answers (used)",
)

_Identity = Tuple[int, int]


class ForeignDatabase(Exception):
    """The file is a database of another program, or of another version: it is left as it is."""


class Database:
    """One file, for any number of threads, one of which uses it at a time.

    Args:
        path: the file.
        is_read_only: whether nothing is written, and no file is made.

    Attributes:
        salt: random bytes of this file, known once it has been opened.
    """

    def __init__(self, path: str, *, is_read_only: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.salt = b""
        self._is_read_only = is_read_only
        self._connection: Optional[sqlite3.Connection] = None
        self._identity: Optional[_Identity] = None  # of the file that the connection has open
        self._lock = new_lock()
        self._is_writable = not is_read_only
        self._rests_until = self._writes_rest_until = 0.0
        self._has_warned = False
        self._is_forking = False
        self._is_lost = False  # in a child that was forked in the middle of a transaction
        _close_before_forks(self)

    # -- its use --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Open the file.

        Raises:
            ForeignDatabase: it is none of a cache.
        """
        self.use(lambda connection: None, raises_foreign=True)

    def use(
        self, function: Callable[[sqlite3.Connection], T], *, is_write: bool = False, raises_foreign: bool = False
    ) -> Optional[T]:
        """Return what a function makes of the connection; None where the file cannot be used.

        A damaged file is set aside, and the function is called again with a new one.

        Args:
            function: it is called while the file is locked for other threads.
            is_write: whether it writes; what keeps it from that does not keep others from reading.
            raises_foreign: whether ForeignDatabase is raised.
        """
        with self._lock:
            try:
                if self._is_lost or time.monotonic() < self._rests_until:
                    return None
                try:
                    return function(self._opened())
                except _SQLITE_ERRORS as error:
                    if not (_is_damage(error) and self._set_aside(error)):
                        raise
                return function(self._opened())
            except (*_SQLITE_ERRORS, OSError, ForeignDatabase) as error:
                if raises_foreign and isinstance(error, ForeignDatabase):
                    raise
                self._rest(error, only_writes=is_write and self._connection is not None)
                return None

    def write(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Call a function in a transaction of its own; do nothing where the file cannot be written."""
        if time.monotonic() >= self._writes_rest_until and not self._is_read_only:
            self.use(lambda connection: self._write(connection, function), is_write=True)

    def _write(self, connection: sqlite3.Connection, function: Callable[[sqlite3.Connection], None]) -> None:
        if not self._is_writable:
            raise OSError(errno.EROFS, "it cannot be written")
        _in_transaction(connection, function)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_lost", True):  # a parent's connection is not this process's to close
            self._close()

    def _rest(self, error: Exception, *, only_writes: bool) -> None:
        """Leave the file alone for a while; say so once."""
        rests_until = time.monotonic() + _REST_SECONDS
        if only_writes:
            self._writes_rest_until = rests_until
        else:
            self._close()
            self._rests_until = rests_until
        if self._is_read_only and isinstance(error, FileNotFoundError):
            return  # nothing has been kept yet: a miss says so
        level = logging.DEBUG if self._has_warned else logging.WARNING
        self._has_warned = True
        verb = "written to" if only_writes else "used"
        logger.log(level, "the cache %s cannot be %s (%s): calls go on without it", self.path, verb, error)

    # -- opening --------------------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and _identity_of(self._target()) != self._identity:
            self._close()  # it was removed, or another process has set it aside
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _target(self) -> str:
        """Return the path of the file itself."""
        return resolve_own_link(self.path)

    def _open(self) -> sqlite3.Connection:
        path = self._target()
        self._is_writable = not self._is_read_only and _may_be_written(path)
        if not self._is_writable:
            _check_owner(path)
            self._identity = _identity_of(path)
            return self._open_to_read(path)
        # SQLite knows the files beside it by name: while one is opened nobody sets it aside, and nobody makes it.
        with _locked_beside(path):
            _check_owner(path)
            _create(path)
            self._identity = _identity_of(path)
            connection = _connect(f"{pathlib.Path(path).as_uri()}?mode=rw")
            try:
                self.salt = _prepare(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _open_to_read(self, path: str) -> sqlite3.Connection:
        """Open without a write: where nobody writes to the file, without a file beside it, as a folder may forbid."""
        if self._identity is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        is_quiet = not os.path.exists(f"{path}-wal")
        connection = _connect(f"{pathlib.Path(path).as_uri()}?mode=ro{'&immutable=1' if is_quiet else ''}")
        try:
            self.salt = _salt_of(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    # -- damage ---------------------------------------------------------------------------------------------

    def _set_aside(self, error: Exception) -> bool:
        """Rename a damaged file, unless another process has; return whether a new one may be opened."""
        damaged = self._identity
        self._close()
        if self._is_read_only:
            return False
        path = self._target()
        with _locked_beside(path):
            if _identity_of(path) != damaged:
                return True
            aside = f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            for ending in (*_COMPANIONS, ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{path}{ending}", f"{aside}{ending}")
        logger.warning("the cache %s is damaged (%s): it is now %s, and a new one is begun", self.path, error, aside)
        return True

    # -- forks ----------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the file, and keep other threads from opening it until the fork is done."""
        if is_held(self._lock):  # a finalizer or a signal handler forks in the middle of a transaction
            return
        self._lock.acquire()
        self._is_forking = True
        self._close()

    def after_fork_in_parent(self) -> None:
        """Let it be opened again."""
        if self._is_forking:
            self._is_forking = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Let it be opened again, unless this process has a part of the parent's transaction."""
        self._is_lost = not self._is_forking
        self._is_forking = False
        self._lock = new_lock()


# -- connections ------------------------------------------------------------------------------------------------


def _connect(uri: str) -> sqlite3.Connection:
    # isolation_level=None: transactions begin where it is said, and at no other moment.
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection) -> bytes:
    """Make the tables of a new file; return the salt."""
    connection.execute("PRAGMA synchronous=NORMAL")  # what was kept survives the death of a process
    if not _is_ours(connection):
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        with contextlib.suppress(sqlite3.OperationalError):  # another process is in it: the next one that opens it does
            connection.execute("PRAGMA journal_mode=WAL")
        _in_transaction(connection, _make_tables)
    return _salt_of(connection)


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Return whether the tables are there; False for an empty file.

    Raises:
        ForeignDatabase: there are others.
    """
    ((application, version, tables),) = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
        "FROM pragma_application_id, pragma_user_version"
    ).fetchall()
    if (application, version) == (_APPLICATION_ID, _SCHEMA_VERSION):
        return True
    if tables or application or version:
        another = "another version of chatpool" if application == _APPLICATION_ID else "another program"
        raise ForeignDatabase(f"it is a database of {another}")
    return False


def _make_tables(connection: sqlite3.Connection) -> None:
    if _is_ours(connection):  # another process was first
        return
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO settings VALUES ('salt', ?)", (secrets.token_bytes(_SALT_BYTES),))
    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")


def _salt_of(connection: sqlite3.Connection) -> bytes:
    if not _is_ours(connection):
        raise sqlite3.DatabaseError("there is nothing in it")
    rows = connection.execute("SELECT value FROM settings WHERE name='salt'").fetchall()
    if len(rows) != 1 or not isinstance(rows[0][0], bytes) or len(rows[0][0]) != _SALT_BYTES:
        raise sqlite3.DatabaseError("its salt is not there")
    salt: bytes = rows[0][0]
    return salt


def _in_transaction(connection: sqlite3.Connection, function: Callable[[sqlite3.Connection], None]) -> None:
    if connection.in_transaction:
        raise sqlite3.OperationalError("this thread is in the middle of another transaction")
    try:  # before it begins: Ctrl-C may come right after that, and others would wait for its end
        connection.execute("BEGIN IMMEDIATE")
        function(connection)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # there may be none
            connection.execute("ROLLBACK")
        raise


def _is_damage(error: Exception) -> bool:
    """Return whether an error says that the file is damaged, or no database at all."""
    # SQLITE_CORRUPT and SQLITE_NOTADB are of this very class; a full disk, a lock and others are of subclasses.
    return type(error) is sqlite3.DatabaseError or isinstance(error, UnicodeDecodeError)


# -- files --------------------------------------------------------------------------------------------------------


def _may_be_written(path: str) -> bool:
    """Return whether a file may be written, or made where there is none."""
    while True:
        before = _identity_of(path)
        may_be = before is None or os.access(path, os.W_OK)
        if _identity_of(path) == before:
            return may_be


def _create(path: str) -> None:
    """Make the file, if it is not there, for this user alone; SQLite gives the files beside it the same mode."""
    # A file that is there is not opened: to close it again would end the locks of SQLite in this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | SAFE_OPEN_FLAGS, 0o600))


def _check_owner(path: str) -> None:
    """Refuse a file that another user may have put there, and links beside it.

    Raises:
        OSError: it is one, or no regular file.
    """
    for ending in _COMPANIONS:
        if os.path.islink(f"{path}{ending}"):
            raise PermissionError(errno.EPERM, f"there is a link beside it, {path}{ending}")
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if hasattr(os, "geteuid"):
        folder = os.stat(os.path.dirname(path))
        if status.st_uid not in (os.geteuid(), 0, folder.st_uid):
            raise PermissionError(errno.EPERM, "it belongs to another user")


def _identity_of(path: str) -> Optional[_Identity]:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _locked_beside(path: str) -> Iterator[None]:
    """Within the block, keep other threads and processes from opening the same file, and from setting it aside."""
    lock_path, descriptor = f"{path}.lock", None
    while descriptor is None:
        descriptor = _lock_of(lock_path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove what is open
            os.unlink(lock_path)
        os.close(descriptor)


def _lock_of(lock_path: str) -> Optional[int]:
    """Make and lock a file; return None if its last holder has removed it meanwhile."""
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | SAFE_OPEN_FLAGS, 0o600)
    try:
        if not lock_file(descriptor, timeout_seconds=_LOCK_SECONDS):
            raise OSError(errno.EBUSY, "another process holds its lock")
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == _identity_of(lock_path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


# -- forks --------------------------------------------------------------------------------------------------------

_databases: Dict[weakref.ref[Database], None] = {}  # not a WeakSet, which other threads may change meanwhile


def _close_before_forks(database: Database) -> None:
    _databases[weakref.ref(database, _databases.pop)] = None


def _each(method: Callable[[Database], None]) -> None:
    for reference in list(_databases):
        database = reference()
        if database is not None:
            method(database)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _each(Database.before_fork),
        after_in_parent=lambda: _each(Database.after_fork_in_parent),
        after_in_child=lambda: _each(Database.after_fork_in_child),
    )
