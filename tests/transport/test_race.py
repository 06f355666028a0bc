"""Hosts with several addresses, of which some are dead."""

from __future__ import annotations

import select
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import requests

from chatpool._transport import Cancelled, CancelToken, tcp
from chatpool._transport.tcp import interleaved
from chatpool.config import Timeout

V6, V4 = socket.AF_INET6, socket.AF_INET
HOST = "http://several.test/v1"


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
    ports, real = Tried(), tcp._begin

    def begin(racers, info, make):
        real(racers, info, make)
        ports.append(info[4][1])
        if len(ports) == 2:
            ports.both.set()

    monkeypatch.setattr(tcp, "_begin", begin)
    return ports


def refusing_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def port_of(server):
    return int(server.url.rpartition(":")[2])


def test_the_families_take_turns_and_the_good_address_goes_first():
    found = [(V6, 0, 0, "", "a"), (V6, 0, 0, "", "b"), (V6, 0, 0, "", "c"), (V4, 0, 0, "", "d"), (V4, 0, 0, "", "e")]
    assert [info[4] for info in interleaved(found)] == ["a", "d", "b", "e", "c"]
    assert [info[4] for info in interleaved(found, "e")] == ["e", "a", "d", "b", "c"]
    assert [info[4] for info in interleaved(found, "gone")] == ["a", "d", "b", "e", "c"]


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
    monkeypatch.setattr(tcp, "_HEAD_START", 60)
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


def test_a_cancel_ends_the_race(full_listener, addresses, tried, start_transport, exchange, in_thread):
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
