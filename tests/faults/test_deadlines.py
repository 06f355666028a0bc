"""No exchange outlives its deadline, whatever the server, the network or a proxy does."""

from __future__ import annotations

import gzip
import socket
import threading
import time

import pytest
import requests

from chatpool._transport import tcp
from chatpool._wire import classify_exception
from chatpool.config import Timeout

pytestmark = pytest.mark.faults

ATTEMPT = 0.25
NOT_HUNG = 30.0  # what is not ended by its limit goes on until the test is over

HEAD = b"HTTP/1.1 200 OK\r\n"


def silent(peer):
    peer.read_request()
    peer.hang()


def dripping_status_line(peer):
    peer.read_request()
    peer.drip(b"HTTP/1.1 200 " + b"O" * 60000)


def dripping_headers(peer):
    peer.read_request()
    peer.send(HEAD)
    peer.drip(b"X-Name: value\r\n")


def dripping_interim_answers(peer):
    peer.read_request()
    peer.drip(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", piece=25)


def flood_of_100(peer):
    peer.read_request()
    while peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100):
        pass


def flood_of_103(peer):
    peer.read_request()
    while peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100):
        pass


def dripping_body_of_known_length(peer):
    peer.read_request()
    peer.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
    peer.drip(b" ")


def dripping_body_until_close(peer):
    peer.read_request()
    peer.send(HEAD + b"\r\n")
    peer.drip(b" ")


def dripping_inside_a_chunk(peer):
    peer.read_request()
    peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n")
    peer.drip(b" ")


def dripping_as_many_chunks(peer):
    peer.read_request()
    peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    peer.drip(b"1\r\n \r\n", piece=6)


def dripping_chunk_length(peer):
    peer.read_request()
    peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    peer.drip(b"0")


def dripping_trailers(peer):
    peer.read_request()
    peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    peer.drip(b"X-Name: value\r\n")


def dripping_gzip(peer):
    peer.read_request()
    peer.send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n" + gzip.compress(b"{}")[:10])
    peer.drip(b"\x00\x00\x00\xff\xff")  # empty stored blocks


def stalled_body(peer):
    peer.read_request()
    peer.send(HEAD + b"Content-Length: 10\r\n\r\n{")
    peer.hang()


def slow_redirects(peer):
    while peer.read_request() and not peer.server.over.wait(0.05):
        peer.answer(b"", status="307 Temporary Redirect", headers=["Location: /again"])


def upload_never_read(peer):
    peer.hang()


def upload_read_slowly(peer):
    while not peer.server.over.wait(0.02) and peer.sock.recv(4096):
        pass


def upload_answered_before_its_end(peer):
    peer.read()
    peer.send(HEAD + b"Content-Length: 10\r\n\r\n{")
    peer.hang()


SCRIPTS = [
    silent,
    dripping_status_line,
    dripping_headers,
    dripping_interim_answers,
    flood_of_100,
    flood_of_103,
    dripping_body_of_known_length,
    dripping_body_until_close,
    dripping_inside_a_chunk,
    dripping_as_many_chunks,
    dripping_chunk_length,
    dripping_trailers,
    dripping_gzip,
    stalled_body,
    slow_redirects,
    upload_never_read,
    upload_read_slowly,
    upload_answered_before_its_end,
]
UPLOAD = b" " * (32 * 1024 * 1024)  # more than any socket buffer takes


@pytest.fixture
def cut(exchange, record_property):
    """``cut(transport)``: asserts that the deadline ends an exchange in time, with a timeout."""

    def check(transport, **kwargs):
        start = time.monotonic()
        with pytest.raises(requests.exceptions.Timeout) as caught:
            exchange(transport, timeout=Timeout(attempt=ATTEMPT), **kwargs)
        elapsed = time.monotonic() - start
        record_property("overrun", round(elapsed - ATTEMPT, 4))
        assert ATTEMPT - 0.01 <= elapsed < NOT_HUNG
        verdict = classify_exception(caught.value, url=transport.base_url)
        assert verdict.kind == "timeout"
        assert isinstance(verdict.error, TimeoutError)

    return check


@pytest.fixture
def limits_of_python(monkeypatch):
    """Sockets as on a platform whose kernel does not keep their time limits."""
    monkeypatch.setattr(tcp, "CONNECTION", tcp.PlainSocket)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_limits_that_python_keeps_hold_as_well(script, limits_of_python, serve, start_transport, cut):
    cut(start_transport(serve(script).url), body=UPLOAD if "upload" in script.__name__ else b"{}")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_server_cannot_exceed_the_deadline(script, tls, serve, start_transport, cut):
    server = serve(script, tls=tls)
    cut(start_transport(server.url), body=UPLOAD if "upload" in script.__name__ else b"{}")


def dripping_handshake(peer):
    peer.read()
    peer.send(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03")  # a ServerHello that says it is 16 KB long
    peer.drip(b"\x00")


def hung_handshake(peer):
    peer.hang()


@pytest.mark.parametrize("script", [hung_handshake, dripping_handshake], ids=lambda script: script.__name__)
def test_a_tls_handshake_cannot_exceed_the_deadline(script, serve, start_transport, cut):
    server = serve(script)
    cut(start_transport(server.url.replace("http:", "https:")))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connecting_to_addresses_that_hang_cannot_exceed_the_deadline(
    scheme, full_listener, start_transport, cut, monkeypatch
):
    hanging = [full_listener(f"127.0.0.{n}").address for n in (1, 2, 3)]
    monkeypatch.setattr(socket, "getaddrinfo", resolver_to(*hanging))
    cut(start_transport(f"{scheme}://api.test/v1"))


def test_an_address_that_hangs_leaves_time_for_the_next(full_listener, serve, start_transport, exchange, monkeypatch):
    server = serve(lambda peer: peer.read_request() and peer.answer(b"{}"))
    addresses = [full_listener().address, ("127.0.0.1", server.port)]
    monkeypatch.setattr(socket, "getaddrinfo", resolver_to(*addresses))
    reply = exchange(start_transport("http://api.test/v1"), timeout=Timeout(connect=0.6))
    assert reply.content == b"{}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_name_resolution_cannot_exceed_the_deadline(scheme, start_transport, cut, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", resolver_to(until=over))
    try:
        cut(start_transport(f"{scheme}://api.test/v1"))
    finally:
        over.set()


def resolver_to(*addresses, until=None):
    """A ``getaddrinfo`` that knows every name, once ``until`` is set."""

    def getaddrinfo(host, port, family=0, kind=0, protocol=0, flags=0):
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        if until is not None:
            until.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

    return getaddrinfo


def tunnel(then):
    """A proxy that grants a CONNECT, and what it does in the tunnel."""

    def script(peer):
        peer.read_request()
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        then(peer)

    script.__name__ = f"tunnel_to_{then.__name__}"
    return script


def encrypted(script):
    """The same inside TLS of the server's."""

    def inside(peer):
        peer.start_tls(peer.server.inner_context)
        script(peer)

    inside.__name__ = f"tls_{script.__name__}"
    return inside


def dripping_connect_answer(peer):
    peer.read_request()
    peer.send(b"HTTP/1.1 200 Connection established\r\n")
    peer.drip(b"X-Name: value\r\n")


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http_proxy", "https_proxy"])
@pytest.mark.parametrize("script", [silent, dripping_headers, dripping_body_of_known_length], ids=lambda s: s.__name__)
def test_a_forwarding_proxy_cannot_exceed_the_deadline(script, proxy_tls, serve, start_transport, cut):
    proxy = serve(script, tls=proxy_tls)
    cut(start_transport("http://api.test/v1", proxies={"http": proxy.url}))


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http_proxy", "https_proxy"])
@pytest.mark.parametrize(
    "script",
    [
        silent,
        dripping_status_line,
        dripping_connect_answer,
        tunnel(hung_handshake),
        tunnel(dripping_handshake),
        tunnel(encrypted(silent)),
        tunnel(encrypted(dripping_body_until_close)),
    ],
    ids=lambda script: script.__name__,
)
def test_a_tunnel_cannot_exceed_the_deadline(script, proxy_tls, serve, start_transport, authority, cut):
    proxy = serve(script, tls=proxy_tls)
    proxy.inner_context = authority.context
    cut(start_transport("https://localhost:1/v1", proxies={"https": proxy.url}))


@pytest.mark.parametrize("script", [hung_handshake, dripping_handshake], ids=lambda script: script.__name__)
def test_the_handshake_with_an_https_proxy_cannot_exceed_the_deadline(script, serve, start_transport, cut):
    proxy = serve(script)
    cut(start_transport("https://api.test/v1", proxies={"https": proxy.url.replace("http:", "https:")}))


def test_silence_is_bounded_by_read(serve, start_transport, exchange):
    server = serve(stalled_body)
    with pytest.raises(requests.exceptions.ReadTimeout, match=r"sent nothing for 0\.2 s \(Timeout\.read\)"):
        exchange(start_transport(server.url), timeout=Timeout(read=0.2))


def test_a_server_that_drips_is_not_silent(serve, start_transport, exchange):
    server = serve(dripping_body_of_known_length)
    with pytest.raises(requests.exceptions.Timeout, match=r"within 0\.5 s \(Timeout\.attempt\)"):
        exchange(start_transport(server.url), timeout=Timeout(read=0.3, attempt=0.5))


@pytest.mark.parametrize("script", [hung_handshake, dripping_handshake], ids=lambda script: script.__name__)
def test_connecting_is_bounded_by_connect(script, serve, start_transport, exchange):
    server = serve(script)
    with pytest.raises(requests.exceptions.ConnectTimeout, match=r"within 0\.3 s \(Timeout\.connect\)"):
        exchange(start_transport(server.url.replace("http:", "https:")), timeout=Timeout(connect=0.3))


def test_the_wait_for_an_answer_is_not_bounded_by_connect(serve, start_transport, exchange):
    def script(peer):
        peer.read_request()
        peer.server.over.wait(0.4)
        peer.answer(b"{}")

    server = serve(script)
    assert exchange(start_transport(server.url), timeout=Timeout(connect=0.2)).content == b"{}"
