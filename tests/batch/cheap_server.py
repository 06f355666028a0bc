"""A server that answers every request with the same completion, in one thread and with little work.

Prints its port, counts, and ends with its standard input.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
).encode()
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print(listener.getsockname()[1], flush=True)
    buffers = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                accepted = listener.accept()[0]
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(accepted, selectors.EVENT_READ)
                buffers[accepted] = b""
            else:
                serve(key.fileobj, buffers, selector)


def serve(connection, buffers, selector):
    try:
        data = connection.recv(65536)
    except ConnectionResetError:
        data = b""
    if not data:
        selector.unregister(connection)
        connection.close()
        del buffers[connection]
        return
    held = buffers[connection] + data
    while True:
        end = held.find(b"\r\n\r\n")
        if end < 0:
            break
        length = LENGTH.search(held, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(held) < whole:
            break
        held = held[whole:]
        connection.sendall(REPLY)
    buffers[connection] = held


main()
