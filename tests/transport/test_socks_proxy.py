"""Through a SOCKS proxy, which needs the extra ``requests[socks]``."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
import requests

from chatpool._transport import Cancelled, CancelToken
from chatpool._wire import classify_exception
from chatpool.config import Timeout

pytest.importorskip("socks", reason="PySocks is not installed")


def socks(peer):
    """A SOCKS 5 proxy without authentication (RFC 1928), to any name by its port on loopback."""
    peer.sock.recv(2 + 255)
    peer.send(b"\5\0")
    request = peer.sock.recv(4 + 1 + 255 + 2)
    upstream = socket.create_connection(("127.0.0.1", int.from_bytes(request[-2:], "big")))
    peer.send(b"\5\0\0\1\0\0\0\0\0\0")

    def back():
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                peer.sock.sendall(data)

    threading.Thread(target=back, daemon=True).start()
    with contextlib.closing(upstream):
        while data := peer.read():
            upstream.sendall(data)


def echo(peer):
    while request := peer.read_request():
        peer.answer(request[1])


def stalled(peer):
    peer.read_request()
    peer.server.asked.set()
    peer.drip(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_requests_go_through(tls, serve, start_transport, exchange):
    server, proxy = serve(echo, tls=tls), serve(socks)
    transport = start_transport(
        f"{server.scheme}://localhost:{server.port}", proxies={"all": f"socks5h://127.0.0.1:{proxy.port}"}
    )
    for body in (b"one", b"two"):
        assert exchange(transport, body).content == body
    assert len(proxy.peers) == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_deadlines_and_cancels_hold(tls, serve, start_transport, exchange, in_thread):
    server, proxy = serve(stalled, tls=tls), serve(socks)
    server.asked = threading.Event()
    transport = start_transport(
        f"{server.scheme}://localhost:{server.port}", proxies={"all": f"socks5h://127.0.0.1:{proxy.port}"}
    )
    start = time.monotonic()
    with pytest.raises(requests.exceptions.Timeout):
        exchange(transport, timeout=Timeout(attempt=0.3))
    assert time.monotonic() - start < 30
    server.asked.clear()
    token = CancelToken()
    running = in_thread(lambda: exchange(transport, cancel=token))
    assert server.asked.wait(60)
    token.cancel()
    with pytest.raises(Cancelled):
        running.result()


REFUSALS = {
    # What microsocks and dante say.
    "a wrong login": ([b"\5\2", b"\1\1"], "fatal", "without another login"),
    "no login": ([b"\5\xff"], "fatal", "without another login"),
    "not allowed": ([b"\5\0", b"\5\2\0\1\0\0\0\0\0\0"], "fatal", "does not allow connections"),
    "nobody there": ([b"\5\0", b"\5\5\0\1\0\0\0\0\0\0"], "unavailable", "no connection"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_of_the_proxys_is_told_from_one_of_the_server(case, serve, start_transport, exchange):
    answers, kind, said = REFUSALS[case]

    def refuse(peer):
        for answer in answers:
            peer.sock.recv(600)
            peer.send(answer)

    proxy = serve(refuse)
    transport = start_transport("http://localhost:1", proxies={"all": f"socks5h://user:secret@127.0.0.1:{proxy.port}"})
    with pytest.raises(requests.exceptions.ConnectionError) as caught:
        exchange(transport)
    verdict = classify_exception(caught.value, url="http://localhost:1", proxy=transport.proxy)
    assert verdict.kind == kind
    assert said in str(verdict.error)
    assert f"the proxy socks5h://127.0.0.1:{proxy.port}" in str(verdict.error)
    assert "secret" not in str(verdict.error)


def test_a_proxy_that_is_not_there_is_told_from_a_server_that_is_not(start_transport, exchange):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connecting is refused
        proxy = f"socks5h://127.0.0.1:{unused.getsockname()[1]}"
        transport = start_transport("http://localhost:1", proxies={"all": proxy})
        with pytest.raises(requests.exceptions.ConnectionError) as caught:
            exchange(transport)
    verdict = classify_exception(caught.value, url="http://localhost:1", proxy=transport.proxy)
    assert verdict.kind == "unavailable"
    assert f"the proxy {proxy} did not take the connection" in str(verdict.error)
