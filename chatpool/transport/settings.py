"""What a transport is made of, as one immutable value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple, Union

import requests

from .auth import KeyAuth

__all__ = ["Cert", "TransportSettings", "Verify"]

Verify = Union[bool, str, None]
Cert = Union[str, Tuple[str, str], None]


@dataclass(frozen=True)
class TransportSettings:
    """Everything a :class:`~chatpool.transport.transport.Transport` needs to know.

    Args:
        base_url: where the API lives, with scheme and host, usually ending in ``/v1``.
        auth: the key.
        max_workers: threads that send at the same time; as many connections are kept.
        headers: sent with every request; None as a value takes a default header away.
        query: URL parameters of every request.
        verify: True or None checks certificates against the CA bundle of the environment
            (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE) or certifi's, a path against that file or
            directory, False not at all.
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
