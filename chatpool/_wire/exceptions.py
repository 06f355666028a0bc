"""What it means when an exchange raised instead of answering."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
from typing import Any, Callable, FrozenSet, List, NamedTuple, Optional, Tuple, Type, Union

import requests
import urllib3.exceptions

from .._redaction import printable
from .._values import Verdict
from ..errors import APIConnectionError, APIError, APIResponseError, APITimeoutError
from .error_body import PROXY_CURE, shorten, without_secrets
from .rules import CURE_PROXY_LOGIN

__all__ = ["ResponseTooLarge", "UnreadableAnswer", "classify_exception"]

_Classes = Union[Type[BaseException], Tuple[Type[BaseException], ...]]


class ResponseTooLarge(Exception):
    """The answer is larger than ``max_response_bytes``.

    Not one of requests' exceptions, which are worth another attempt: the next answer would be as large.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is larger than max_response_bytes={limit:,}")


class UnreadableAnswer(http.client.HTTPException):
    """The head of an answer does not tell where it ends or how it is packed; the message quotes what it says."""


class _Failure(NamedTuple):
    """One row of the table: how an exception is recognised and what it means.

    Attributes:
        classes: the exception, or one that it wraps, is an instance of one of these;
        what: what happened, with a place for the URL.
        cure: what a person can do.
        kind: the verdict's kind.
        scope: the verdict's scope.
        error: the class of the error to make of it.
        test: what must hold for the instance beside its class; None for nothing.
        quotes: whether the exception's own words may be shown.
        about: the verdict's ``about``.
    """

    classes: _Classes
    what: str
    cure: str
    kind: str = "unavailable"
    scope: str = "call"
    error: Type[APIError] = APIConnectionError
    test: Optional[Callable[[Any], bool]] = None
    quotes: bool = False
    about: str = ""


_requests, _urllib3 = requests.exceptions, urllib3.exceptions

_NO_NETWORK = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})

_AGAIN = "run the failed items again"
_CURE_FRAMING = "tell whoever runs that server or the gateway before it: the next answer would be no better"
_CURE_URL = "check base_url: it must be a whole URL such as https://host/v1"
_CURE_TLS = "check that base_url starts with http:// or https:// as the server expects, and the proxy settings"
_CURE_CERTIFICATE = (
    "for a certificate authority of your own set verify=, REQUESTS_CA_BUNDLE or SSL_CERT_FILE to its file, "
    "otherwise check that base_url names the right host"
)
_CURE_STRICT = (
    "Python checks this since 3.13 (ssl.VERIFY_X509_STRICT), curl and older Pythons do not: have the certificate "
    "issued anew, or pass verify=context, an ssl.SSLContext for your CA file with "
    "context.verify_flags &= ~ssl.VERIFY_X509_STRICT"
)
_CURE_HOST = "check that base_url names the host that the certificate is for"
_CURE_DATE = "it has to be renewed by its owner; check this machine's clock too"
_CURE_SOCKS = 'install PySocks (pip install "requests[socks]"), or use a proxy that speaks HTTP'

# OpenSSL's X509_V_ERR_* codes.
_STRICT_CODES = frozenset(range(80, 94))  # what RFC 5280 asks for, from the path lengths to the extensions' version
_HOST_CODES = frozenset({62, 63, 64})
_DATE_CODES = frozenset({9, 10})


def _has_code(codes: FrozenSet[int]) -> Callable[[Any], bool]:
    return lambda error: getattr(error, "verify_code", None) in codes


def _is_socks_version(error: ValueError) -> bool:
    return "SOCKS version" in _text(error)


def _lacks_socks(error: Exception) -> bool:
    return "SOCKS support" in _text(error)


_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


_NO_LOGIN = frozenset({401, 407})  # tinyproxy says 401 to a wrong login, and 407 to none
_NOT_ALLOWED = frozenset({400, 403, 405, 451, 501})  # and what a server says that is no proxy


def _tunnel_refused(statuses: FrozenSet[int]) -> Callable[[Any], bool]:
    """Whether the proxy has answered CONNECT with one of ``statuses``."""

    def test(error: Any) -> bool:
        found = _TUNNEL.search(_text(error))
        return found is not None and int(found.group(1)) in statuses

    return test


def _is_of_socks(name: str, code: str = "") -> Callable[[Any], bool]:
    """Whether it is PySocks' exception of that name, with that code of RFC 1928; the package may be missing."""
    return lambda error: type(error).__name__ == name and _text(error).startswith(code)


_tunnel_forbids = _tunnel_refused(_NOT_ALLOWED)
_socks_forbids = _is_of_socks("SOCKS5Error", "0x02")


def _is_bad_header(error: ValueError) -> bool:
    # http.client, below requests, raises a plain ValueError that quotes the value.
    return isinstance(error, _requests.InvalidHeader) or "invalid header" in _text(error).lower()


_BAD_HEADER = _Failure(
    ValueError, "a header cannot be sent to {url}", "check headers=, api_key= and session=", "fail", test=_is_bad_header
)

# The first row that fits any exception of the chain wins.
_TABLE: Tuple[_Failure, ...] = (
    _BAD_HEADER,
    _Failure(
        ResponseTooLarge,
        "the answer of {url} was not read to its end",
        "raise max_response_bytes= if such an answer is no accident",
        "fail",
        error=APIResponseError,
        quotes=True,
    ),
    # Not worth another attempt either: it is how that server writes its answers.
    _Failure(
        UnreadableAnswer,
        "the answer of {url} cannot be read",
        _CURE_FRAMING,
        "fail",
        error=APIResponseError,
        quotes=True,
    ),
    _Failure(
        (_requests.InvalidProxyURL, _urllib3.ProxySchemeUnknown),
        "the proxy for {url} has no usable URL",
        PROXY_CURE,
        "fatal",
        "endpoint",
    ),
    _Failure(
        ValueError,
        "the proxy for {url} has no usable URL",
        PROXY_CURE,
        "fatal",
        "endpoint",
        test=_is_socks_version,
        quotes=True,
    ),
    _Failure(
        _requests.InvalidSchema,
        "the proxy for {url} speaks SOCKS, for which a package is missing",
        _CURE_SOCKS,
        "fatal",
        "endpoint",
        test=_lacks_socks,
    ),
    _Failure(
        (_requests.InvalidURL, _requests.MissingSchema, _requests.InvalidSchema, _urllib3.LocationValueError),
        "{url} cannot be called",
        _CURE_URL,
        "fail",
        quotes=True,
    ),
    # Certificates do not heal by themselves: every further call would meet the same one.
    _Failure(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is not made as RFC 5280 wants it",
        _CURE_STRICT,
        "fatal",
        "endpoint",
        test=_has_code(_STRICT_CODES),
        quotes=True,
    ),
    _Failure(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is for another host",
        _CURE_HOST,
        "fatal",
        "endpoint",
        test=_has_code(_HOST_CODES),
        quotes=True,
    ),
    _Failure(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is not valid at this time",
        _CURE_DATE,
        "fatal",
        "endpoint",
        test=_has_code(_DATE_CODES),
        quotes=True,
    ),
    _Failure(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is not trusted",
        _CURE_CERTIFICATE,
        "fatal",
        "endpoint",
        quotes=True,
    ),
    _Failure(
        OSError,
        "{proxy} refused to connect to {url} without another login",
        f"{CURE_PROXY_LOGIN}; {PROXY_CURE}",
        "fatal",
        "endpoint",
        test=_tunnel_refused(_NO_LOGIN),
        quotes=True,
        about="access",
    ),
    _Failure(
        OSError,
        "{proxy} does not allow connections to {url}",
        f"have the host allowed there; {PROXY_CURE}",
        "fatal",
        "endpoint",
        test=lambda error: _tunnel_forbids(error) or _socks_forbids(error),
        quotes=True,
        about="access",
    ),
    _Failure(
        OSError,
        "{proxy} refused to connect to {url} without another login",
        f"{CURE_PROXY_LOGIN.replace('http:', 'socks5h:')}; {PROXY_CURE}",
        "fatal",
        "endpoint",
        test=_is_of_socks("SOCKS5AuthError"),
        quotes=True,
        about="access",
    ),
    _Failure(
        OSError,
        "{proxy} did not take the connection to {url}",
        f"check that the proxy runs there; {PROXY_CURE}",
        test=_is_of_socks("ProxyConnectionError"),
        quotes=True,
    ),
    _Failure(
        (_requests.ProxyError, _urllib3.ProxyError),
        "{proxy} did not connect to {url}",
        PROXY_CURE,
        quotes=True,
    ),
    _Failure(
        socket.gaierror,
        "the host name in {url} cannot be resolved",
        "check base_url, the DNS and the proxy settings",
        quotes=True,
    ),
    _Failure(
        ConnectionRefusedError,
        "connection refused by {url}",
        "check that the server runs there, and base_url with its port",
    ),
    _Failure(
        OSError,
        "no network route to {url}",
        "check the network, base_url and the proxy settings",
        test=lambda error: error.errno in _NO_NETWORK,
        quotes=True,
    ),
    _Failure(
        OSError,
        "too many open files or sockets to connect to {url}",
        "raise the limit (ulimit -n) or lower max_workers",
        test=lambda error: error.errno in _NO_FILES,
    ),
    # Before the time-outs: in urllib3 1.26 it is one of their classes.
    _Failure(_urllib3.NewConnectionError, "no connection to {url}", APIConnectionError.advice, quotes=True),
    _Failure(
        (_requests.ConnectTimeout, _urllib3.ConnectTimeoutError),
        "timed out connecting to {url}",
        "check base_url, the network and the proxy settings, or raise timeout (connect)",
        error=APITimeoutError,
    ),
    _Failure(
        (_requests.Timeout, _urllib3.TimeoutError, socket.timeout, TimeoutError),
        "timed out waiting for {url}",
        APITimeoutError.advice,
        "timeout",
        error=APITimeoutError,
    ),
    _Failure(
        (ssl.SSLError, _requests.SSLError, _urllib3.SSLError),
        "the TLS connection to {url} failed",
        _CURE_TLS,
        quotes=True,
    ),
    _Failure(
        (_requests.ContentDecodingError, _urllib3.DecodeError),
        "the answer of {url} cannot be decompressed",
        _AGAIN,
        "retry",
        error=APIResponseError,
        quotes=True,
    ),
    _Failure(http.client.RemoteDisconnected, "{url} closed the connection without an answer", _AGAIN),
    _Failure(
        (ConnectionResetError, BrokenPipeError, ConnectionAbortedError),
        "the connection to {url} was reset",
        _AGAIN,
    ),
    _Failure(
        (http.client.IncompleteRead, _urllib3.IncompleteRead, _requests.ChunkedEncodingError),
        "the answer of {url} broke off",
        _AGAIN,
    ),
    _Failure(http.client.HTTPException, "what {url} sent is not HTTP", _CURE_TLS),
    _Failure(_requests.TooManyRedirects, "too many redirects from {url}", _CURE_URL, "fail"),
    _Failure(
        (_requests.RequestException, _urllib3.HTTPError, OSError),
        "the connection to {url} failed",
        APIConnectionError.advice,
        quotes=True,
    ),
)
_UNEXPECTED = _Failure(
    BaseException,
    "calling {url} raised an unexpected exception",
    "see the exception it was raised from",
    "fail",
    quotes=True,
)


def classify_exception(error: Exception, *, url: str, proxy: str = "") -> Verdict:
    """What it means that an exchange with ``url`` raised ``error``.

    The verdict's error has ``error`` as its ``__cause__``, scrubbed of requests, responses and connections.
    Failures to connect are ``"unavailable"`` even where a time limit ended them: they cost little and nothing
    was sent, so that they need not be as rare as the retries of a long attempt.

    Args:
        error: the exception.
        url: where the request went.
        proxy: the URL of the proxy it went through, without user and password; "" for none.
    """
    chain = _chain(error)
    row, culprit = _row_of(chain)
    words = f": {_words(culprit)}" if row.quotes else ""
    made = row.error(f"{_what(row, url, proxy)}{words}; {_cure(row, proxy)}")
    for link in chain:
        _scrub(link, row)
    made.__cause__ = error
    return Verdict(row.kind, row.scope, made, about=row.about)


def _what(row: _Failure, url: str, proxy: str) -> str:
    """What happened; with the proxy's name, where it may be to blame."""
    what = row.what.format(url=shorten(without_secrets(url), 200), proxy=f"the proxy {proxy}".strip())
    if not proxy or proxy in what:
        return what
    if row.what.startswith("the proxy"):
        return f"{what} ({proxy})"
    return f"{what} through the proxy {proxy}" if _may_be_the_proxy(row) else what


def _cure(row: _Failure, proxy: str) -> str:
    if not proxy or PROXY_CURE in row.cure or not _may_be_the_proxy(row):
        return row.cure
    return f"{row.cure}; or the proxy is to blame: {PROXY_CURE}"


def _may_be_the_proxy(row: _Failure) -> bool:
    return issubclass(row.error, APIConnectionError) and row.kind != "fail"


def _row_of(chain: List[BaseException]) -> Tuple[_Failure, BaseException]:
    """The row that fits, and the exception it fits."""
    for row in _TABLE:
        for link in chain:
            if isinstance(link, row.classes) and (row.test is None or row.test(link)):
                return row, link
    return _UNEXPECTED, chain[0]


def _chain(error: BaseException) -> List[BaseException]:
    """``error`` and every exception it wraps, the outermost first; each once."""
    found: List[BaseException] = []
    waiting: List[Any] = [error]
    while waiting and len(found) < 50:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and not any(link is known for known in found):
            found.append(link)
            # requests and urllib3 wrap by argument, by attribute and by raising while another is handled.
            waiting += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]
    return found


def _words(error: BaseException) -> str:
    """What the innermost exception says: the outer ones add names of objects and URLs with their queries."""
    if isinstance(error, (UnreadableAnswer, ResponseTooLarge)):
        return shorten(_text(error), 300)
    innermost = _chain(error)[-1]
    return shorten(without_secrets(f"{type(innermost).__name__}: {_text(innermost)}"), 300).rstrip(" .:")


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    try:
        return str(error)
    except Exception:  # a foreign exception's __str__ may raise anything; the words are only an extra
        return ""


def _scrub(error: BaseException, row: _Failure) -> None:
    """Take out of ``error`` what may hold a key, a header or a prompt."""
    held = getattr(error, "__dict__", {})
    for name in ("request", "response", "pool", "conn", "url"):
        if name in held:
            held[name] = None
    if row is _BAD_HEADER:
        error.args = ("a header cannot be sent",)
    else:
        error.args = tuple(printable(without_secrets(part)) if isinstance(part, str) else part for part in error.args)
    if row is not _UNEXPECTED:
        # Its frames keep the prepared request, with key and prompt, alive for as long as the error.
        error.__traceback__ = None
