"""Streams that never end by themselves end in time, whatever the server does and however it is reached."""

from __future__ import annotations

import json
import time
import zlib

import pytest

from chatpool import APITimeoutError, ChatPool, DeadlineExceededError, Timeout, TruncatedStreamError

pytestmark = pytest.mark.faults

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FIRST = b'data: {"choices": [{"index": 0, "delta": {"content": "Once"}}]}\n\n'
ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
THOUGHT = b'data: {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]}\n\n'
CREATED = b'event: response.created\ndata: {"type": "response.created", "response": {"output": []}}\n\n'
LIMIT = 0.5
NOT_HUNG = 30.0  # what is not ended by its limit goes on until the test is over


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
    peer.drip(b": waiting\n\n", 11)


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
COMMENTS = {
    "comments": after_first(COMMENT, len(COMMENT)),
    "comments without an end": until_close,
    "comments of one line each": after_first(chunk(b":\n"), 7),
    "fields that make no event": after_first(chunk(b"event: ping\n\n"), len(chunk(b"event: ping\n\n"))),
}
AFTER_THE_FIRST_EVENT = {
    "silence": silent,
    "blank lines": after_first(chunk(b"\n"), 6),
    "one event, byte by byte": after_first(chunk(b"data: " + b"x" * 4000)),
    "one event, a byte per chunk": after_first(chunk(b"x"), 6),
    "the length of a chunk": after_first(b"0"),
    "the extension of a chunk": after_first(b"5;" + b"x" * 4000),
    "the trailer": after_first(b"0\r\nX-A: " + b"b" * 4000),
    "gzip": gzipped,
}


def reasoning(forever, piece):
    def script(peer):
        peer.read_request()
        peer.send(HEAD + b"\r\n" + THOUGHT)
        peer.drip(forever, piece)

    return script


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


def then_silence(*events):
    def script(peer):
        peer.read_request()
        peer.send(HEAD + b"\r\n" + b"".join(events))
        peer.hang()

    return script


def again_and_again(event):
    def script(peer):
        peer.read_request()
        peer.send(HEAD + b"\r\n")
        peer.drip(event, len(event))

    return script


BEFORE_THE_FIRST_CONTENT = {
    "silence": nothing,
    "the head, and silence": head_only,
    "the head, byte by byte": lambda peer: (peer.read_request(), peer.drip(HEAD + b"X-A: " + b"b" * 4000)),
    "comments": comments_only,
    "a role, and silence": then_silence(ROLE),
    "roles without end": again_and_again(ROLE),
    "a ping without end": again_and_again(b"event: ping\ndata: {}\n\n"),
    "reasoning, and silence": then_silence(ROLE, THOUGHT),
    "reasoning, and comments": reasoning(b": keep-alive\n\n", 14),
    "JSON, byte by byte": lambda peer: (peer.read_request(), peer.send(HEAD + b"\r\n{"), peer.drip(b" " * 4000)),
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


@pytest.mark.parametrize("tls", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "tls"])
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


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("case", BEFORE_THE_FIRST_CONTENT)
def test_attempt_alone_bounds_the_wait_for_the_first_content(pool_for, case, tls):
    attempt = 2 * LIMIT  # on a busy machine the thoughts of the first events may come late
    pool = pool_for(BEFORE_THE_FIRST_CONTENT[case], tls, Timeout(attempt=attempt, read=LIMIT / 5))
    started = time.monotonic()
    with pytest.raises((APITimeoutError, TruncatedStreamError)) as caught:
        list(pool.stream("tell"))
    assert attempt * 0.8 < time.monotonic() - started < attempt + NOT_HUNG
    assert "JSON" in case or "Timeout.attempt" in str(root(caught.value))


def root(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def test_a_model_that_goes_on_reasoning_is_not_cut_by_attempt(pool_for):
    def script(peer):
        peer.read_request()
        peer.send(HEAD + b"\r\n")
        for _ in range(40):
            peer.send(THOUGHT)
            peer.server.over.wait(LIMIT / 20)
        peer.send(FIRST + b"data: [DONE]\n\n")

    pool = pool_for(script, False, Timeout(attempt=LIMIT, read=LIMIT))
    assert pool.chat("tell", collect_stream=True).text == "Once"


def test_a_responses_model_may_be_silent_after_its_first_events(pool_for):
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Once"}]}
    done = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}

    def script(peer):
        peer.read_request()
        peer.send(HEAD + b"\r\n" + CREATED)
        peer.server.over.wait(LIMIT)
        peer.send(b"data: " + json.dumps(done).encode() + b"\n\n")

    pool = pool_for(script, False, Timeout(read=LIMIT / 5))
    stream = pool.stream({"input": "tell"})
    list(stream)
    assert stream.completion.text == "Once"


@pytest.mark.parametrize("case", COMMENTS)
def test_comments_extend_the_wait_for_an_event_up_to_attempt(pool_for, case):
    # Between two comments a busy machine may take longer than the 0.02 s of the server.
    pool = pool_for(COMMENTS[case], False, Timeout(read=2 * LIMIT, attempt=4 * LIMIT))
    stream = pool.stream("tell")
    assert next(stream).text == "Once"
    started = time.monotonic()
    with pytest.raises(TruncatedStreamError) as caught:
        next(stream)
    assert 3 * LIMIT < time.monotonic() - started < LIMIT + NOT_HUNG
    assert caught.value.text == "Once"
    assert "Timeout.attempt" in str(root(caught.value))


@pytest.mark.parametrize("case", ["silence", "comments"])
def test_total_bounds_all_waits_together(pool_for, case):
    pool = pool_for({**AFTER_THE_FIRST_EVENT, **COMMENTS}[case], False, Timeout(total=LIMIT))
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
