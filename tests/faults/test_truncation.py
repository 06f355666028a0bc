"""A truncated answer is never taken as whole, and one that is too large is never held."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
import requests

from chatpool._wire import ResponseTooLarge, classify_exception
from chatpool.config import Timeout

pytestmark = pytest.mark.faults

BODY = b'{"choices": []}' * 50
GZIPPED = gzip.compress(BODY)
RAW_DEFLATED = zlib.compress(BODY)[2:-4]


def chunked(body, size=100):
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def answer(body, *headers):
    return "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body


def script_for(data, *, reset=False):
    def script(peer):
        peer.read_request()
        peer.send(data)
        if reset:
            peer.reset()

    return script


LENGTH, CHUNKED, GZIP = f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked", "Content-Encoding: gzip"

WHOLE = {
    "known length": answer(BODY, LENGTH),
    "until close": answer(BODY),
    "chunks": answer(chunked(BODY) + b"0\r\n\r\n", CHUNKED),
    "chunks with extensions and trailers": answer(b"2ee;a=b\r\n" + BODY + b"\r\n0\r\nX-A: b\r\n\r\n", CHUNKED),
    "gzip": answer(GZIPPED, f"Content-Length: {len(GZIPPED)}", GZIP),
    "gzip until close": answer(GZIPPED, GZIP),
    "gzip in chunks": answer(chunked(GZIPPED, 7) + b"0\r\n\r\n", CHUNKED, GZIP),
    "gzip of two members": answer(gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]), "Content-Encoding: x-gzip"),
    "gzip with padding": answer(GZIPPED + b"\0\0", GZIP),
    "deflate": answer(zlib.compress(BODY), "Content-Encoding: deflate"),
    "deflate without a header": answer(RAW_DEFLATED, "Content-Encoding: deflate"),
    "interim answers first": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    + answer(BODY, LENGTH),
}
BROKEN = {
    "known length": answer(BODY[:-1], LENGTH),
    "known length, nothing of it": answer(b"", LENGTH),
    "inside a chunk": answer(chunked(BODY)[:-60], CHUNKED),
    "between chunks": answer(chunked(BODY), CHUNKED),
    "inside a chunk's length": answer(chunked(BODY) + b"1", CHUNKED),
    "gzip": answer(GZIPPED[:-1], f"Content-Length: {len(GZIPPED)}", GZIP),
    "gzip until close": answer(GZIPPED[:-1], GZIP),
    "gzip in chunks": answer(chunked(GZIPPED[:-1]) + b"0\r\n\r\n", CHUNKED, GZIP),
    "deflate": answer(zlib.compress(BODY)[:-1], "Content-Encoding: deflate"),
    "garbled gzip": answer(b"\x1f\x8b not gzip at all", GZIP),
    "headers": b"HTTP/1.1 200 OK\r\nX-A: b\r\n",
    "status line": b"HTTP/1.1 200",
    "nothing at all": b"",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_answer_is_taken(case, tls, serve, start_transport, exchange):
    server = serve(script_for(WHOLE[case]), tls=tls)
    reply = exchange(start_transport(server.url))
    assert (reply.status, reply.content) == (200, BODY)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_truncated_answer_is_an_error(case, tls, serve, start_transport, exchange):
    server = serve(script_for(BROKEN[case]), tls=tls)
    with pytest.raises(requests.exceptions.RequestException):
        exchange(start_transport(server.url))


@pytest.mark.parametrize("case", BROKEN)
def test_an_answer_cut_by_a_reset_is_an_error(case, serve, start_transport, exchange):
    server = serve(script_for(BROKEN[case], reset=True))
    with pytest.raises(requests.exceptions.RequestException):
        exchange(start_transport(server.url))


# The head of an error has arrived; of its body comes as much as is named.
BROKEN_ERRORS = {
    "known length": (answer(BODY[:-1], LENGTH), BODY[:-1]),
    "known length, nothing of it": (answer(b"", LENGTH), b""),
    "until close": (answer(BODY), BODY),
    "inside a chunk": (answer(chunked(BODY)[:-60], CHUNKED), BODY[:600]),
    "between chunks": (answer(chunked(BODY), CHUNKED), BODY),
    "gzip": (answer(GZIPPED[:-9], f"Content-Length: {len(GZIPPED)}", GZIP), None),
    "garbled gzip": (answer(b"\x1f\x8b not gzip at all", GZIP), b""),
}


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("case", BROKEN_ERRORS)
def test_an_error_is_one_by_its_status_however_its_body_ends(case, end, serve, start_transport, exchange):
    data, arrived = BROKEN_ERRORS[case]
    server = serve(script_for(data.replace(b" 200 OK", b" 407 No"), reset=end == "reset"))
    reply = exchange(start_transport(server.url))
    assert reply.status == 407
    if end == "close" and arrived is not None:
        assert reply.content.startswith(arrived)
    assert len(server.peers) == 1


def test_an_error_is_understood_though_the_request_was_never_taken(serve, start_transport, exchange):
    # tinyproxy, of a login that is missing: it answers the head, and closes with the request's body unread.
    def refuse(peer):
        peer.carrier.recv(10)
        peer.send(b"HTTP/1.0 407 Proxy Authentication Required\r\nConnection: close\r\n\r\n<h1>407</h1>")

    reply = exchange(start_transport(serve(refuse).url), b"x" * 50_000)
    assert reply.status == 407


BOMB = gzip.compress(b" " * 20_000_000, 1)
TOO_LARGE = {
    "announced": answer(b"", "Content-Length: 200001"),
    "until close": answer(b" " * 200_001),
    "chunks": answer(chunked(b" " * 200_001, 50_000) + b"0\r\n\r\n", CHUNKED),
    "gzip bomb": answer(BOMB, GZIP),
    "bomb in chunks": answer(chunked(BOMB) + b"0\r\n\r\n", CHUNKED, GZIP),
}


def endless(start, piece):
    def script(peer):
        peer.read_request()
        peer.send(start)
        while peer.send(piece * 1000):
            pass

    return script


SCRIPTS = {case: script_for(data) for case, data in TOO_LARGE.items()}
SCRIPTS["interim answers without end"] = endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")


@pytest.mark.parametrize("case", SCRIPTS)
def test_an_answer_that_is_too_large_is_an_error_and_not_memory(case, serve, start_transport, exchange):
    server = serve(SCRIPTS[case])
    transport = start_transport(server.url, max_response_bytes=200_000)
    tracemalloc.start()
    try:
        with pytest.raises(ResponseTooLarge, match="max_response_bytes=200,000"):
            exchange(transport, timeout=Timeout(attempt=100))  # everything is slow while memory is traced
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_trailers_without_end_are_an_error_that_is_not_retried(serve, start_transport, exchange):
    server = serve(endless(answer(b"0\r\n", CHUNKED), b"X-A: b\r\n"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="more than 1,000 lines") as caught:
        exchange(start_transport(server.url, max_response_bytes=200_000))
    assert classify_exception(caught.value, url=server.url, proxy="").kind == "fail"


def test_a_chunk_length_without_end_is_an_error(serve, start_transport, exchange):
    server = serve(endless(answer(b"", CHUNKED), b"0" * 16))
    # Newer versions of urllib3 refuse it by themselves.
    with pytest.raises((ResponseTooLarge, requests.exceptions.ChunkedEncodingError)):
        exchange(start_transport(server.url, max_response_bytes=200_000))


def test_an_answer_as_large_as_allowed_is_taken(serve, start_transport, exchange):
    server = serve(script_for(answer(gzip.compress(b" " * 200_000), GZIP)))
    transport = start_transport(server.url, max_response_bytes=200_000)
    assert exchange(transport).content == b" " * 200_000


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_connection_serves_on_after_interim_answers(tls, serve, start_transport, exchange):
    def script(peer):
        while True:
            request = peer.read_request()
            if request is None:
                return
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            peer.answer(request[1])

    server = serve(script, tls=tls)
    transport = start_transport(server.url)
    for number in range(5):
        body = b"%d" % number
        assert exchange(transport, body, timeout=Timeout(attempt=10)).content == body
    assert len(server.peers) == 1
