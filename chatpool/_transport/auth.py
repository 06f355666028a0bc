"""The API key: set on every request by the ``auth=`` hook of requests, shown nowhere."""

from __future__ import annotations

import json
import threading
from typing import Callable, Optional, Tuple, TypeVar, Union

from requests.auth import AuthBase
from requests.models import PreparedRequest

from .._locks import new_lock
from .._redaction import secret
from ..errors import ConfigurationError
from .http1 import header_problem

__all__ = ["Key", "KeyAuth"]

Key = Union[str, Callable[[], str], None]
Text = TypeVar("Text", str, bytes)

# Shorter ones are placeholders ("x", "no") whose replacement would only garble the server's message.
_MIN_SECRET_CHARS = 4


class KeyAuth(AuthBase):
    """Sends an API key with each request.

    As ``auth=`` of requests it also keeps a ``.netrc`` entry for the host from replacing the key.

    Args:
        key: the key, a callable that returns it (called at the first request and by :meth:`refresh`,
            never by two threads at once), or None to send none.
        header: the header that carries it.
        prefix: text before the key in that header.

    Raises:
        ConfigurationError: the key cannot be sent in a header; the message does not show it.
        TypeError: the key is neither a str nor callable.
    """

    def __init__(self, key: Key, header: str = "Authorization", prefix: str = "Bearer ") -> None:
        self._source = key if callable(key) else None
        self._lock = new_lock()
        self._sent = threading.local()
        self._header = header
        self._prefix = prefix
        self._generation = 0
        self._secrets: Tuple[str, ...] = ()
        self._others: Tuple[str, ...] = ()
        self._key: Optional[str] = None
        if key is not None and not callable(key):
            self._install(key)

    @property
    def header(self) -> Optional[str]:
        """Header that carries the key, None when no key is sent."""
        return self._header if self._source is not None or self._key is not None else None

    @property
    def refreshable(self) -> bool:
        """True if the key comes from a callable."""
        return self._source is not None

    def refresh(self) -> None:
        """Get a new key from the callable.

        Does nothing when another thread has got one since this thread last sent the key: a run whose workers are all
        rejected at once asks for one new key, not for one each.
        """
        sent_generation = getattr(self._sent, "generation", None)
        with self._lock:
            if self._source is not None and sent_generation in (None, self._generation):
                self._install(self._fetched())

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Set the key on a prepared request."""
        key = self._current()
        if key is not None:
            r.headers[self._header] = self._prefix + key
        return r

    def hide(self, value: str) -> None:
        """Scrub another key too: the last word of a header's ``value``, in which it is sent."""
        word = value.split()[-1] if value.strip() else ""
        if len(word) >= _MIN_SECRET_CHARS:
            self._others = (*self._others, secret(word))

    def scrub(self, text: Text) -> Text:
        """Return ``text`` with the key, and others that are to be hidden, replaced by ``***``."""
        for key in (*self._secrets, *self._others):
            for spelling in {key, json.dumps(key)[1:-1]}:
                if isinstance(text, str):
                    text = text.replace(spelling, "***")
                else:
                    text = text.replace(spelling.encode(), b"***")
        return text

    def _current(self) -> Optional[str]:
        if self._source is None:
            return self._key
        with self._lock:
            if self._key is None:
                self._install(self._fetched())
            self._sent.generation = self._generation
            return self._key

    def _fetched(self) -> object:
        assert self._source is not None
        try:
            return self._source()
        except Exception as error:
            # Its message may hold anything, the key of the vault included.
            raise ConfigurationError(
                f"api_key, the function that fetches the key, raised {type(error).__name__}; nothing was sent"
            ) from error

    def _install(self, key: object) -> None:
        self._key = _checked(key)
        self._generation += 1
        # The previous one may still come back in responses to requests that carry it.
        self._secrets = tuple(key for key in (self._key, *self._secrets[:1]) if len(key) >= _MIN_SECRET_CHARS)

    def after_fork_in_child(self) -> None:
        """Make a new lock: a thread of the parent may have held the old one."""
        self._lock = new_lock()

    def __repr__(self) -> str:
        kind = "no key" if self.header is None else "callable" if self.refreshable else "***"
        return f"KeyAuth({kind}, header={self._header!r})"


def _checked(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"api_key must be a str or a callable that returns one, got {type(key).__name__}")
    if not key.strip():
        raise ConfigurationError("api_key must not be empty; leave it out for a server that needs none")
    if key != key.strip():
        raise ConfigurationError("api_key must not begin or end with white space: strip the line break it came with")
    problem = header_problem(key)
    if problem:
        raise ConfigurationError(f"api_key must not contain {problem}: copy it again")
    return secret(key)
