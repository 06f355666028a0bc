"""One exchange with the server: requests session and adapter, deadlines, cancel, TLS."""

from .auth import Auth, Key, KeyAuth, RequestAuth, request_auth
from .body import OpenStream
from .exchange import Cancelled, CancelToken, StreamDeadline
from .http1 import check_headers
from .settings import Cert, TransportSettings, Verify
from .transport import BrokenTransport, Transport
from .urls import normalise_base_url

__all__ = [
    "Auth",
    "BrokenTransport",
    "CancelToken",
    "Cancelled",
    "Cert",
    "Key",
    "KeyAuth",
    "OpenStream",
    "RequestAuth",
    "StreamDeadline",
    "Transport",
    "TransportSettings",
    "Verify",
    "check_headers",
    "normalise_base_url",
    "request_auth",
]
