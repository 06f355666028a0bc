"""A cancel wakes the exchanges of its token, wherever they are blocked, and touches nothing else."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

import pytest
import requests

from chatpool._transport import Cancelled, CancelToken
from chatpool.config import Timeout

pytestmark = pytest.mark.faults

LIMIT = 600  # seconds: no test takes so long, whatever ends an exchange is not its limit


def silent(peer):
    peer.read_request()
    peer.server.asked.set()
    peer.hang()


def stalled_body(peer):
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n{")
    peer.server.asked.set()
    peer.hang()


def unread_upload(peer):
    peer.read()
    peer.server.asked.set()
    peer.hang()


def hung_handshake(peer):
    peer.read()
    peer.server.asked.set()
    peer.hang()


def hung_tunnel(peer):
    peer.read_request()
    peer.send(b"HTTP/1.1 200 Connection established\r\n")
    peer.server.asked.set()
    peer.hang()


def echo(peer):
    while True:
        request = peer.read_request()
        if request is None or not peer.answer(request[1]):
            return


@pytest.fixture
def cancelled_in_time(exchange, in_thread, record_property):
    """``cancelled_in_time(transport, blocked)``: cancels once ``blocked`` is set; the exchange must end."""

    def check(transport, blocked, *, end=None, body=b"{}"):
        token = CancelToken()
        limits = Timeout(connect=LIMIT, attempt=LIMIT)
        running = in_thread(lambda: exchange(transport, body, cancel=token, timeout=limits))
        assert blocked.wait(60)
        start = time.monotonic()
        (end or token.cancel)()
        with pytest.raises(Cancelled):
            running.result()
        record_property("wake_up", round(time.monotonic() - start, 4))

    return check


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("script", [silent, stalled_body, unread_upload], ids=lambda script: script.__name__)
def test_cancelling_wakes_a_transfer(script, tls, serve, start_transport, cancelled_in_time):
    server = serve(script, tls=tls)
    server.asked = threading.Event()
    body = b" " * (32 * 1024 * 1024) if script is unread_upload else b"{}"
    cancelled_in_time(start_transport(server.url), server.asked, body=body)


def test_cancelling_wakes_a_tls_handshake(serve, start_transport, cancelled_in_time):
    server = serve(hung_handshake)
    server.asked = threading.Event()
    cancelled_in_time(start_transport(server.url.replace("http:", "https:")), server.asked)


def test_cancelling_wakes_a_tunnel(serve, start_transport, cancelled_in_time):
    proxy = serve(hung_tunnel)
    proxy.asked = threading.Event()
    cancelled_in_time(start_transport("https://api.test", proxies={"https": proxy.url}), proxy.asked)


def test_cancelling_wakes_a_tcp_connect(full_listener, start_transport, cancelled_in_time, monkeypatch):
    connecting = threading.Event()
    address = full_listener().address

    def getaddrinfo(host, port, family, kind, protocol, flags):
        connecting.set()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    cancelled_in_time(start_transport("http://api.test"), connecting)


def test_cancelling_wakes_a_name_resolution(start_transport, cancelled_in_time, monkeypatch):
    resolving, over = threading.Event(), threading.Event()

    def getaddrinfo(host, port, family, kind, protocol, flags):
        if not flags:
            resolving.set()
            over.wait()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        cancelled_in_time(start_transport("http://api.test"), resolving)
    finally:
        over.set()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_aborting_wakes_an_exchange(tls, serve, start_transport, cancelled_in_time):
    server = serve(silent, tls=tls)
    server.asked = threading.Event()
    transport = start_transport(server.url)
    cancelled_in_time(transport, server.asked, end=transport.abort)


def test_aborting_wakes_all_exchanges(serve, start_transport, exchange, in_thread):
    server = serve(silent)
    server.asked = threading.Event()
    transport = start_transport(server.url, max_workers=32)
    running = [in_thread(lambda: exchange(transport)) for _ in range(32)]
    server.wait_for_connections(32)
    transport.abort()
    for one in running:
        with pytest.raises(Cancelled):
            one.result()


def test_a_cancelled_token_sends_nothing(serve, start_transport, exchange):
    server = serve(echo)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        exchange(start_transport(server.url), cancel=token)
    assert server.peers == []


def test_cancelling_leaves_other_exchanges_alone(serve, start_transport, exchange, in_thread):
    def script(peer):
        head, body = peer.read_request()
        peer.server.asked.release()
        peer.server.go.wait(60)
        peer.answer(body)

    server = serve(script)
    server.asked, server.go = threading.Semaphore(0), threading.Event()
    transport = start_transport(server.url)
    token = CancelToken()
    cancelled = in_thread(lambda: exchange(transport, b"cancelled", cancel=token))
    other = in_thread(lambda: exchange(transport, b"other"))
    for _ in range(2):
        assert server.asked.acquire(timeout=60)
    token.cancel()
    with pytest.raises(Cancelled):
        cancelled.result()
    server.go.set()
    assert other.result().content == b"other"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_late_cancel_leaves_the_connection_alone(tls, serve, start_transport, exchange):
    server = serve(echo, tls=tls)
    transport = start_transport(server.url)
    token = CancelToken()
    exchange(transport, b"first", cancel=token)
    token.cancel()
    assert exchange(transport, b"second").content == b"second"
    assert len(server.peers) == 1


def test_a_body_that_ends_with_its_connection_is_not_whole_because_of_a_cancel(serve, start_transport, exchange):
    token = CancelToken()

    def script(peer):
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n{}")
        token.cancel()
        peer.hang()

    with pytest.raises(Cancelled):
        exchange(start_transport(serve(script).url), cancel=token)


WORKERS = 8


@pytest.mark.parametrize("tls", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "tls"])
@pytest.mark.parametrize("ending", ["deadline", "cancel"])
@pytest.mark.parametrize("rounds", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_exchanges_that_end_around_their_completion_harm_nobody(
    rounds, ending, tls, serve, start_transport, exchange, in_thread
):
    def script(peer):
        while True:
            request = peer.read_request()
            if request is None:
                return
            _, body = request
            if body.startswith(b"doomed"):
                peer.server.over.wait(0.002)
            if not peer.answer(body):
                return

    server = serve(script, tls=tls)
    transport = start_transport(server.url, max_workers=WORKERS)

    def doomed(body, seconds):
        token = CancelToken()
        timeout = Timeout(attempt=seconds if ending == "deadline" else 30)
        canceller = threading.Timer(seconds, token.cancel)
        if ending == "cancel":
            canceller.start()
        with contextlib.suppress(requests.exceptions.Timeout, Cancelled):
            assert exchange(transport, body, cancel=token, timeout=timeout).content == body
            return 1
        return 0

    def work(worker):
        chance, typical_seconds = random.Random(worker), 0.003
        completed = 0
        for number in range(rounds):
            body = f"{worker}-{number}".encode()
            was_completed = doomed(b"doomed" + body, typical_seconds * (0.5 + chance.random()))
            # It follows the speed of the machine.
            typical_seconds *= 0.8 if was_completed else 1.25
            completed += was_completed
            assert exchange(transport, body, timeout=Timeout(attempt=30, connect=30)).content == body
        return completed

    running = [in_thread(lambda worker=worker: work(worker)) for worker in range(WORKERS)]
    completed = sum(one.result(300) for one in running)
    # Otherwise nothing ended around its completion.
    assert 0 < completed < WORKERS * rounds


def test_nothing_leaves_a_tls_connection_in_plain_text(serve, start_transport, exchange, in_thread):
    def slow_echo(peer):
        while True:
            request = peer.read_request()
            if request is None or peer.server.over.wait(0.002) or not peer.answer(request[1]):
                return

    server = serve(slow_echo, tls=True)
    streams = []

    def tap(peer):
        streams.append(peer)
        upstream = socket.create_connection(("127.0.0.1", server.port))

        def back():
            with contextlib.suppress(OSError):
                while data := upstream.recv(65536):
                    peer.sock.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        with contextlib.closing(upstream):
            while data := peer.read():
                upstream.sendall(data)

    tapped = serve(tap)
    transport = start_transport(tapped.url.replace("http:", "https:"), max_workers=WORKERS)

    def work(worker):
        chance = random.Random(worker)
        for _ in range(40):
            token = CancelToken()
            threading.Timer(0.01 * chance.random(), token.cancel).start()
            with contextlib.suppress(Cancelled):
                exchange(transport, b"a secret prompt" * 1000, cancel=token)

    for one in [in_thread(lambda worker=worker: work(worker)) for worker in range(WORKERS)]:
        one.result()
    assert len(streams) > WORKERS  # some were cancelled
    for peer in streams:
        assert_only_tls_records(peer.received)


def assert_only_tls_records(stream):
    """Every byte belongs to a TLS record (RFC 8446, 5.1); the last may be cut."""
    while len(stream) >= 5:
        kind, version, length = stream[0], stream[1:3], int.from_bytes(stream[3:5], "big")
        assert kind in (20, 21, 22, 23), stream[:80]
        assert version in (b"\3\1", b"\3\3"), stream[:80]
        stream = stream[5 + length :]
