"""Received requests: how they are read from a socket, their values, and the prompts in their bodies."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

from .forms import Form, ReceivedFile, boundary_of, parse_form

__all__ = [
    "Headers",
    "MalformedRequestError",
    "RawRequest",
    "ReceivedRequest",
    "RequestReader",
    "embedding_inputs",
    "prompt_of",
    "prompts_of",
]


_MAX_HEAD_BYTES = 256 * 1024
_NOT_DECODED = object()


class MalformedRequestError(Exception):
    """The bytes on the connection are not an HTTP/1.x request."""


class Headers(Mapping[str, str]):
    """Header fields; names match in any case, values of a repeated name are joined with ``", "``."""

    __slots__ = ("_values",)

    def __init__(self, lines: List[Tuple[str, str]]) -> None:
        values: Dict[str, str] = {}
        for raw_name, value in lines:
            name = raw_name.lower()
            values[name] = f"{values[name]}, {value}" if name in values else value
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Names only: values may be keys.
        return f"<Headers {', '.join(self._values)}>"


class RawRequest(NamedTuple):
    """One request as it was read from the connection."""

    method: str
    target: str
    version: str
    headers: Headers
    raw: bytes


class ReceivedRequest:
    """One request that a :class:`FakeServer` received.

    Attributes:
        number: position among all requests of the server, from 0, in the order of arrival.
        connection: number of the connection it came on, from 1.
        time: when its last byte had arrived, in seconds of the installed clock (``chatpool.clock``).
        method: ``"POST"``, ``"GET"``, ...
        target: the request target of the first line, with the query.
        path: the target's path, without the query.
        query: the target's parameters; the last value of a repeated name.
        headers: header fields; names match in any case.
        raw: the bytes of the body.
    """

    __slots__ = (
        "_body",
        "_boundary",
        "_form",
        "connection",
        "headers",
        "method",
        "number",
        "path",
        "query",
        "raw",
        "target",
        "time",
    )

    def __init__(self, request: RawRequest, *, number: int, connection: int, time: float) -> None:
        parts = urlsplit(request.target)
        self.number = number
        self.connection = connection
        self.time = time
        self.method = request.method
        self.target = request.target
        self.path = parts.path
        self.query: Dict[str, str] = dict(parse_qsl(parts.query, keep_blank_values=True)) if parts.query else {}
        self.headers = request.headers
        self.raw = request.raw
        self._body: Any = _NOT_DECODED
        self._boundary = boundary_of(self.headers.get("content-type", ""))
        self._form: Optional[Form] = None

    @property
    def body(self) -> Any:
        """The body's JSON value, None for a body that is not JSON."""
        if self._body is _NOT_DECODED:
            try:
                # A form may be large, and is never JSON.
                self._body = json.loads(self.raw) if self._boundary is None else None
            except ValueError:
                self._body = None
        return self._body

    @property
    def form(self) -> Dict[str, Any]:
        """The fields of a multipart/form-data body, as texts; a list of texts where the name ends in ``[]``."""
        return self._parsed_form().fields

    @property
    def files(self) -> List[ReceivedFile]:
        """The files of a multipart/form-data body."""
        return self._parsed_form().files

    @property
    def prompt(self) -> str:
        """The prompt of the request: the last user message, the prompt or the input; "" without one."""
        return prompt_of(self.body) or prompt_of(self.form)

    @property
    def call_key(self) -> bytes:
        """The part that all attempts of a call share: the body but for its boundary; without one, the target."""
        raw = self.raw if self._boundary is None else self.raw.replace(self._boundary, b"")
        return raw or f"{self.method} {self.target}".encode()

    def _parsed_form(self) -> Form:
        if self._form is None:
            self._form = Form({}, []) if self._boundary is None else parse_form(self.raw, self._boundary)
        return self._form

    def __repr__(self) -> str:
        return f"<ReceivedRequest {self.number}: {self.method} {self.path} on connection {self.connection}>"


class RequestReader:
    """Reads the requests of one connection, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""

    def read(self) -> Optional[RawRequest]:
        """Return the next request, whole; None when the client has closed the connection.

        Raises:
            MalformedRequestError: the bytes are not HTTP.
            OSError: the connection failed.
        """
        head = self._head()
        if head is None:
            return None
        lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, version = lines[0].split(" ")
            fields = [_field(line) for line in lines[1:]]
        except ValueError:
            raise MalformedRequestError(f"not an HTTP request: {lines[0][:80]!r}") from None
        headers = Headers(fields)
        if headers.get("expect", "").lower() == "100-continue":
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return RawRequest(method, target, version, headers, self._body(headers))

    def _head(self) -> Optional[bytes]:
        while True:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if separator:
                self._buffer = rest
                return head
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise MalformedRequestError(f"a request head of more than {_MAX_HEAD_BYTES} bytes")
            if not self._receive():
                if self._buffer:
                    raise MalformedRequestError("the connection ended inside a request head")
                return None

    def _body(self, headers: Headers) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise MalformedRequestError(f"content-length {length!r}")
        return self._take(int(length))

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = _chunk_size(self._line())
            if not size:
                while self._line():
                    pass  # trailer fields, up to the empty line
                return
            yield self._take(size)
            self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if not self._receive():
                raise MalformedRequestError("the connection ended inside a chunked body")
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _take(self, size: int) -> bytes:
        pieces, length = [self._buffer], len(self._buffer)
        while length < size:
            piece = self._sock.recv(min(size - length, 1 << 20))
            if not piece:
                raise MalformedRequestError("the connection ended inside a request body")
            pieces.append(piece)
            length += len(piece)
        data = b"".join(pieces)
        self._buffer = data[size:]
        return data[:size]

    def _receive(self) -> bool:
        piece = self._sock.recv(65536)
        self._buffer += piece
        return bool(piece)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise MalformedRequestError(f"not the size of a chunk: {line[:80]!r}") from None


def _field(line: str) -> Tuple[str, str]:
    name, separator, value = line.partition(":")
    if not separator:
        raise ValueError(line)
    return name, value.strip()


def prompt_of(body: Any) -> str:
    """Return the prompt in a request body: the last user message, the prompt or the input; "" without one."""
    if not isinstance(body, dict):
        return ""
    if "messages" in body:
        return _last_user_text(body["messages"])
    if "prompt" in body:
        return prompts_of(body)[-1]
    return _input_text(body.get("input"))


def prompts_of(body: Any) -> List[str]:
    """Return the prompts of a /completions body: one, or one per entry of a list."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(entry, str) for entry in prompt):
        return prompt
    return [prompt if isinstance(prompt, str) else ""]


def embedding_inputs(body: Any) -> List[Any]:
    """Return the inputs of an /embeddings body, one per vector: texts or lists of tokens."""
    value = body.get("input")
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return value
    return [value]


def _last_user_text(messages: Any) -> str:
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role", "user") == "user":
            return _content_text(message.get("content"))
    return ""


def _content_text(content: Any) -> str:
    """Return the text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _input_text(value: Any) -> str:
    if isinstance(value, list) and value:
        if isinstance(value[-1], dict):
            return _last_user_text(value)
        value = value[-1]
    return value if isinstance(value, str) else ""
