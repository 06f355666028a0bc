"""Parse ``Limits(scope=)``: a name for one host, or the URL of a Redis with the name at its end."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from .._redaction import secret
from ..errors import ConfigurationError

__all__ = ["RedisAddress", "Scope", "parse_scope"]

_SCHEMES = ("redis", "rediss", "unix")
_FORM = (
    "Limits(scope=) must be a name, for the processes of this host, or redis://host:port/name, for those of several "
    "hosts (rediss:// with TLS, redis://host:port/2/name for its database 2, unix:///path/of/socket?name=name)"
)


class RedisAddress(NamedTuple):
    """Address of a Redis.

    Attributes:
        url: as redis-py takes it; it may hold a password.
        display_url: the same for messages, without a user, password or query.
    """

    url: str
    display_url: str

    def __repr__(self) -> str:
        return f"RedisAddress({self.display_url!r})"


class Scope(NamedTuple):
    """Group of processes that share a limit.

    Attributes:
        name: name of the limit.
        redis: where its state is; None for a file of this host.
        sharers: number of processes to assume until it is known; None where the scope does not say.
    """

    name: str
    redis: Optional[RedisAddress] = None
    sharers: Optional[int] = None


def parse_scope(scope: Any) -> Scope:
    """Return the scope that a value of ``Limits(scope=)`` names.

    Raises:
        TypeError: it is no str.
        ConfigurationError: it cannot be read; the message does not repeat it, as it may hold a password.
    """
    if not isinstance(scope, str):
        raise TypeError(f"{_FORM}, got a {type(scope).__name__}")
    if "://" not in scope:
        return Scope(_checked_name(scope))
    try:
        parts = urlsplit(scope)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{_FORM}; this URL cannot be read") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"{_FORM}, got a URL that begins with {parts.scheme}://")
    options = dict(parse_qsl(parts.query))
    sharers = _sharers(options.pop("sharers", None))
    if parts.scheme == "unix":
        name, path = options.pop("name", ""), parts.path
        display_url = f"unix://{path}"
    else:
        path, name = _database_and_name(parts.path)
        display_url = f"{parts.scheme}://{parts.hostname or 'localhost'}:{port or 6379}"
    url = urlunsplit((parts.scheme, parts.netloc, path, urlencode(options), ""))
    return Scope(_checked_name(name), RedisAddress(secret(_with_path(url, parts.scheme)), display_url), sharers)


def _with_path(url: str, scheme: str) -> str:
    # urlunsplit leaves out the empty host of a scheme that it does not know.
    return url.replace("unix:/", "unix:///", 1) if scheme == "unix" and not url.startswith("unix://") else url


def _database_and_name(path: str) -> Tuple[str, str]:
    first, _, rest = path.lstrip("/").partition("/")
    if rest and first.isdigit():
        return f"/{first}", unquote(rest)
    return "/0", unquote(path.lstrip("/"))


def _checked_name(name: str) -> str:
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ConfigurationError(f"{_FORM}; the name must have 1 to 200 printable characters")
    return name


def _sharers(value: Optional[str]) -> Optional[int]:
    if value is None:
        return None
    if not value.isdigit() or int(value) < 1:
        raise ConfigurationError(
            f"sharers= in the URL of Limits(scope=) must be a whole number of at least 1, got {value!r}"
        )
    return int(value)
