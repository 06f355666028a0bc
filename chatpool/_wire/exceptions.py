"""Classification of exceptions: what each means for the call whose exchange raised it.

A table, as :mod:`.rules` has one for error responses.
"""

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
from .error_body import PROXY_ADVICE, shorten, without_secrets
from .rules import PROXY_LOGIN_ADVICE

__all__ = ["ResponseTooLarge", "UnreadableAnswer", "classify_exception"]

_Classes = Union[Type[BaseException], Tuple[Type[BaseException], ...]]

_MAX_CHAIN = 50  # exceptions that wrap one another
_QUOTED_CHARACTERS = 300


class ResponseTooLarge(Exception):
    """The answer is larger than ``max_response_bytes``.

    Not one of requests' exceptions, which are worth another attempt: the next answer would be as large.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is larger than max_response_bytes={limit:,}")


class UnreadableAnswer(http.client.HTTPException):
    """The head of an answer does not tell where it ends or how it is compressed; the message quotes it."""


class _ExceptionRule(NamedTuple):
    """One row of the table.

    Attributes:
        classes: the exception, or one that it wraps, is an instance of one of these.
        summary: what happened, with a place for the URL.
        advice: what a person can do.
        kind: the verdict's kind.
        scope: the verdict's scope.
        error: the class of the error to make of it.
        test: must hold for the instance beside its class; None for nothing.
        quotes: whether the exception's own message may be shown.
        about: the verdict's ``about``.
    """

    classes: _Classes
    summary: str
    advice: str
    kind: str = "unavailable"
    scope: str = "call"
    error: Type[APIError] = APIConnectionError
    test: Optional[Callable[[Any], bool]] = None
    quotes: bool = False
    about: str = ""


_requests, _urllib3 = requests.exceptions, urllib3.exceptions

_NO_NETWORK = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})

_RERUN_ADVICE = "run the failed items again"
_FRAMING_ADVICE = "tell whoever runs that server or the gateway before it: the next answer would be no better"
_URL_ADVICE = "check base_url: it must be a whole URL such as https://host/v1"
_TLS_ADVICE = "check that base_url starts with http:// or https:// as the server expects, and the proxy settings"
_CERTIFICATE_ADVICE = (
    "for a certificate authority of your own set verify=, REQUESTS_CA_BUNDLE or SSL_CERT_FILE to its file, "
    "otherwise check that base_url names the right host"
)
_STRICT_ADVICE = (
    "Python checks this since 3.13 (ssl.VERIFY_X509_STRICT), curl and older Pythons do not: have the certificate "
    "issued anew, or pass verify=context, an ssl.SSLContext for your CA file with "
    "context.verify_flags &= ~ssl.VERIFY_X509_STRICT"
)
_HOST_ADVICE = "check that base_url names the host that the certificate is for"
_DATE_ADVICE = "it has to be renewed by its owner; check this machine's clock too"
_SOCKS_ADVICE = 'install PySocks (pip install "requests[socks]"), or use a proxy that speaks HTTP'

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


_TUNNEL = r"Tunnel connection failed: (\d{3})"


_NO_LOGIN = frozenset({401, 407})  # tinyproxy says 401 to a wrong login, and 407 to none
_NOT_ALLOWED = frozenset({400, 403, 405, 451, 501})  # and what a server says that is no proxy


def _tunnel_refused(statuses: FrozenSet[int]) -> Callable[[Any], bool]:
    """Return a test of an exception: the proxy has answered CONNECT with one of ``statuses``."""

    def test(error: Any) -> bool:
        match = re.search(_TUNNEL, _text(error))
        return match is not None and int(match.group(1)) in statuses

    return test


def _is_of_socks(name: str, code: str = "") -> Callable[[Any], bool]:
    """Return a test: it is PySocks' exception of that name, with that code of RFC 1928; the package may be missing."""
    return lambda error: type(error).__name__ == name and _text(error).startswith(code)


_tunnel_forbids = _tunnel_refused(_NOT_ALLOWED)
_socks_forbids = _is_of_socks("SOCKS5Error", "0x02")


def _is_bad_header(error: ValueError) -> bool:
    # http.client, below requests, raises a plain ValueError that quotes the value.
    return isinstance(error, _requests.InvalidHeader) or "invalid header" in _text(error).lower()


_BAD_HEADER = _ExceptionRule(
    ValueError,
    "a header cannot be sent to {url}",
    "check headers=, api_key=, auth= and session=",
    "fail",
    test=_is_bad_header,
)

# The first row that applies to any exception of the chain wins.
_RULES: Tuple[_ExceptionRule, ...] = (
    _BAD_HEADER,
    _ExceptionRule(
        ResponseTooLarge,
        "the answer of {url} was not read to its end",
        "raise max_response_bytes= if such an answer is no accident",
        "fail",
        error=APIResponseError,
        quotes=True,
    ),
    # Not worth another attempt either: it is how that server writes its answers.
    _ExceptionRule(
        UnreadableAnswer,
        "the answer of {url} cannot be read",
        _FRAMING_ADVICE,
        "fail",
        error=APIResponseError,
        quotes=True,
    ),
    _ExceptionRule(
        (_requests.InvalidProxyURL, _urllib3.ProxySchemeUnknown),
        "the proxy for {url} has no usable URL",
        PROXY_ADVICE,
        "fatal",
        "endpoint",
    ),
    _ExceptionRule(
        ValueError,
        "the proxy for {url} has no usable URL",
        PROXY_ADVICE,
        "fatal",
        "endpoint",
        test=_is_socks_version,
        quotes=True,
    ),
    _ExceptionRule(
        _requests.InvalidSchema,
        "the proxy for {url} speaks SOCKS, for which a package is missing",
        _SOCKS_ADVICE,
        "fatal",
        "endpoint",
        test=_lacks_socks,
    ),
    _ExceptionRule(
        (_requests.InvalidURL, _requests.MissingSchema, _requests.InvalidSchema, _urllib3.LocationValueError),
        "{url} cannot be called",
        _URL_ADVICE,
        "fail",
        quotes=True,
    ),
    # Certificates do not heal by themselves: every further call would meet the same one.
    _ExceptionRule(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is not made as RFC 5280 wants it",
        _STRICT_ADVICE,
        "fatal",
        "endpoint",
        test=_has_code(_STRICT_CODES),
        quotes=True,
    ),
    _ExceptionRule(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is for another host",
        _HOST_ADVICE,
        "fatal",
        "endpoint",
        test=_has_code(_HOST_CODES),
        quotes=True,
    ),
    _ExceptionRule(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is not valid at this time",
        _DATE_ADVICE,
        "fatal",
        "endpoint",
        test=_has_code(_DATE_CODES),
        quotes=True,
    ),
    _ExceptionRule(
        ssl.SSLCertVerificationError,
        "the TLS certificate of {url} is not trusted",
        _CERTIFICATE_ADVICE,
        "fatal",
        "endpoint",
        quotes=True,
    ),
    _ExceptionRule(
        OSError,
        "{proxy} refused to connect to {url} without another login",
        f"{PROXY_LOGIN_ADVICE}; {PROXY_ADVICE}",
        "fatal",
        "endpoint",
        test=_tunnel_refused(_NO_LOGIN),
        quotes=True,
        about="access",
    ),
    _ExceptionRule(
        OSError,
        "{proxy} does not allow connections to {url}",
        f"have the host allowed there; {PROXY_ADVICE}",
        "fatal",
        "endpoint",
        test=lambda error: _tunnel_forbids(error) or _socks_forbids(error),
        quotes=True,
        about="access",
    ),
    _ExceptionRule(
        OSError,
        "{proxy} refused to connect to {url} without another login",
        f"{PROXY_LOGIN_ADVICE.replace('http:', 'socks5h:')}; {PROXY_ADVICE}",
        "fatal",
        "endpoint",
        test=_is_of_socks("SOCKS5AuthError"),
        quotes=True,
        about="access",
    ),
    _ExceptionRule(
        OSError,
        "{proxy} did not take the connection to {url}",
        f"check that the proxy runs there; {PROXY_ADVICE}",
        test=_is_of_socks("ProxyConnectionError"),
        quotes=True,
    ),
    _ExceptionRule(
        (_requests.ProxyError, _urllib3.ProxyError),
        "{proxy} did not connect to {url}",
        PROXY_ADVICE,
        quotes=True,
    ),
    _ExceptionRule(
        socket.gaierror,
        "the host name in {url} cannot be resolved",
        "check base_url, the DNS and the proxy settings",
        quotes=True,
    ),
    _ExceptionRule(
        ConnectionRefusedError,
        "connection refused by {url}",
        "check that the server runs there, and base_url with its port",
    ),
    _ExceptionRule(
        OSError,
        "no network route to {url}",
        "check the network, base_url and the proxy settings",
        test=lambda error: error.errno in _NO_NETWORK,
        quotes=True,
    ),
    _ExceptionRule(
        OSError,
        "too many open files or sockets to connect to {url}",
        "raise the limit (ulimit -n) or lower max_workers",
        test=lambda error: error.errno in _NO_FILES,
    ),
    # Before the time-outs: in urllib3 1.26 it is one of their classes.
    _ExceptionRule(_urllib3.NewConnectionError, "no connection to {url}", APIConnectionError.advice, quotes=True),
    _ExceptionRule(
        (_requests.ConnectTimeout, _urllib3.ConnectTimeoutError),
        "timed out connecting to {url}",
        "check base_url, the network and the proxy settings, or raise timeout (connect)",
        error=APITimeoutError,
    ),
    _ExceptionRule(
        (_requests.Timeout, _urllib3.TimeoutError, socket.timeout, TimeoutError),
        "timed out waiting for {url}",
        APITimeoutError.advice,
        "timeout",
        error=APITimeoutError,
    ),
    _ExceptionRule(
        (ssl.SSLError, _requests.SSLError, _urllib3.SSLError),
        "the TLS connection to {url} failed",
        _TLS_ADVICE,
        quotes=True,
    ),
    _ExceptionRule(
        (_requests.ContentDecodingError, _urllib3.DecodeError),
        "the answer of {url} cannot be decompressed",
        _RERUN_ADVICE,
        "retry",
        error=APIResponseError,
        quotes=True,
    ),
    _ExceptionRule(http.client.RemoteDisconnected, "{url} closed the connection without an answer", _RERUN_ADVICE),
    _ExceptionRule(
        (ConnectionResetError, BrokenPipeError, ConnectionAbortedError),
        "the connection to {url} was reset",
        _RERUN_ADVICE,
    ),
    _ExceptionRule(
        (http.client.IncompleteRead, _urllib3.IncompleteRead, _requests.ChunkedEncodingError),
        "the answer of {url} broke off",
        _RERUN_ADVICE,
    ),
    _ExceptionRule(http.client.HTTPException, "what {url} sent is not HTTP", _TLS_ADVICE),
    _ExceptionRule(_requests.TooManyRedirects, "too many redirects from {url}", _URL_ADVICE, "fail"),
    _ExceptionRule(
        (_requests.RequestException, _urllib3.HTTPError, OSError),
        "the connection to {url} failed",
        APIConnectionError.advice,
        quotes=True,
    ),
)
_UNEXPECTED = _ExceptionRule(
    BaseException,
    "calling {url} raised an unexpected exception",
    "see the exception it was raised from",
    "fail",
    quotes=True,
)


def classify_exception(error: Exception, *, url: str, proxy: str = "") -> Verdict:
    """Return what it means for a call that its exchange with ``url`` raised ``error``.

    The verdict's error has ``error`` as its ``__cause__``, scrubbed of requests, responses and connections.
    Failures to connect are ``"unavailable"`` even where a time limit ended them: they cost little and nothing
    was sent, so that they need not be as rare as the retries of a long attempt.

    Args:
        error: the exception.
        url: where the request went.
        proxy: the URL of the proxy it went through, without user and password; "" for none.
    """
    chain = _chain(error)
    rule, match = _rule_for(chain)
    quoted = f": {_quoted_message(match)}" if rule.quotes else ""
    api_error = rule.error(f"{_summary_of(rule, url, proxy)}{quoted}; {_advice_of(rule, proxy)}")
    for link in chain:
        _scrub(link, rule)
    api_error.__cause__ = error
    return Verdict(rule.kind, rule.scope, api_error, about=rule.about)


def _summary_of(rule: _ExceptionRule, url: str, proxy: str) -> str:
    """Return what happened, with the proxy's name where the proxy may be to blame."""
    summary = rule.summary.format(url=shorten(without_secrets(url), 200), proxy=f"the proxy {proxy}".strip())
    if not proxy or proxy in summary:
        return summary
    if rule.summary.startswith("the proxy"):
        return f"{summary} ({proxy})"
    return f"{summary} through the proxy {proxy}" if _may_be_the_proxy(rule) else summary


def _advice_of(rule: _ExceptionRule, proxy: str) -> str:
    if not proxy or PROXY_ADVICE in rule.advice or not _may_be_the_proxy(rule):
        return rule.advice
    return f"{rule.advice}; or the proxy is to blame: {PROXY_ADVICE}"


def _may_be_the_proxy(rule: _ExceptionRule) -> bool:
    return issubclass(rule.error, APIConnectionError) and rule.kind != "fail"


def _rule_for(chain: List[BaseException]) -> Tuple[_ExceptionRule, BaseException]:
    """Return the first rule that applies, and the exception that it applies to."""
    for rule in _RULES:
        for link in chain:
            if isinstance(link, rule.classes) and (rule.test is None or rule.test(link)):
                return rule, link
    return _UNEXPECTED, chain[0]


def _chain(error: BaseException) -> List[BaseException]:
    """Return ``error`` and every exception it wraps, the outermost first; each once."""
    chain: List[BaseException] = []
    candidates: List[Any] = [error]
    while candidates and len(chain) < _MAX_CHAIN:
        link = candidates.pop(0)
        if isinstance(link, BaseException) and not any(link is known for known in chain):
            chain.append(link)
            # requests and urllib3 wrap by argument, by attribute and by raising while another is handled.
            candidates += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]
    return chain


def _quoted_message(error: BaseException) -> str:
    """Return the innermost exception's message: the outer ones add names of objects and URLs with their queries."""
    if isinstance(error, (UnreadableAnswer, ResponseTooLarge)):
        return shorten(_text(error), _QUOTED_CHARACTERS)
    innermost = _chain(error)[-1]
    quoted = without_secrets(f"{type(innermost).__name__}: {_text(innermost)}")
    return shorten(quoted, _QUOTED_CHARACTERS).rstrip(" .:")


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    try:
        return str(error)
    except Exception:  # a foreign exception's __str__ may raise anything; the message is only an extra
        return ""


def _scrub(error: BaseException, rule: _ExceptionRule) -> None:
    """Remove from ``error`` whatever may hold a key, a header or a prompt."""
    attributes = getattr(error, "__dict__", {})
    for name in ("request", "response", "pool", "conn", "url"):
        if name in attributes:
            attributes[name] = None
    if rule is _BAD_HEADER:
        error.args = ("a header cannot be sent",)
    else:
        error.args = tuple(printable(without_secrets(part)) if isinstance(part, str) else part for part in error.args)
    if rule is not _UNEXPECTED:
        # Its frames keep the prepared request, with key and prompt, alive for as long as the error.
        error.__traceback__ = None
