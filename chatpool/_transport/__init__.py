"""One exchange with the server: requests session and adapter, deadlines, cancel, TLS."""

from .answer_file import AnswerFile
from .auth import Auth, Key, KeyAuth, RequestAuth, request_auth
from .body import OpenStream
from .exchange import Cancelled, CancelToken, StreamDeadline
from .http1 import check_headers
from .multipart import FormData
from .settings import Cert, TransportSettings, Verify
from .transport import BrokenTransport, Transport
from .urls import normalise_base_url

__all__ = [
    "AnswerFile",
    "Auth",
    "BrokenTransport",
    "CancelToken",
    "Cancelled",
    "Cert",
    "FormData",
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
