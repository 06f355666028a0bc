"""One exchange with the server: requests session and adapter, deadlines, cancel, TLS."""

from .auth import Key, KeyAuth
from .broken import BrokenTransport
from .cancel import Cancelled, CancelToken
from .deadline import Limit
from .headers import check_headers
from .settings import Cert, TransportSettings, Verify
from .streams import OpenStream
from .transport import Transport
from .urls import normalise_base_url

__all__ = [
    "BrokenTransport",
    "CancelToken",
    "Cancelled",
    "Cert",
    "Key",
    "KeyAuth",
    "Limit",
    "OpenStream",
    "Transport",
    "TransportSettings",
    "Verify",
    "check_headers",
    "normalise_base_url",
]
