"""Connections are kept, shared and replaced as they should be."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading

import pytest
import requests
import urllib3.connectionpool

from chatpool._transport.adapter import TransportAdapter
from chatpool._transport.exchange import Exchange, Resolver
from chatpool._transport.tcp import keep_alive_options, open_connection
from chatpool._transport.tls import choose_trust
from chatpool.config import Timeout


def echo(peer):
    while True:
        request = peer.read_request()
        if request is None or not peer.answer(request[1]):
            return


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_connection_is_used_again(tls, serve, start_transport, exchange):
    server = serve(echo, tls=tls)
    transport = start_transport(server.url)
    for number in range(20):
        assert exchange(transport, b"%d" % number).content == b"%d" % number
    assert len(server.peers) == 1


def test_a_huge_number_of_workers_takes_no_time_of_its_own(serve, start_transport, exchange):
    server = serve(echo)
    assert exchange(start_transport(server.url, max_workers=10**20), b"a").content == b"a"


def test_as_many_connections_as_workers_are_kept(serve, start_transport, exchange, in_thread, caplog):
    server = serve(echo)
    transport = start_transport(server.url, max_workers=4)

    def work():
        for _ in range(50):
            exchange(transport)

    with caplog.at_level(logging.WARNING):
        for one in [in_thread(work) for _ in range(4)]:
            one.result()
    assert len(server.peers) <= 4
    assert caplog.records == []


def test_more_threads_than_workers_raise_no_warning(serve, start_transport, exchange, in_thread, caplog):
    together = threading.Barrier(6)

    def script(peer):
        while peer.read_request():
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(60)
            peer.answer(b"{}")

    transport = start_transport(serve(script).url, max_workers=2)
    with caplog.at_level(logging.WARNING):
        for one in [in_thread(lambda: exchange(transport)) for _ in range(6)]:
            one.result()
    assert caplog.records == []


def test_an_idle_connection_that_the_server_has_closed_is_replaced(serve, start_transport, exchange):
    closed = threading.Event()

    def script(peer):
        peer.answer(peer.read_request()[1])
        peer.carrier.close()
        closed.set()

    server = serve(script)
    transport = start_transport(server.url)
    for number in range(3):
        closed.clear()
        assert exchange(transport, b"%d" % number).content == b"%d" % number
        assert closed.wait(60)
    assert len(server.peers) == 3


@pytest.fixture
def unseen_close(monkeypatch):
    """A server's close that comes after the look at the idle connection and before the request."""
    monkeypatch.setattr(urllib3.connectionpool, "is_connection_dropped", lambda conn: False)


def answers_first_then(ending):
    """The first connection serves one request and ends, later ones go on."""

    def script(peer):
        first = peer is peer.server.peers[0]
        while True:
            request = peer.read_request()
            if request is None:
                return
            peer.server.requests.append(request)
            peer.answer(request[1])
            if first:
                ending(peer)
                peer.server.ended.set()
                return

    return script


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_request_that_was_never_delivered_is_sent_again(tls, serve, start_transport, exchange, unseen_close):
    server = serve(answers_first_then(lambda peer: peer.reset()), tls=tls)
    server.requests, server.ended = [], threading.Event()
    transport = start_transport(server.url)
    exchange(transport, b"first")
    assert server.ended.wait(60)
    assert exchange(transport, b"second").content == b"second"
    assert [body for _, body in server.requests] == [b"first", b"second"]


def test_a_request_that_may_have_been_processed_is_not_sent_again(serve, start_transport, exchange, unseen_close):
    def half_close(peer):
        peer.sock.shutdown(socket.SHUT_WR)  # the request still goes out, and arrives
        peer.read_request()

    server = serve(answers_first_then(half_close))
    server.requests, server.ended = [], threading.Event()
    transport = start_transport(server.url)
    exchange(transport, b"first")
    with pytest.raises(requests.exceptions.ConnectionError):
        exchange(transport, b"second")
    assert len(server.peers) == 1


def test_a_new_connection_that_breaks_is_an_attempt(serve, start_transport, exchange):
    server = serve(lambda peer: peer.reset())
    with pytest.raises(requests.exceptions.ConnectionError):
        exchange(start_transport(server.url), b" " * 1_000_000)
    assert len(server.peers) == 1


def test_an_upload_cut_short_does_not_spoil_the_connection(serve, start_transport, exchange):
    def script(peer):
        if peer is peer.server.peers[0]:
            peer.read()
            peer.answer(b"too large", status="413 Content Too Large")
            peer.carrier.shutdown(socket.SHUT_RDWR)
        else:
            echo(peer)

    transport = start_transport(serve(script).url)
    with contextlib.suppress(requests.exceptions.ConnectionError):
        assert exchange(transport, b" " * 30_000_000).status == 413
    assert exchange(transport, b"next").content == b"next"


def test_connections_are_kept_alive(serve):
    server = serve(lambda peer: peer.hang())
    exchange = Exchange(Timeout(), (), Resolver())
    with open_connection(exchange, ("127.0.0.1", server.port), keep_alive_options()) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_only_options_that_the_platform_knows_are_set(monkeypatch):
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_KEEPALIVE"):
        monkeypatch.delattr(socket, name, raising=False)
    assert keep_alive_options() == [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]


def test_a_closed_transport_sends_nothing(serve, start_transport, exchange):
    from chatpool._transport import Cancelled

    server = serve(echo)
    transport = start_transport(server.url)
    transport.close()
    with pytest.raises(Cancelled, match="closed"):
        exchange(transport)
    assert server.peers == []


def test_an_exchange_under_way_survives_close(serve, start_transport, exchange, in_thread):
    def script(peer):
        request = peer.read_request()
        peer.server.asked.set()
        peer.server.go.wait(60)
        peer.answer(request[1])

    server = serve(script)
    server.asked, server.go = threading.Event(), threading.Event()
    transport = start_transport(server.url)
    running = in_thread(lambda: exchange(transport, b"late"))
    assert server.asked.wait(60)
    transport.close()
    server.go.set()
    assert running.result().content == b"late"


def test_two_threads_may_close_an_adapter_at_once(monkeypatch):
    adapter = TransportAdapter(2, choose_trust(None, None, trust_env=False, https=False), 1000)
    pool = adapter.poolmanager.connection_from_url("http://127.0.0.1:1")
    is_closing, closes = threading.Event(), []

    def close():
        closes.append(threading.get_ident())
        is_closing.set()
        other.join(20)

    monkeypatch.setattr(pool, "close", close)
    other = threading.Thread(target=lambda: is_closing.wait(20) and adapter.close())
    other.start()
    adapter.close()
    assert set(closes) == {threading.get_ident()}  # urllib3 1.26 closes it once more
    assert not other.is_alive()
