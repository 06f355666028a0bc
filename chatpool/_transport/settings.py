"""Settings of a transport, as one immutable value."""

from __future__ import annotations

import copy
import ssl
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Mapping, Optional, Tuple, Union

import requests

from .auth import KeyAuth

__all__ = ["Cert", "TransportSettings", "Verify"]

Verify = Union[bool, str, ssl.SSLContext, None]
Cert = Union[str, Tuple[str, str], None]


@dataclass(frozen=True)
class TransportSettings:
    """Settings of a :class:`~chatpool._transport.transport.Transport`.

    Args:
        base_url: URL of the API, with scheme and host, usually ending in ``/v1``.
        auth: the key, or what signs requests.
        max_workers: threads that send at the same time; as many connections are kept.
        headers: sent with every request; None as a value takes a default header away.
        query: URL parameters of every request.
        verify: True or None checks certificates against the CA bundle of the environment
            (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE) or certifi's, a path against that file or
            directory, False not at all; an ``ssl.SSLContext`` decides everything about TLS by itself.
        cert: path of a client certificate with its key in the same file, or a (certificate, key) pair.
        proxies: proxy URLs by scheme, as in requests; beats the environment.
        session: a ``requests.Session`` whose settings are copied.
        max_response_bytes: the largest body to be read, before and after decompression.
    """

    base_url: str
    auth: KeyAuth
    max_workers: int = 16
    headers: Mapping[str, Optional[str]] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    verify: Verify = None
    cert: Cert = None
    proxies: Optional[Mapping[str, str]] = None
    session: Optional[requests.Session] = None
    max_response_bytes: int = 64 * 1024 * 1024

    def for_forked_child(self) -> TransportSettings:
        """Return the same settings, sharing no connection with the process that this one was forked from."""
        if self.session is None:
            return self
        session = copy.copy(self.session)
        # An adapter of the user's shares its sockets with the parent; a copy opens new ones.
        session.adapters = OrderedDict((prefix, copy.copy(adapter)) for prefix, adapter in session.adapters.items())
        return replace(self, session=session)
