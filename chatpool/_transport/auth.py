"""What signs requests in: an API key, or a user's auth object; by the ``auth=`` hook of requests, shown nowhere."""

from __future__ import annotations

import inspect
import json
import threading
from typing import Any, Callable, Iterable, Mapping, Optional, Tuple, TypeVar, Union
from urllib.parse import unquote_plus, urlsplit

from requests.auth import AuthBase, HTTPBasicAuth
from requests.models import PreparedRequest

from .._locks import new_lock
from .._redaction import secret
from .._reentrancy import runs_user_code
from ..errors import ChatPoolError, ConfigurationError
from .http1 import check_headers, header_problem

__all__ = ["Auth", "Key", "KeyAuth", "RequestAuth", "request_auth"]

Key = Union[str, Callable[[], str], None]
Auth = Union[Callable[[PreparedRequest], PreparedRequest], Tuple[str, str], None]
"""A requests auth object (``requests.auth.AuthBase``, or any function of its form), or a (user, password) pair."""

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

    def identity(self) -> Tuple[str, Optional[str]]:
        """Return the header and the key that is sent in it, to be digested; None where it is not known."""
        return self._header, self._key

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


class RequestAuth(KeyAuth):
    """Lets a user's auth object set what it likes on each request; shows neither it nor what it has set.

    Args:
        auth: takes a request and returns it; called for every attempt, by several threads at once.
        name: the argument it was passed as, for messages.

    A pickle has it where it is a function, pickled by its name; any other object may hold a secret.
    """

    def __init__(self, auth: Callable[[PreparedRequest], PreparedRequest], name: str = "auth") -> None:
        super().__init__(None)
        self._auth = auth
        self._name = name
        self._for_a_child = False

    @runs_user_code
    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Have a prepared request signed."""
        before, url_before = dict(r.headers), r.url
        try:
            signed: Any = self._auth(r)
        except ChatPoolError:
            raise
        except Exception as error:
            # Its message may hold anything, the secret included.
            raise ConfigurationError(
                f"{self._name}, which signs requests, raised {type(error).__name__}; nothing was sent"
            ) from error
        if not isinstance(signed, PreparedRequest):
            raise ConfigurationError(
                f"{self._name} must return the request that it was given, got {type(signed).__name__}"
            )
        headers = {name: value for name, value in signed.headers.items() if value is None or before.get(name) != value}
        self._check(headers)
        for name in [name for name, value in headers.items() if value is None]:
            del signed.headers[name], headers[name]
        self._sent.headers = headers
        self._sent.words = (*_words_of(headers), *_new_parameters(url_before, signed.url))
        return signed

    def _check(self, headers: Mapping[str, Any]) -> None:
        try:
            check_headers(self._name, headers)
        except TypeError as error:
            raise ConfigurationError(f"{error}; nothing was sent") from None

    def sign_again(self, r: PreparedRequest) -> None:
        """Have a request signed that goes to another URL than the one that this thread has had signed last."""
        for name in getattr(self._sent, "headers", ()):
            r.headers.pop(name, None)
        r.prepare_auth(self)

    def scrub(self, text: Text) -> Text:
        """Return ``text`` without what was set on the request that this thread has sent last."""
        for word in getattr(self._sent, "words", ()):
            text = text.replace(word, "***") if isinstance(text, str) else text.replace(word.encode(), b"***")
        return super().scrub(text)

    def for_child(self) -> RequestAuth:
        """Return the same for a child process of this one, which gets it as it is."""
        other = RequestAuth(self._auth, self._name)
        other._for_a_child = True
        return other

    def __reduce__(self) -> Any:
        if not (self._for_a_child or inspect.isroutine(self._auth)):
            raise ConfigurationError(
                f"{self._name}= may hold a secret, and secrets are not pickled: pass a function of a module, or make "
                "the pool where it is used"
            )
        return RequestAuth, (self._auth, self._name)

    def __repr__(self) -> str:
        return f"RequestAuth({getattr(self._auth, '__qualname__', None) or type(self._auth).__name__})"


def request_auth(auth: Any, name: str = "auth") -> Optional[RequestAuth]:
    """Return the auth object that ``auth=`` stands for, None for None.

    Raises:
        TypeError: it is none; the message does not show it.
    """
    if auth is None or isinstance(auth, RequestAuth):
        return auth
    if isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str) for part in auth):
        return RequestAuth(HTTPBasicAuth(auth[0], secret(auth[1])), name)
    if isinstance(auth, type) or not callable(auth):
        got = f"the class {auth.__name__} itself" if isinstance(auth, type) else f"a value of {type(auth).__name__}"
        raise TypeError(
            f"{name} must be a requests auth object, a function that takes a PreparedRequest and returns it, or a "
            f"(user, password) pair, got {got}"
        )
    return RequestAuth(auth, name)


def _words_of(headers: Mapping[str, Any]) -> Tuple[str, ...]:
    """Return the values of headers, and their last words, which are keys and signatures as a rule."""
    values = [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in headers.values()]
    return _secrets_of(word for value in values for word in (value, *value.split()[-1:]))


def _new_parameters(url_before: Optional[str], url: Optional[str]) -> Tuple[str, ...]:
    """Return the values of parameters that only the second URL has, as they are and as they stand in it."""
    queries = [urlsplit(each or "").query for each in (url_before, url)]
    before, after = ({part.partition("=")[2] for part in query.split("&")} for query in queries)
    return _secrets_of(word for value in after - before for word in (value, unquote_plus(value)))


def _secrets_of(words: Iterable[str]) -> Tuple[str, ...]:
    return tuple(secret(word) for word in words if len(word) >= _MIN_SECRET_CHARS)


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
