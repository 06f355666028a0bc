"""Ways to talk to a FakeServer without the client that is built on top of it."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import ExitStack
from typing import Any, Callable, Iterator, NamedTuple

import pytest
from urllib3.filepost import encode_multipart_formdata

from chatpool.testing import FakeServer


class Response(NamedTuple):
    """What http.client made of an answer."""

    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        """The body's JSON value."""
        return json.loads(self.raw)

    @property
    def text(self) -> Any:
        """What the model says."""
        return self.json["choices"][0]["message"]["content"]


def chat_body(prompt: str) -> bytes:
    """The body of a chat request."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode()


def raw_request(prompt: str = "ping") -> bytes:
    """The bytes of a chat request."""
    body = chat_body(prompt)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.fixture
def make_server() -> Iterator[Callable[..., FakeServer]]:
    """Makes servers that are closed after the test."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(FakeServer(*args, **options))


@pytest.fixture
def open_socket() -> Iterator[Callable[..., socket.socket]]:
    """Opens a plain connection to a server and sends a chat request on it."""
    with ExitStack() as stack:

        def open_one(server: FakeServer, data: bytes = raw_request()) -> socket.socket:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            sock.sendall(data)
            return sock

        yield open_one


@pytest.fixture
def connect() -> Iterator[Callable[..., http.client.HTTPConnection]]:
    """Opens an HTTP connection to a server."""
    with ExitStack() as stack:

        def open_one(server: FakeServer) -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            stack.callback(connection.close)
            return connection

        yield open_one


@pytest.fixture
def post(connect: Callable[..., http.client.HTTPConnection]) -> Callable[..., Response]:
    """Posts a body (or a prompt to the chat path) on a connection of its own."""

    def send(
        server: FakeServer, prompt: str = "ping", *, path: str = "/chat/completions", body: Any = None
    ) -> Response:
        data = chat_body(prompt) if body is None else json.dumps(body).encode()
        return exchange(connect(server), "POST", "/v1" + path, data)

    return send


@pytest.fixture
def on_connection() -> Callable[..., Response]:
    """Posts a prompt on an open HTTP connection."""

    def send(connection: http.client.HTTPConnection, prompt: str = "ping") -> Response:
        return exchange(connection, "POST", "/v1/chat/completions", chat_body(prompt))

    return send


def exchange(
    connection: http.client.HTTPConnection, method: str, target: str, data: bytes, headers: Any = None
) -> Response:
    """One request and its whole answer."""
    connection.request(method, target, body=data, headers=headers or {})
    response = connection.getresponse()
    return Response(response.status, response.headers, response.read())


@pytest.fixture
def read_all() -> Callable[[socket.socket], bytes]:
    """Reads from a socket to its end."""

    def read(sock: socket.socket) -> bytes:
        pieces = []
        while True:
            piece = sock.recv(65536)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    return read


class Api:
    """Sends requests of the API to a server, and gives its answers."""

    def __init__(self, connect: Callable[..., http.client.HTTPConnection], server: FakeServer) -> None:
        self._connect = connect
        self.server = server
        self.root = "/v1"

    def get(self, path: str) -> Response:
        """The answer to a GET."""
        return exchange(self._connect(self.server), "GET", self.root + path, b"")

    def delete(self, path: str) -> Response:
        """The answer to a DELETE."""
        return exchange(self._connect(self.server), "DELETE", self.root + path, b"")

    def post(self, path: str, body: Any = None) -> Response:
        """The answer to a POST with a JSON body, or with none."""
        data = b"" if body is None else json.dumps(body).encode()
        return exchange(self._connect(self.server), "POST", self.root + path, data)

    def form(self, path: str, fields: Any, files: Any) -> Response:
        """The answer to a POST with a form."""
        data, content_type = encode_multipart_formdata([*fields, *files])
        return exchange(self._connect(self.server), "POST", self.root + path, data, {"Content-Type": content_type})

    def upload(self, content: bytes, filename: str = "rows.jsonl", purpose: str = "batch") -> Any:
        """The object of an uploaded file."""
        return self.form("/files", [("purpose", purpose)], [("file", (filename, content))]).json

    def batch(self, rows: Any, endpoint: str = "/v1/chat/completions", **fields: Any) -> Any:
        """The object of a new batch of rows: as bytes, or as prompts whose custom_ids are row-0, row-1, ..."""
        file = self.upload(rows if isinstance(rows, bytes) else chat_rows(rows))
        body = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h", **fields}
        return self.post("/batches", body).json

    def poll(self, batch: Any, times: int = 1) -> Any:
        """The object of a batch at the last of some polls."""
        return [self.get(f"/batches/{batch['id']}").json for _ in range(times)][-1]

    def lines(self, file_id: str) -> Any:
        """The lines of a file, by custom_id."""
        lines = [json.loads(line) for line in self.get(f"/files/{file_id}/content").raw.splitlines()]
        return {line["custom_id"]: line for line in lines}


def chat_rows(prompts: Any, model: str = "m") -> bytes:
    """A file of chat requests for a batch."""
    rows = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": prompt}]},
        }
        for number, prompt in enumerate(prompts)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def api_of(connect: Callable[..., http.client.HTTPConnection]) -> Callable[[FakeServer], Api]:
    """Talks to a server in terms of the API."""
    return lambda server: Api(connect, server)
