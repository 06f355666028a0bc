"""TLS trust: the CA bundle, the client certificate, and the one ssl context made of them."""

from __future__ import annotations

import os
import ssl
from typing import Iterator, Optional, Tuple, Union

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from .._locks import new_lock
from ..errors import ConfigurationError
from .settings import Cert, Verify
from .sockets import TLSSocket

__all__ = ["Trust", "choose_trust"]


class Trust:
    """Certificates that servers are checked against, and the one that is shown to them.

    Args:
        verify: path of a CA file or directory, or False for no check.
        cert: client certificate as a path or a (certificate, key) pair, None without one.
        context: a context of the user's, which decides both; it gets our class of sockets.

    Attributes:
        verify: as given; True with a context of the user's.
        cert: as given.
    """

    def __init__(
        self, verify: Union[str, bool], cert: Cert = None, *, context: Optional[ssl.SSLContext] = None
    ) -> None:
        self.verify = verify
        self.cert = cert
        self._lock = new_lock()
        self._context = context
        # truststore's context has another one inside, which makes the sockets.
        for socket_maker in (context, getattr(context, "_ctx", None)):
            if isinstance(socket_maker, ssl.SSLContext):
                socket_maker.sslsocket_class = TLSSocket

    def context(self) -> ssl.SSLContext:
        """Return the context of all connections, made at the first call: loading a CA bundle costs 30 ms.

        Raises:
            ConfigurationError: a file is missing, or cannot be used.
        """
        with self._lock:
            if self._context is None:
                self._context = self._make_context()
            return self._context

    def _make_context(self) -> ssl.SSLContext:
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE)
        context.sslsocket_class = TLSSocket
        if isinstance(self.verify, str):
            parameter = "capath" if os.path.isdir(self.verify) else "cafile"
            try:
                context.load_verify_locations(**{parameter: self.verify})
            except OSError as error:
                raise ConfigurationError(f"the CA bundle {self.verify} cannot be used: {error}") from error
        if self.cert:
            certificate, key = (self.cert, None) if isinstance(self.cert, str) else self.cert
            try:
                context.load_cert_chain(certificate, key, _no_password)
            except OSError as error:
                raise ConfigurationError(f"cert={certificate} cannot be used: {error}") from error
        return context


def _no_password() -> str:
    # Without it, OpenSSL would ask on the terminal, and wait.
    raise ConfigurationError("the private key of cert= is encrypted: decrypt it first")


def choose_trust(verify: Verify, cert: Cert, *, trust_env: bool, https: bool) -> Trust:
    """Choose the CA bundle: ``verify`` > REQUESTS_CA_BUNDLE > CURL_CA_BUNDLE > SSL_CERT_FILE > certifi.

    Args:
        https: whether a file that does not exist is an error now.

    Raises:
        ConfigurationError: a file does not exist; the message names the argument or the variable.
        TypeError: ``verify`` is of the wrong type.
    """
    if isinstance(verify, ssl.SSLContext):
        if cert is not None:
            raise ConfigurationError(
                "cert= has no effect beside an ssl.SSLContext in verify=: load it there, context.load_cert_chain(...)"
            )
        return Trust(True, context=verify)
    if verify is not None and not isinstance(verify, (bool, str, os.PathLike)):
        raise TypeError(
            f"verify must be True, False, the path of a CA bundle or an ssl.SSLContext, got {type(verify).__name__}"
        )
    chosen: Union[str, bool] = False
    if verify is not False:
        source, chosen = next(_bundles(verify, trust_env))
        if https and not os.path.exists(chosen):
            raise ConfigurationError(f"{source} names a CA bundle that does not exist: {chosen}")
    if https:
        _check_cert(cert)
    return Trust(chosen, cert)


def _bundles(verify: Union[bool, str, None], trust_env: bool) -> Iterator[Tuple[str, str]]:
    if verify is not None and not isinstance(verify, bool):
        yield "verify", os.path.expanduser(os.fspath(verify))
    if trust_env:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            if os.environ.get(name):
                yield name, os.environ[name]
    yield "certifi", DEFAULT_CA_BUNDLE_PATH


def _check_cert(cert: Cert) -> None:
    paths: Tuple[Optional[str], ...] = (cert,) if isinstance(cert, (str, type(None))) else tuple(cert)
    for path in paths:
        if path is not None and not os.path.exists(path):
            raise ConfigurationError(f"cert names a file that does not exist: {path}")
