"""Files that are read, and files that are written anew: whole or not at all, with the permissions of the old one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, BinaryIO, Iterator, Optional

__all__ = [
    "SAFE_OPEN_FLAGS",
    "NewFile",
    "atomic_replace",
    "is_write_error",
    "open_regular",
    "resolve_own_link",
    "whole_content",
    "write_error",
]

# O_BINARY: Windows would change the ends of lines.
SAFE_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags of every file that is opened to be written."""

_NOTHING_LOST = "what was finished before is kept, and the same call goes on from there once that is put right"


class NewFile:
    """A new file, ``<path>.new``, that takes the place of another one once it is whole.

    A link of the user's own stays one: its target is replaced.

    Args:
        path: the file.
        like: the file whose permissions the new one gets. Default: ``path``.

    Attributes:
        file: open for writing, until it is put in place or discarded.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: str, *, like: Optional[str] = None) -> None:
        self._target = resolve_own_link(path)
        self._new_path = f"{self._target}.new"
        descriptor = _create_file(self._new_path, like or self._target)
        self._made = os.fstat(descriptor)
        self.file: BinaryIO = open(descriptor, "wb", buffering=1 << 20)  # noqa: SIM115 - closed below

    def put_in_place(self, *, is_synced: bool = True) -> None:
        """Replace the file, by write, fsync, rename.

        Args:
            is_synced: whether it has to survive the death of the machine.

        Raises:
            OSError: it could not be written, or somebody else writes to the same file.
        """
        with self.file:
            self.file.flush()
            if is_synced:
                os.fsync(self.file.fileno())
        if not self._is_ours():
            raise OSError(errno.EBUSY, "another call is writing to it")
        os.replace(self._new_path, self._target)
        if is_synced:
            _sync_folder(self._target)

    def discard(self) -> None:
        """Remove the new file; the other one is as it was."""
        with contextlib.suppress(OSError):  # what could not be written is not wanted
            self.file.close()
        with contextlib.suppress(OSError):
            if self._is_ours():
                os.unlink(self._new_path)

    def _is_ours(self) -> bool:
        """Return whether the new file is still the one that was made here."""
        try:
            return os.path.samestat(os.stat(self._new_path, follow_symlinks=False), self._made)
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def atomic_replace(path: str, *, like: Optional[str] = None, is_synced: bool = True) -> Iterator[BinaryIO]:
    """Lend a new file, which replaces ``path`` when the block ends without an error.

    Args:
        path, like: as in :class:`NewFile`.
        is_synced: whether it has to survive the death of the machine.

    Raises:
        OSError: it could not be written; ``path`` is as it was.
    """
    new: Optional[NewFile] = None
    try:
        new = NewFile(path, like=like)
        yield new.file
        new.put_in_place(is_synced=is_synced)
    except BaseException as error:
        if new is not None:
            new.discard()
        if isinstance(error, OSError) and not is_write_error(error):
            raise write_error(error, path) from error
        raise


def _create_file(path: str, like: str) -> int:
    """Create a file, which no other process has made, with no more permissions than those of ``like``."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # left by a run that was killed; or a link, which must not be followed
    old: Optional[os.stat_result] = None
    with contextlib.suppress(FileNotFoundError):
        old = os.stat(like)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_OPEN_FLAGS, 0o666 if old is None else 0o600)
    if old is not None:
        with contextlib.suppress(OSError):  # a file system without owners or modes
            _copy_permissions(descriptor, old)
    return descriptor


def _copy_permissions(descriptor: int, old: os.stat_result) -> None:
    if not hasattr(os, "fchown"):  # Windows: new files have the permissions of their folder
        return
    mode = stat.S_IMODE(old.st_mode)
    with contextlib.suppress(OSError):
        os.fchown(descriptor, old.st_uid if os.geteuid() == 0 else -1, old.st_gid)
    if os.fstat(descriptor).st_gid != old.st_gid:  # permissions of that group are not for ours
        mode &= ~stat.S_IRWXG
    os.fchmod(descriptor, mode)


def _sync_folder(path: str) -> None:
    """Write a new name to the disk, as a part of its folder; systems that cannot open folders sync them themselves."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_regular(path: str) -> BinaryIO:
    """Open a regular file to be read; anything else, such as a pipe, might never end or never begin.

    Raises:
        OSError: it is none, or cannot be read.
        ValueError: there is a NUL in the path.
    """
    _refuse_irregular(os.stat(path).st_mode)  # before it is opened, which does something to some devices
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    try:
        _refuse_irregular(os.fstat(file.fileno()).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def whole_content(file: Any) -> Any:
    """Return all that an open file holds, from its beginning where it can be rewound: it may have been read before."""
    if getattr(file, "seekable", bool)():
        file.seek(0)
    return file.read()


def _refuse_irregular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise OSError(errno.EINVAL, f"it is {kind}; name a file")


def resolve_own_link(path: str) -> str:
    """Return the target of ``path``, if it is a link of the user's own; otherwise ``path``.

    The rule of Linux' ``fs.protected_symlinks``, in every folder: a link counts that is the user's, root's, or of the
    owner of the folder that it is in.

    Raises:
        PermissionError: another user has put the link there.
    """
    if not os.path.islink(path):
        return path
    if hasattr(os, "geteuid"):
        folder = os.path.dirname(os.path.abspath(path))
        if os.lstat(path).st_uid not in (os.geteuid(), 0, os.stat(folder).st_uid):
            raise PermissionError(errno.EPERM, "it is a link that another user has made", path)
    return os.path.realpath(path)


def write_error(error: OSError, path: str) -> OSError:
    """Return ``error`` with a message that says which file, and that nothing is lost."""
    return OSError(error.errno, f"cannot write {path}: {error.strerror or error}; {_NOTHING_LOST}")


def is_write_error(error: OSError) -> bool:
    """Return whether the message of ``error`` says already which file could not be written."""
    return (error.strerror or "").endswith(_NOTHING_LOST)
