"""TCP connections: several addresses of one host, limits that the kernel keeps, and the check of an idle connection."""

from __future__ import annotations

import contextlib
import queue
import select
import signal
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import pytest
import requests

from chatpool._transport import Cancelled, CancelToken, tcp
from chatpool._transport.connections import ConnectionStack
from chatpool._transport.sockets import TLSSocket
from chatpool._transport.tcp import interleave_families
from chatpool.config import Timeout

V6, V4 = socket.AF_INET6, socket.AF_INET
HOST = "http://several.test/v1"

only_linux = pytest.mark.skipif(not tcp.LINUX, reason="elsewhere Python keeps the limits")


@pytest.fixture
def connected():
    """Both ends of a TCP connection."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def arrives(near, seconds=10):
    """Wait until something can be read; it is not read."""
    near.settimeout(seconds)
    with contextlib.suppress(ConnectionResetError):
        near.recv(1, socket.MSG_PEEK)


@only_linux
def test_an_idle_connection_is_reusable_before_and_after_data_was_read(connected):
    near, far = connected
    assert tcp.is_reusable(near)
    far.sendall(b"answer")
    arrives(near)
    assert not tcp.is_reusable(near)
    assert near.recv(3) == b"ans"
    assert not tcp.is_reusable(near)
    assert near.recv(3) == b"wer"
    assert tcp.is_reusable(near)


def test_a_connection_that_was_closed_is_not_reusable(connected):
    near, far = connected
    far.close()
    arrives(near)
    assert not tcp.is_reusable(near)


def test_a_connection_that_was_reset_is_not_reusable(connected):
    near, far = connected
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    arrives(near)
    assert not tcp.is_reusable(near)


def test_a_connection_that_was_reset_before_the_handshake_is_closed(connected):
    near, far = connected
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    context = ssl.create_default_context()
    context.sslsocket_class = TLSSocket
    with pytest.raises(ConnectionResetError) as caught:
        context.wrap_socket(near, server_hostname="localhost")
    made = [frame.frame.f_locals.get("self") for frame in caught.traceback[1:]]
    assert {sock.fileno() for sock in made if isinstance(sock, TLSSocket)} == {-1}


def test_nobody_knows_of_what_is_no_socket():
    left, right = socket.socketpair()
    with left, right:
        assert not tcp.is_reusable(left)
    assert not tcp.is_reusable(left)
    assert not tcp.is_reusable(None)


def test_a_connection_with_stray_bytes_serves_nobody_else(serve, start_transport, exchange):
    answered, sent = threading.Event(), threading.Event()

    def script(peer):
        while request := peer.read_request():
            peer.answer(request[1])
            assert answered.wait(60)
            answered.clear()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
            sent.set()

    server = serve(script)
    transport = start_transport(server.url)
    for number in range(3):
        assert exchange(transport, b"%d" % number).content == b"%d" % number
        answered.set()
        assert sent.wait(60)
        sent.clear()
    assert len(server.peers) == 3


@only_linux
def test_the_kernel_keeps_the_limits_of_a_connection(serve, start_transport, exchange, monkeypatch):
    limits = []
    real = tcp.KernelTimedSocket._set_limit

    def set_limit(self, seconds):
        limits.append((self.gettimeout(), seconds))
        real(self, seconds)
        assert self.gettimeout() is None  # it blocks as long as the kernel lets it

    monkeypatch.setattr(tcp.KernelTimedSocket, "_set_limit", set_limit)

    def script(peer):
        while request := peer.read_request():
            peer.answer(request[1])

    transport = start_transport(serve(script).url)
    for seconds in (30, 600, 30):
        exchange(transport, timeout=Timeout(attempt=seconds, connect=5))
    assert [before for before, _ in limits] == [0.0, None]  # to connect, and one limit for all that are long
    exchange(transport, timeout=Timeout(attempt=4, connect=5))
    assert limits[2:] == [(None, pytest.approx(3.4, abs=0.1))]


def test_the_least_limit_can_be_set():
    with tcp.KernelTimedSocket() as sock:
        for seconds in (1e-9, 0.0, 0.9999999, 9.9999999):
            sock._set_limit(seconds)


@pytest.fixture
def silent_exchange(serve, start_transport, exchange):
    """An exchange that is never answered; returns how long it took beyond its limit."""
    transport = start_transport(serve(lambda peer: peer.hang()).url)

    def run(seconds):
        start = time.monotonic()
        with pytest.raises(requests.exceptions.Timeout):
            exchange(transport, timeout=Timeout(attempt=seconds))
        return time.monotonic() - start - seconds

    return run


def test_the_kernels_part_of_a_limit_is_not_its_end(silent_exchange, in_thread):
    late = in_thread(lambda: silent_exchange(1.0)).result()
    assert 0 <= late < 30


@only_linux
def test_signals_do_not_put_off_the_end(silent_exchange):
    beats = []
    before = signal.signal(signal.SIGALRM, lambda *_: beats.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        late = silent_exchange(0.5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(beats) > 2
    assert late < 30


def test_an_exchange_of_many_pieces_has_one_limit(serve, start_transport, exchange):
    def script(peer):
        peer.read_request()
        while not peer.server.over.wait(0.05):
            peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    start = time.monotonic()
    with pytest.raises(requests.exceptions.Timeout, match=r"0\.3 s \(Timeout.attempt\)"):
        exchange(start_transport(serve(script).url), timeout=Timeout(attempt=0.3))
    assert time.monotonic() - start < 30


def test_a_large_request_goes_out_whole_to_a_server_that_reads_it_late(serve, start_transport, exchange):
    body = bytes(range(256)) * (32 * 1024)

    def script(peer):
        peer.server.over.wait(0.1)
        peer.answer(peer.read_request()[1])

    assert exchange(start_transport(serve(script).url), body).content == body


def test_the_last_connection_given_back_is_lent_first():
    stack = ConnectionStack(2)
    stack.put(None)
    stack.put("warm", block=False)
    assert stack.qsize() == 2
    assert stack.full()
    with pytest.raises(queue.Full):
        stack.put("another", block=False)
    assert [stack.get(), stack.get(block=False, timeout=1)] == ["warm", None]
    with pytest.raises(queue.Empty):
        stack.get(block=False)
    assert stack.empty()


@only_linux
def test_a_socket_of_nobodys_that_must_not_block_says_so():
    with tcp.KernelTimedSocket() as near, contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        near.connect(listener.getsockname())
        near.settimeout(0)
        with pytest.raises(BlockingIOError):
            near.recv(1)
        with pytest.raises(BlockingIOError):
            near.recv_into(bytearray(1))
        with pytest.raises(BlockingIOError):
            near.sendall(b" " * 100_000_000)


# -- several addresses of one host, of which some are dead ------------------------------------------------------


def echo(peer):
    while request := peer.read_request():
        peer.answer(request[1])


@pytest.fixture
def addresses(monkeypatch):
    """``addresses(port, ...)``: what the host ``several.test`` resolves to, on loopback."""
    real = socket.getaddrinfo

    def point(*ports):
        found = [(V4, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

        def resolve(host, *args, **kwargs):
            return found if host == "several.test" else real(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return point


class Tried(list):
    """Ports, and when there are two of them."""

    def __init__(self):
        super().__init__()
        self.both = threading.Event()


@pytest.fixture
def tried(monkeypatch):
    """The ports that were tried, in order."""
    ports, real = Tried(), tcp._start_attempt

    def begin(racers, info, make):
        real(racers, info, make)
        ports.append(info[4][1])
        if len(ports) == 2:
            ports.both.set()

    monkeypatch.setattr(tcp, "_start_attempt", begin)
    return ports


def refusing_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def port_of(server):
    return int(server.url.rpartition(":")[2])


def test_the_families_take_turns_and_the_good_address_goes_first():
    found = [(V6, 0, 0, "", "a"), (V6, 0, 0, "", "b"), (V6, 0, 0, "", "c"), (V4, 0, 0, "", "d"), (V4, 0, 0, "", "e")]
    assert [info[4] for info in interleave_families(found)] == ["a", "d", "b", "e", "c"]
    assert [info[4] for info in interleave_families(found, "e")] == ["e", "a", "d", "b", "c"]
    assert [info[4] for info in interleave_families(found, "gone")] == ["a", "d", "b", "e", "c"]


def test_a_dead_address_costs_a_moment_and_the_good_one_is_remembered(
    serve, full_listener, addresses, tried, start_transport, exchange
):
    dead, server = full_listener(), serve(echo)
    addresses(dead.address[1], port_of(server))
    transport = start_transport(HOST)
    started = time.monotonic()
    assert exchange(transport, b"one", timeout=Timeout(connect=60)).content == b"one"
    assert 0.2 < time.monotonic() - started < 30
    assert tried == [dead.address[1], port_of(server)]
    server.peers[0].sock.close()
    transport._session.close()
    assert exchange(transport, b"two").content == b"two"
    assert tried[2:] == [port_of(server)]


def test_an_address_that_refuses_makes_room_at_once(monkeypatch, serve, addresses, tried, start_transport, exchange):
    monkeypatch.setattr(tcp, "_ATTEMPT_DELAY_SECONDS", 60)
    server = serve(echo)
    refuses = refusing_port()
    addresses(refuses, refuses, port_of(server))
    assert exchange(start_transport(HOST), b"one", timeout=Timeout(connect=30)).content == b"one"
    assert tried == [refuses, refuses, port_of(server)]


def test_where_none_answers_the_connect_time_out_holds(full_listener, addresses, start_transport, exchange):
    addresses(full_listener().address[1], full_listener().address[1])
    started = time.monotonic()
    with pytest.raises(requests.exceptions.ConnectTimeout, match=r"Timeout\.connect"):
        exchange(start_transport(HOST), timeout=Timeout(connect=0.6, attempt=10))
    assert time.monotonic() - started > 0.5


def test_where_all_refuse_the_last_error_is_raised(addresses, start_transport, exchange):
    addresses(refusing_port(), refusing_port())
    with pytest.raises(requests.exceptions.ConnectionError, match="(?i)refused"):
        exchange(start_transport(HOST))


def test_a_cancel_ends_all_attempts(full_listener, addresses, tried, start_transport, exchange, in_thread):
    addresses(full_listener().address[1], full_listener().address[1])
    transport, token = start_transport(HOST), CancelToken()
    call = in_thread(lambda: exchange(transport, cancel=token))
    assert tried.both.wait(60)
    token.cancel()
    with pytest.raises(Cancelled):
        call.result(30)


def test_without_poll_select_does_it(monkeypatch, serve, full_listener, addresses, start_transport, exchange):
    monkeypatch.setattr(tcp, "select", SimpleNamespace(select=select.select))
    server = serve(echo)
    addresses(full_listener().address[1], port_of(server))
    assert exchange(start_transport(HOST), b"one").content == b"one"
