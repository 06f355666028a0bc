"""Where the files of shared limits are, and how they are opened so that nobody else can interfere."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from pathlib import Path

from .backend import Unavailable

__all__ = ["file_for", "open_safely", "slug"]

_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_LONGEST = 40


def slug(name: str) -> str:
    """``name`` as a part of a file's name: readable, and different for different names."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub('[^A-Za-z0-9-]+', '_', name)[:_LONGEST]}-{digest}"


def file_for(name: str) -> Path:
    """The file of the limit ``name``, one for each start of the machine: the clock in it begins anew with that."""
    return _folder() / f"{slug(name)}-{_boot()}.quota"


def _folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home())
    else:
        # Not XDG_RUNTIME_DIR: cron jobs and services have none, and would keep to themselves.
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "chatpool" / "quota"


def _boot() -> str:
    """Names the start of this machine, and with it the machine: a home directory may be on several."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except (OSError, ValueError):
        return "host"


def open_safely(path: Path) -> int:
    """Open the file, made if need be, for this user only.

    Raises:
        Unavailable: it cannot be opened, or is no plain file, or others may have a hand in it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(path.parent)
        descriptor = os.open(path, _OPEN, 0o600)
    except OSError as error:
        raise Unavailable(f"{path} cannot be opened ({error.strerror or error})") from error
    try:
        _check(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_folder(folder: Path) -> None:
    if hasattr(os, "getuid"):
        found = os.stat(folder)
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unavailable(f"other users may change what is in {folder}; it should be yours, with mode 0700")


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Unavailable(f"{path} is not a plain file")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise Unavailable(f"{path} belongs to another user")
    if found.st_nlink > 1:
        raise Unavailable(f"{path} is another name of a file that is elsewhere, too")
