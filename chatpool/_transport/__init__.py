"""One exchange with the server: requests session and adapter, deadlines, cancel, TLS."""

from .answer_file import AnswerFile
from .auth import Auth, Key, KeyAuth, RequestAuth, request_auth
from .body import OpenStream
from .exchange import Cancelled, CancelToken, StreamDeadline
from .http1 import check_headers
from .request_body import Encoded, identity_of, payload_of, with_files_of
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
    "Encoded",
    "Key",
    "KeyAuth",
    "OpenStream",
    "RequestAuth",
    "StreamDeadline",
    "Transport",
    "TransportSettings",
    "Verify",
    "check_headers",
    "identity_of",
    "normalise_base_url",
    "payload_of",
    "request_auth",
    "with_files_of",
]
