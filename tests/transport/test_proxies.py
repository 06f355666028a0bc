"""Which requests go through which proxy."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading

import pytest
import requests

from chatpool import APIConnectionError, ChatPool
from chatpool._transport.urls import choose_proxies, shown_proxy
from chatpool._wire import classify_exception

API, LOCAL = "https://api.test/v1", "http://127.0.0.1:8000/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://env:1")
    monkeypatch.setenv("HTTP_PROXY", "http://env:1")


@pytest.mark.parametrize(
    ("url", "explicit", "proxy"),
    [
        (API, {}, "http://env:1"),
        (LOCAL, {}, None),
        ("http://localhost/v1", {}, None),
        ("http://[::1]:80/v1", {}, None),
        (API, {"https": "http://mine:2"}, "http://mine:2"),
        (API, {"all": "http://mine:2"}, "http://mine:2"),
        (API, {"https://api.test": "http://host:3", "https": "http://mine:2"}, "http://host:3"),
        (API, {"http": "http://mine:2"}, "http://env:1"),
        (API, {"https": None}, None),
        (API, {"https": ""}, None),
        (API, {"https": "http://mine:2", "no_proxy": "api.test"}, None),
        (API, {"no_proxy": "api.test"}, None),
        (LOCAL, {"http": "http://mine:2"}, "http://mine:2"),
        (API, {"https": "mine:2"}, "http://mine:2"),
        (API, {"https": "user:pass@mine:2"}, "http://user:pass@mine:2"),
    ],
)
def test_the_users_proxy_beats_that_of_the_environment(url, explicit, proxy):
    expected = {url.partition(":")[0]: proxy} if proxy else {}
    assert choose_proxies(url, explicit, trust_env=True) == expected


@pytest.mark.parametrize("proxy", ["socks://proxy:1080", "SOCKS://user:pass@proxy:1080/"])
def test_socks_without_a_version_is_read_as_version_5(proxy, monkeypatch):
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv("ALL_PROXY", proxy)
    expected = "socks5h" + proxy[len("socks") :]
    assert choose_proxies(API, {}, trust_env=True) == {"https": expected}
    assert choose_proxies("http://api.test/v1", {}, trust_env=True) == {"http": "http://env:1"}


@pytest.mark.parametrize(
    ("proxies", "shown"),
    [
        ({}, ""),
        ({"https": "http://proxy:3128/"}, "http://proxy:3128"),
        ({"https": "http://user:secret@proxy:3128"}, "http://proxy:3128"),
        ({"http": "socks5h://u:secret@proxy:1080"}, "socks5h://proxy:1080"),
    ],
)
def test_a_proxy_is_shown_without_its_password(proxies, shown):
    assert shown_proxy(proxies) == shown


def test_a_reply_tells_the_proxy_it_came_through(serve, start_transport, exchange):
    proxy = serve(forward)
    url = proxy.url.replace("://", "://user:pass@")
    assert exchange(start_transport("http://api.test/v1", proxies={"http": url})).proxy == proxy.url
    assert exchange(start_transport(serve(forward).url)).proxy == ""


def test_a_broken_stream_names_the_proxy_it_came_through(serve):
    def break_off(peer):
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: {")

    proxy = serve(break_off)
    with ChatPool("m", base_url="http://api.test/v1", api_key="k", proxies={"http": proxy.url}, retry=0) as pool:
        stream = pool.stream("x")
        with pytest.raises(APIConnectionError, match=f"through the proxy {proxy.url}"):
            list(stream)


def test_no_proxy_is_obeyed(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "api.test")
    assert choose_proxies(API, {}, trust_env=True) == {}


def test_the_environment_is_left_alone_without_trust_env():
    assert choose_proxies(API, {}, trust_env=False) == {}


def forward(peer):
    """A forwarding proxy that answers itself, with the head it received."""
    request = peer.read_request()
    peer.answer(request[0])


@pytest.mark.parametrize("tls", [False, True], ids=["http_proxy", "https_proxy"])
def test_a_plain_request_goes_through_a_forwarding_proxy(tls, serve, start_transport, exchange):
    proxy = serve(forward, tls=tls)
    url = proxy.url.replace("://", "://user:pass@")
    reply = exchange(start_transport("http://api.test/v1", proxies={"http": url}))
    assert reply.content.startswith(b"POST http://api.test/v1/chat/completions HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:pass") in reply.content


def tunnel(peer):
    """A CONNECT proxy."""
    head, _ = peer.read_request()
    peer.server.heads.append(head)
    upstream = socket.create_connection(("127.0.0.1", int(head.split()[1].rpartition(b":")[2])))
    peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def back():
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                peer.sock.sendall(data)

    threading.Thread(target=back, daemon=True).start()
    with contextlib.closing(upstream):
        while data := peer.read():
            upstream.sendall(data)


def test_an_encrypted_request_goes_through_a_tunnel(serve, start_transport, exchange):
    def echo(peer):
        while request := peer.read_request():
            peer.answer(request[1])

    server, proxy = serve(echo, tls=True), serve(tunnel)
    proxy.heads = []
    transport = start_transport(server.url, proxies={"https": proxy.url})
    for body in (b"one", b"two"):
        assert exchange(transport, body).content == body
    assert len(proxy.peers) == len(server.peers) == 1
    assert b"authorization" not in proxy.heads[0].lower()


def test_a_proxy_that_refuses_is_an_error(serve, start_transport, exchange):
    def script(peer):
        peer.read_request()
        peer.answer(b"", status="407 Proxy Authentication Required")

    with pytest.raises(requests.exceptions.ProxyError):
        exchange(start_transport("https://api.test", proxies={"https": serve(script).url}))


@pytest.mark.parametrize("proxy", ["http://", "http://:3128", "gopher://proxy:70", "socks9://proxy"])
def test_a_proxy_without_a_usable_url_is_an_error(proxy, start_transport, exchange):
    transport = start_transport("http://api.test", proxies={"http": proxy})
    with pytest.raises(Exception, match="(?i)proxy|SOCKS") as caught:
        exchange(transport)
    assert classify_exception(caught.value, url=transport.base_url)[:2] == ("fatal", "endpoint")
