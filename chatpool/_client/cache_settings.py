"""``Cache``: where a pool keeps answers for later runs, and for how long."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from .._redaction import secret
from ..config import positive_int
from ..errors import ConfigurationError

__all__ = ["Cache", "CacheLike", "cache_of", "key_or_none_needed"]

_MIN_BYTES = 100_000  # an empty file has 40,000
_MAX_AGE_SECONDS = 100 * 366 * 86_400.0


@dataclass(frozen=True, init=False)
class Cache:
    """A file of answers, from which a pool answers requests that are identical to earlier ones; ``ChatPool(cache=)``.

    Any number of pools, threads and processes may use one file at a time.  A file that is damaged is renamed, and a new
    one begun; a disk that is full, or that cannot be written to, ends no call.

    Args:
        path: the file, an SQLite database, which is made if it is not there, for its user alone. Its folder has to be
            there. On a disk of this host: SQLite's locks do not work on network file systems.
        max_age: seconds after which an answer does not count any more. Default None: answers count for ever.
        max_bytes: the size of the file from which on answers are removed, first those that were not used for longest;
            100,000 or more. An answer that needs more than a quarter of it is not kept. Default None: no limit.
        account: what stands for the account in the place of the key, the organisation and the project, so that answers
            are found with another key, or without any. Needed where the key comes from a function, or ``auth=`` signs
            requests. Default None: a salted digest of these three, so that no account gets the answers of another.
        offline: True sends nothing at all: a request that has no answer in the file ends with a
            :class:`~chatpool.CacheMissError`. The file is not changed. With ``account`` no key is needed.

    Raises:
        TypeError: a value of the wrong type.
        ConfigurationError: a value out of range.
    """

    path: str
    max_age: Optional[float]
    max_bytes: Optional[int]
    account: Optional[str] = field(repr=False)
    offline: bool

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        *,
        max_age: Optional[float] = None,
        max_bytes: Optional[int] = None,
        account: Optional[str] = None,
        offline: bool = False,
    ) -> None:
        fix = object.__setattr__
        fix(self, "path", _checked_path(path))
        fix(self, "max_age", None if max_age is None else _age(max_age))
        if max_bytes is not None and positive_int("max_bytes", max_bytes) < _MIN_BYTES:
            raise ConfigurationError(f"max_bytes must be at least {_MIN_BYTES:,}, got {max_bytes:,}")
        fix(self, "max_bytes", max_bytes)
        if account is not None and not isinstance(account, str):
            raise TypeError(f"account must be a str, got {type(account).__name__}")
        if account is not None and not account.strip():
            raise ConfigurationError("account must not be empty; leave it out for the account of the key")
        fix(self, "account", secret(account))
        if not isinstance(offline, bool):
            raise TypeError(f"offline must be True or False, got {offline!r}")
        fix(self, "offline", offline)


CacheLike = Union[str, os.PathLike[str], Cache]


def cache_of(value: Optional[CacheLike]) -> Optional[Cache]:
    """Return the settings that ``cache=`` stands for, None for None.

    Raises:
        TypeError: it is neither a path nor a Cache.
        ConfigurationError: its folder is not there.
    """
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike, Cache)):
        raise TypeError(f"cache must be the path of a file, or a chatpool.Cache, got {type(value).__name__}")
    cache = value if isinstance(value, Cache) else Cache(value)
    folder = os.path.dirname(os.path.abspath(cache.path))
    if not os.path.isdir(folder):
        raise ConfigurationError(f"cache: there is no folder {folder}: make it, or name another file")
    if os.path.isdir(cache.path):
        raise ConfigurationError(f"cache: {cache.path} is a folder; add a file name")
    return cache


def key_or_none_needed(cache: Optional[Cache], key: Any, signs_in: Any) -> Any:
    """Return the key; something in its place where there is none, and it is needed neither to send nor to look up."""
    if key is None and signs_in is None and cache is not None and cache.offline and cache.account is not None:
        return "offline"
    return key


def _checked_path(path: object) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the path of a file, got {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("path must be a str or a path of that kind, got one of bytes")
    if not text or "\0" in text:
        raise ConfigurationError(f"path must be the path of a file, got {text!r}")
    return text


def _age(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"max_age must be a number of seconds, got {value!r}")
    if not 0 < value <= _MAX_AGE_SECONDS:
        raise ConfigurationError(f"max_age must be more than 0 seconds, got {value!r}; None means for ever")
    return float(value)
