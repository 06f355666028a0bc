"""A model that anybody may ask at any pace, or a gateway that refuses a share of all calls at random.

``python -m benchmarks.overload.model_server SPEC`` prints its port and serves until its standard input ends.  It has
one thread and waits for nothing, so that it is never what limits a client: chat completions (whole or as a stream) and
embeddings after ``latency`` seconds, refusals at once.  ``GET /log`` tells when which status was said.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..answer import ANSWER, END, EVENT

__all__ = ["Model", "serve"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_JSON = "application/json"
_REFUSAL = json.dumps({"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}})

Entry = Tuple[float, int]
"""The time (seconds since 1970) and status of each response."""


class Model:
    """The state that all connections of the server share.

    Args:
        latency: seconds that an answer takes.
        share: of all calls, that is refused at random; 0 for none.
        hint: a header of each refusal, ``"retry-after-ms: 250"`` for instance; empty for none.
    """

    def __init__(self, latency: float, share: float = 0.0, hint: str = "") -> None:
        self.latency = latency
        self.log: List[Entry] = []
        self._share = share
        self._hint = hint
        self._random = random.Random(1)  # the same for every client

    def refusal(self) -> Optional[bytes]:
        """The response to a call that is refused, or None for one that is not."""
        if self._random.random() >= self._share:
            return None
        return _response(429, _JSON, _REFUSAL, self._hint)

    def said(self, status: int) -> None:
        """Keep what was said."""
        self.log.append((time.time(), status))


class Connection(asyncio.Protocol):
    """One connection of a client, which sends the next request when it has the response."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head, length = self._received[:end], _LENGTH.search(self._received, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self._received) >= whole:
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self._send(_response(200, _JSON, json.dumps(self._model.log)))
            return
        refusal = self._model.refusal()
        if refusal is not None:
            self._finish(head, refusal, 429)
        elif b"/embeddings" in head.split(b"\r\n", 1)[0]:
            self._later(self._model.latency, head, _response(200, _JSON, _vectors(json.loads(body))))
        elif json.loads(body).get("stream"):
            half = self._model.latency / 2
            asyncio.get_running_loop().call_later(half, self._send, _begun_stream())
            self._later(2 * half, head, _chunk(EVENT) + _chunk(END) + _chunk(""))
        else:
            self._later(self._model.latency, head, _response(200, _JSON, ANSWER))

    def _later(self, delay: float, head: bytes, response: bytes) -> None:
        asyncio.get_running_loop().call_later(delay, self._finish, head, response, 200)

    def _finish(self, head: bytes, response: bytes, status: int) -> None:
        if not self._transport.is_closing():  # a caller that has hung up was told nothing
            self._model.said(status)
        self._send(response)
        if _CLOSE.search(head):
            self._transport.close()

    def _send(self, data: bytes) -> None:
        self._transport.write(data)


def _response(status: int, kind: str, body: str, header: str = "") -> bytes:
    more = f"{header}\r\n" if header else ""
    encoded = body.encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(encoded)}\r\n{more}\r\n"
    return head.encode() + encoded


def _begun_stream() -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + _chunk(EVENT)


def _chunk(text: str) -> bytes:
    encoded = text.encode()
    return f"{len(encoded):x}\r\n".encode() + encoded + b"\r\n"


def _vectors(body: Mapping[str, Any]) -> str:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data: List[Dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": [float(len(text)), 0.5]}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return json.dumps({"object": "list", "model": "e", "data": data, "usage": usage})


async def serve(spec: Mapping[str, Any]) -> None:
    """Serve until standard input ends."""
    model, loop = Model(**spec), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(model), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
