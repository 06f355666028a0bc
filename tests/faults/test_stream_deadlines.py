"""Streams that never end by themselves end in time, whatever the server does and however it is reached."""

from __future__ import annotations

import time
import zlib

import pytest

from chatpool import APITimeoutError, ChatPool, DeadlineExceededError, Timeout, TruncatedStreamError

pytestmark = pytest.mark.faults

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FIRST = b'data: {"choices": [{"index": 0, "delta": {"content": "Once"}}]}\n\n'
LIMIT = 0.5
NOT_HUNG = 2.0


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def after_first(forever, piece=1):
    def script(peer):
        peer.read_request()
        peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(FIRST))
        peer.drip(forever, piece)

    return script


def until_close(peer):
    peer.read_request()
    peer.send(HEAD + b"\r\n" + FIRST)
    peer.drip(b": waiting\n\n")


def gzipped(peer):
    peer.read_request()
    packer = zlib.compressobj(wbits=31)
    peer.send(HEAD + b"Content-Encoding: gzip\r\n\r\n" + packer.compress(FIRST) + packer.flush(zlib.Z_SYNC_FLUSH))
    peer.drip(b"\0\0\0\xff\xff")  # blocks of nothing


def silent(peer):
    peer.read_request()
    peer.send(HEAD + b"\r\n" + FIRST)
    peer.hang()


COMMENT = chunk(b": keep-alive\n\n")
AFTER_THE_FIRST_EVENT = {
    "silence": silent,
    "comments": after_first(COMMENT, len(COMMENT)),
    "comments without an end": until_close,
    "blank lines": after_first(chunk(b"\n"), 6),
    "one event, byte by byte": after_first(chunk(b"data: " + b"x" * 4000)),
    "one event, a byte per chunk": after_first(chunk(b"x"), 6),
    "the length of a chunk": after_first(b"0"),
    "the extension of a chunk": after_first(b"5;" + b"x" * 4000),
    "the trailer": after_first(b"0\r\nX-A: " + b"b" * 4000),
    "gzip": gzipped,
}


def nothing(peer):
    peer.read_request()
    peer.hang()


def head_only(peer):
    peer.read_request()
    peer.send(HEAD + b"\r\n")
    peer.hang()


def comments_only(peer):
    peer.read_request()
    peer.send(HEAD + b"\r\n")
    peer.drip(b": waiting\n\n")


BEFORE_THE_FIRST_EVENT = {
    "silence": nothing,
    "the head, and silence": head_only,
    "the head, byte by byte": lambda peer: (peer.read_request(), peer.drip(HEAD + b"X-A: " + b"b" * 4000)),
    "comments": comments_only,
}


@pytest.fixture
def pool_for(serve, authority):
    """``pool_for(script, tls, timeout)``: a pool that trusts the server, aborted after the test."""
    pools = []

    def make(script, tls, timeout):
        server = serve(script, tls=tls)
        pools.append(ChatPool("m", base_url=server.url, retry=0, timeout=timeout, verify=authority.file))
        return pools[-1]

    yield make
    for pool in pools:
        pool.abort()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("case", AFTER_THE_FIRST_EVENT)
def test_read_bounds_each_wait_for_an_event(pool_for, case, tls):
    pool = pool_for(AFTER_THE_FIRST_EVENT[case], tls, Timeout(read=LIMIT))
    stream = pool.stream("tell")
    assert next(stream).text == "Once"
    started = time.monotonic()
    with pytest.raises(TruncatedStreamError) as caught:
        next(stream)
    assert LIMIT * 0.8 < time.monotonic() - started < LIMIT + NOT_HUNG
    assert caught.value.text == "Once"
    assert "Timeout.read" in str(caught.value.__cause__.__cause__)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("case", BEFORE_THE_FIRST_EVENT)
def test_attempt_bounds_the_wait_for_the_first_event(pool_for, case, tls):
    pool = pool_for(BEFORE_THE_FIRST_EVENT[case], tls, Timeout(attempt=LIMIT))
    started = time.monotonic()
    with pytest.raises(APITimeoutError):
        next(pool.stream("tell"))
    assert LIMIT * 0.8 < time.monotonic() - started < LIMIT + NOT_HUNG


@pytest.mark.parametrize("case", ["silence", "comments"])
def test_total_bounds_all_waits_together(pool_for, case):
    pool = pool_for(AFTER_THE_FIRST_EVENT[case], False, Timeout(total=LIMIT))
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="total"):
        list(pool.stream("tell"))
    assert LIMIT * 0.8 < time.monotonic() - started < LIMIT + NOT_HUNG


@pytest.mark.parametrize("case", AFTER_THE_FIRST_EVENT)
def test_the_same_limits_hold_for_a_collected_stream(pool_for, case):
    pool = pool_for(AFTER_THE_FIRST_EVENT[case], False, Timeout(read=LIMIT))
    started = time.monotonic()
    with pytest.raises(TruncatedStreamError):
        pool.chat("tell", collect_stream=True)
    assert time.monotonic() - started < LIMIT + NOT_HUNG
