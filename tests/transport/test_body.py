"""Answers that are read while they come."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
import zlib

import pytest
import requests
import requests_mock
import responses
from urllib3.response import HTTPResponse as Urllib3Response

from chatpool._transport import Cancelled, CancelToken, OpenStream, StreamDeadline
from chatpool._values import HTTPResponse
from chatpool._wire import ResponseTooLarge, UnreadableAnswer
from chatpool.config import Timeout
from chatpool.types import ChatRequest

EVENTS = [b"data: one\n\n", b": comment\n\n", "data: zwei ü\n\n".encode(), b"data: [DONE]\n\n"]
WHOLE = b"".join(EVENTS)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


@pytest.fixture
def open_stream():
    """``open_stream(transport, ...)``: one exchange that is left open; closed after the test."""
    with contextlib.ExitStack() as stack:

        def send(transport, *, path="/chat/completions", cancel=None, timeout=None):
            request = ChatRequest({}, path)
            answer = transport.open(
                request, b"{}", timeout=timeout or Timeout(attempt=10), cancel=cancel or CancelToken()
            )
            if isinstance(answer, OpenStream):
                stack.callback(answer.close)
            return answer

        yield send


def read_all(stream):
    return b"".join(iter(stream.read, b""))


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def framed(framing, pieces):
    """Head and body of a stream, in pieces to be sent one after the other."""
    if framing == "length":
        return [HEAD + b"Content-Length: %d\r\n\r\n" % sum(map(len, pieces)), *pieces]
    if framing == "close":
        return [HEAD + b"\r\n", *pieces]
    return [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *map(chunk, pieces), b"0\r\n\r\n"]


def script_of(pieces, *, then_answers=True):
    """Send the pieces for the first request, each as soon as ``peer.server.next`` allows, and echo the others."""

    def script(peer):
        if peer.read_request() is None:
            return
        for piece in pieces:
            peer.server.next.acquire()
            peer.send(piece)
        while then_answers and (request := peer.read_request()):
            peer.answer(request[1])

    return script


@pytest.fixture
def start(serve, start_transport):
    """A transport for a server that sends these pieces, and ``go(n)`` that lets it send the next n."""

    def make(pieces, *, tls=False, **settings):
        server = serve(script_of(pieces), tls=tls)
        server.next = threading.Semaphore(0)
        return server, start_transport(server.url, **settings), lambda count=1: server.next.release(count)

    return make


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_each_piece_is_there_as_soon_as_it_has_come(start, open_stream, framing, tls):
    server, transport, go = start(framed(framing, EVENTS), tls=tls)
    go(2)
    stream = open_stream(transport)
    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    for event in EVENTS:
        assert stream.read() == event
        go()
    if framing == "close":
        server.close()
    assert stream.read() == b""
    assert stream.read() == b""


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_stream_read_to_its_end_gives_its_connection_back(start, open_stream, exchange, framing):
    server, transport, go = start(framed(framing, EVENTS))
    go(9)
    assert read_all(open_stream(transport)) == WHOLE
    assert exchange(transport, b"next").content == b"next"
    assert len(server.peers) == 1


def test_a_stream_that_is_closed_early_closes_its_connection(start, open_stream):
    server, transport, go = start(framed("chunked", EVENTS))
    go(2)
    stream = open_stream(transport)
    assert stream.read() == EVENTS[0]
    stream.close()
    assert server.peers[0].sock.recv(1) == b""
    with pytest.raises(Cancelled):
        stream.read()


@pytest.mark.parametrize(("sent", "kept"), [(6, True), (5, False)], ids=["the end comes", "the end does not come"])
def test_a_connection_is_kept_if_the_body_ends_with_its_last_event(start, open_stream, exchange, sent, kept):
    server, transport, go = start(framed("chunked", EVENTS))
    go(sent)
    stream = open_stream(transport)
    while stream.read() != EVENTS[-1]:
        pass
    stream.finish(0.2)
    if kept:
        assert exchange(transport, b"next").content == b"next"
    else:
        assert server.peers[0].read() == b""
    assert len(server.peers) == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
def test_compressed_streams_are_unpacked_as_they_come(start, open_stream, coding):
    window = {"gzip": 31, "deflate": 15, "raw deflate": -15}[coding]
    packer = zlib.compressobj(wbits=window)
    packed = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in EVENTS] + [packer.flush()]
    head, *rest = framed("chunked", packed)
    head = head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %s\r\n\r\n" % coding.split()[-1].encode())
    _, transport, go = start([head, *rest])
    go(2)
    stream = open_stream(transport)
    for event in EVENTS:
        assert stream.read() == event
        go()
    go()
    assert stream.read() == b""


def test_a_compressed_stream_that_breaks_off_is_an_error(start, open_stream):
    packed = gzip.compress(WHOLE)[:-4]
    head, *rest = framed("chunked", [packed])
    _, transport, go = start([head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), *rest])
    go(9)
    stream = open_stream(transport)
    with pytest.raises(requests.exceptions.ContentDecodingError):
        read_all(stream)


BROKEN = {
    "length": HEAD + b"Content-Length: 99\r\n\r\n" + WHOLE,
    "inside a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(WHOLE)[:-9],
    "between chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(WHOLE),
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_body_that_breaks_off_is_an_error(serve, start_transport, open_stream, case):
    def script(peer):
        peer.read_request()
        peer.send(BROKEN[case])

    transport = start_transport(serve(script).url)
    with pytest.raises(Exception, match=r"IncompleteRead|\d+ bytes read"):
        read_all(open_stream(transport))


def test_more_than_max_response_bytes_is_an_error(start, open_stream):
    _, transport, go = start(framed("chunked", [b"x" * 600] * 2), max_response_bytes=1000)
    go(9)
    stream = open_stream(transport)
    with pytest.raises(ResponseTooLarge):
        read_all(stream)


def test_a_compressed_bomb_is_an_error_and_not_memory(start, open_stream):
    head, *rest = framed("chunked", [gzip.compress(b"x" * 20_000_000, 1)])
    _, transport, go = start(
        [head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), *rest], max_response_bytes=1000
    )
    go(9)
    with pytest.raises(ResponseTooLarge):
        read_all(open_stream(transport))


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        ("200 OK", "application/json", b"{}"),
        ("200 OK", "text/event-stream", b'\n {"choices": []}'),
        ("200 OK", "text/plain", b"[]"),
        ("200 OK", "text/html", b"Sign in"),
        ("200 OK", "application/json", b""),
        ("429 No", "text/event-stream", b"data: {}\n\n"),
        ("202 Accepted", "text/html", b"<html>sk-a-secret-key"),
    ],
)
def test_what_is_no_stream_comes_whole(serve, start_transport, open_stream, status, kind, body):
    def script(peer):
        while peer.read_request():
            peer.answer(body, status=status, headers=[f"Content-Type: {kind}"])

    server = serve(script)
    transport = start_transport(server.url)
    for _ in range(2):
        answer = open_stream(transport)
        assert isinstance(answer, HTTPResponse)
        assert answer.content == body.replace(b"sk-a-secret-key", b"***")
        assert answer.url == f"{server.url}/chat/completions"
    assert len(server.peers) == 1


@pytest.mark.parametrize("kind", [b"application/json", b"text/html", b"text/plain; charset=utf-8", b""])
def test_events_are_a_stream_whatever_they_are_called(start, open_stream, kind):
    head, *rest = framed("chunked", EVENTS)
    _, transport, go = start([head.replace(b"text/event-stream; charset=utf-8", kind), *rest])
    go(2)
    stream = open_stream(transport)
    for event in EVENTS:
        assert stream.read() == event
        go()


def test_a_field_in_pieces_is_waited_for(start, open_stream):
    head, *rest = framed("chunked", [b"\n", b"da", b"ta: one\n\n", b"data: two\n\n"])
    _, transport, go = start([head.replace(b"text/event-stream", b"application/json"), *rest])
    go(4)
    stream = open_stream(transport)
    assert stream.read() == b"\ndata: one\n\n"
    go(2)
    assert read_all(stream) == b"data: two\n\n"


def test_silence_before_the_first_byte_is_bounded_by_attempt_and_not_by_read(start, open_stream):
    _, transport, go = start(framed("chunked", EVENTS))
    go(1)
    started = time.monotonic()
    with pytest.raises(requests.exceptions.Timeout, match=r"Timeout\.attempt"):
        open_stream(transport, timeout=Timeout(attempt=0.4, read=0.1))
    assert 0.3 < time.monotonic() - started < 30


def test_an_answer_that_is_none_of_events_may_not_stall_for_longer_than_read(start, open_stream):
    _, transport, go = start([HEAD + b"Content-Length: 9\r\n\r\n", b'{"a":'])
    go(2)
    with pytest.raises(requests.exceptions.Timeout, match=r"Timeout\.read"):
        open_stream(transport, timeout=Timeout(attempt=5, read=0.1))


CODINGS = {
    "no coding by a word": (b"none", lambda data: data),
    "a character set": (b"utf-8", lambda data: data),
    "identity": (b"identity", lambda data: data),
    "two that change nothing": (b"identity, none", lambda data: data),
    "text called gzip": (b"gzip", lambda data: data),
    "text called deflate": (b"deflate", lambda data: data),
    "gzip in capitals": (b"GZIP", gzip.compress),
    "gzip said twice, packed once": (b"gzip, gzip", gzip.compress),
    "packed twice": (b"gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "packed by two": (b"deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    "packed, and identity": (b"identity, gzip", gzip.compress),
    "text called something else": (b"compress", lambda data: data),
}


@pytest.mark.parametrize("case", CODINGS)
@pytest.mark.parametrize("body", [WHOLE, b"{}", b'{"choices": []}' * 100, b": \n"])
def test_a_body_is_unpacked_as_far_as_it_is_packed(serve, start_transport, open_stream, exchange, case, body):
    said, pack = CODINGS[case]
    packed = pack(body)

    def script(peer):
        while peer.read_request():
            peer.answer(packed, headers=[f"Content-Encoding: {said.decode()}", "Content-Type: text/event-stream"])

    transport = start_transport(serve(script).url)
    answer = open_stream(transport)
    assert (answer.content if isinstance(answer, HTTPResponse) else read_all(answer)) == body
    assert exchange(transport).content == body


@pytest.mark.parametrize("said", [b"none", b"utf-8", b"identity", b"gzip", b"deflate, gzip"])
def test_events_with_a_wrong_label_come_as_soon_as_they_are_sent(start, open_stream, said):
    head, *rest = framed("chunked", [event.rjust(20, b"\n") for event in EVENTS])
    _, transport, go = start([head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %s\r\n\r\n" % said), *rest])
    go(2)
    stream = open_stream(transport)
    for event in EVENTS:
        assert stream.read().lstrip(b"\n") == event
        go()


PACKED = {"zstd": b"\x28\xb5\x2f\xfd\x04", "br": b"\x8b\x0c\x80", "compress": b"\x1f\x9d\x90"}
UNASKED = {
    "compress": ("compress", PACKED["compress"]),
    "br": ("br", PACKED["br"]),
    "zstd": ("zstd", PACKED["zstd"]),
    "br in gzip": ("br, gzip", gzip.compress(PACKED["br"] * 9)),
    "gzip in br": ("gzip, br", PACKED["br"]),
    "zstd, in capitals": ("ZSTD", PACKED["zstd"]),
    "gzip thrice": ("gzip, gzip, gzip", gzip.compress(gzip.compress(gzip.compress(WHOLE)))),
    "gzip without end": ("gzip, " * 5000 + "gzip", gzip.compress(WHOLE)),
}


@pytest.fixture(params=[False, True], ids=["without packages", "with packages"])
def brotli_and_zstandard(request, monkeypatch):
    """As if their packages were there, and urllib3 would unpack with them whatever comes of it."""
    if request.param:
        known = [*Urllib3Response.CONTENT_DECODERS, "br", "zstd"]
        monkeypatch.setattr(Urllib3Response, "CONTENT_DECODERS", known)
    monkeypatch.setattr("urllib3.response._get_decoder", lambda mode: pytest.fail("urllib3 unpacks without a bound"))


@pytest.mark.usefixtures("brotli_and_zstandard")
@pytest.mark.parametrize("case", UNASKED)
def test_a_coding_that_was_not_asked_for_is_refused_and_named(serve, start_transport, open_stream, exchange, case):
    said, packed = UNASKED[case]

    def script(peer):
        while peer.read_request():
            peer.answer(packed * 9, headers=[f"Content-Encoding: {said}", "Content-Type: text/event-stream"])

    transport = start_transport(serve(script).url)
    for send in (open_stream, exchange):
        with pytest.raises(UnreadableAnswer, match="Content-Encoding"):
            send(transport)


@pytest.mark.usefixtures("brotli_and_zstandard")
@pytest.mark.parametrize("case", UNASKED)
def test_a_refusal_counts_by_its_status_however_its_words_are_packed(serve, start_transport, exchange, case):
    said, packed = UNASKED[case]

    def script(peer):
        while peer.read_request():
            peer.answer(packed * 9, status="429 Too Many", headers=[f"Content-Encoding: {said}", "Retry-After: 7"])

    reply = exchange(start_transport(serve(script).url))
    assert (reply.status, reply.headers["retry-after"], reply.content) == (429, "7", b"")


BOMBS = {"gzip": 1, "gzip, gzip": 2}


@pytest.mark.usefixtures("brotli_and_zstandard")
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
@pytest.mark.parametrize("said", BOMBS)
def test_what_is_packed_in_itself_is_unpacked_with_the_same_bound(serve, start_transport, exchange, said, status):
    bomb = b" " * 50_000_000
    for _ in range(BOMBS[said]):
        bomb = gzip.compress(bomb, 1)
    transport = start_transport(
        serve(lambda peer: [peer.answer(bomb, status=status, headers=[f"Content-Encoding: {said}"])]).url,
        max_response_bytes=200_000,
    )
    with pytest.raises(ResponseTooLarge):
        exchange(transport)


def test_redirects_of_the_same_origin_are_followed(serve, start_transport, open_stream):
    def script(peer):
        while request := peer.read_request():
            if b"/old" in request[0]:
                peer.answer(b"", status="307 Moved", headers=["Location: /new"])
            else:
                peer.send(b"".join(framed("chunked", EVENTS)))

    assert read_all(open_stream(start_transport(serve(script).url), path="/old")) == WHOLE


def test_a_stream_does_not_disturb_exchanges_of_its_thread(start, open_stream, exchange):
    server, transport, go = start(framed("chunked", EVENTS))
    go(2)
    stream = open_stream(transport)
    stream.read()
    server.script = lambda peer: peer.answer(peer.read_request()[1])
    assert exchange(transport, b"beside").content == b"beside"
    go(4)
    assert read_all(stream) == b"".join(EVENTS[1:])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("ending", ["token", "close", "abort"])
def test_a_blocked_read_is_woken_from_another_thread(start, open_stream, in_thread, ending, tls):
    server, transport, go = start(framed("chunked", EVENTS), tls=tls)
    go(2)
    token = CancelToken()
    stream = open_stream(transport, cancel=token)
    assert stream.read() == EVENTS[0]
    reader = in_thread(stream.read)
    {"token": token.cancel, "close": stream.close, "abort": transport.abort}[ending]()
    with pytest.raises(Cancelled):
        reader.result()
    assert server.peers[0].read() == b""


def test_a_second_reader_is_refused(start, open_stream, in_thread):
    _, transport, go = start(framed("chunked", EVENTS))
    go(2)
    stream = open_stream(transport)
    with stream._lock, pytest.raises(RuntimeError, match="another thread"):
        stream.read()


def test_each_read_has_a_limit_of_its_own(start, open_stream):
    _, transport, go = start(framed("chunked", EVENTS))
    go(2)
    stream = open_stream(transport, timeout=Timeout(attempt=0.5))
    stream.read()
    threading.Event().wait(0.6)  # the reader's own time
    go()
    assert stream.read(StreamDeadline(time.monotonic() + 5, "")) == EVENTS[1]
    with pytest.raises(requests.exceptions.Timeout, match="nothing came"):
        stream.read(StreamDeadline(time.monotonic() + 0.1, "nothing came"))


def test_until_then_the_limit_of_the_exchange_holds(start, open_stream):
    _, transport, go = start(framed("chunked", EVENTS))
    go(2)
    stream = open_stream(transport, timeout=Timeout(attempt=1.5))
    assert stream.read() == EVENTS[0]
    with pytest.raises(requests.exceptions.Timeout, match=r"Timeout\.attempt"):
        stream.read()


URL = "http://api.test/v1"
STREAM = {"content_type": "text/event-stream"}


def test_responses_gives_streams(start_transport, open_stream):
    with responses.RequestsMock() as mock:
        mock.post(f"{URL}/chat/completions", body=WHOLE, **STREAM)
        assert read_all(open_stream(start_transport(URL))) == WHOLE


def test_requests_mock_gives_streams(start_transport, open_stream):
    with requests_mock.Mocker() as mock:
        mock.post(f"{URL}/chat/completions", content=WHOLE, headers={"Content-Type": "text/event-stream"})
        assert read_all(open_stream(start_transport(URL))) == WHOLE


def test_an_adapter_of_the_users_gives_streams(start, open_stream, caplog):
    class Adapter(requests.adapters.HTTPAdapter):
        """Somebody's own."""

    session = requests.Session()
    session.mount("http://", Adapter())
    _, transport, go = start(framed("chunked", EVENTS), session=session)
    go(2)
    stream = open_stream(transport)
    for event in EVENTS:
        assert stream.read() == event
        go()
    stream.close()
    assert "adapter" in caplog.text
