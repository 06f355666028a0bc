"""Where an answer ends: what its head says of that is understood, or refused at once by its name."""

from __future__ import annotations

import time

import pytest

from chatpool import APIResponseError, ChatPool, RateLimitError, Timeout
from chatpool.config import Timeout as Limits
from chatpool.testing import chat_completion

pytestmark = pytest.mark.faults

BODY = b'{"choices": []}' * 20
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
KEPT = 30.0  # seconds that a test may take at most: reading to the end of a connection that is kept takes for ever


def keeping(*head, body=BODY, start="HTTP/1.1 200 OK", line_end="\r\n"):
    """A server that answers every request in the same way and keeps the connection."""
    data = line_end.join([start, *head, "", ""]).encode("latin-1") + body

    def script(peer):
        while peer.read_request() is not None:
            peer.send(data)

    return script


UNDERSTOOD = {
    "the length twice in one field": keeping(f"{LENGTH}, {len(BODY)}"),
    "the length in two fields": keeping(LENGTH, LENGTH.lower()),
    "the length with zeros before it": keeping(f"Content-Length: 00{len(BODY)}"),
    "the length and a comma": keeping(f"{LENGTH},"),
    "chunks and a length": keeping("Content-Length: 7", CHUNKED, body=CHUNKS),
    "chunks and no readable length": keeping("Content-Length: many", CHUNKED, body=CHUNKS),
    "chunked twice in one field": keeping(f"{CHUNKED}, chunked", body=CHUNKS),
    "chunked in two fields": keeping(CHUNKED, CHUNKED, body=CHUNKS),
    "chunked with a parameter": keeping("Transfer-Encoding: chunked;q=1", body=CHUNKS),
    "identity, chunked": keeping("Transfer-Encoding: identity, chunked", body=CHUNKS),
    "a transfer coding of no meaning, and a length": keeping("Transfer-Encoding: binary", LENGTH),
    "identity and a length": keeping("Transfer-Encoding: identity", LENGTH),
    "a line without a colon": keeping("X-A: b", "this is no field", LENGTH),
    "a name with spaces": keeping("X A b: c", LENGTH),
    "a field without a name": keeping(": nameless", LENGTH),
    "a space before the colon": keeping(f"Content-Length : {len(BODY)}"),
    "a folded first line": keeping(" folded", LENGTH),
    "a folded length": keeping("Content-Length:", f"  {len(BODY)}"),
    "a letter beyond ASCII in a name": keeping("X-Stra\xdfe: a", LENGTH),
    "what other software takes for line ends": keeping("X-A: a\x85b\x0bc\x0cd\x1ce", LENGTH),
    "a lonely carriage return": keeping("X-A: a\rContent-Length: 7", LENGTH),
    "a NUL": keeping("X-A: a\0b", LENGTH),
    "bare newlines": keeping("X-A: b", LENGTH, line_end="\n"),
    "120 fields": keeping(*(f"X-Gateway-Note-{number}: value" for number in range(120)), LENGTH),
    "900 fields": keeping(*(f"X-Gateway-Note-{number}: {'v' * 50}" for number in range(900)), LENGTH),
    "a field of 60,000 characters": keeping("X-Note: " + "x" * 60_000, LENGTH),
    "HTTP/1.0 that is kept": keeping("Connection: keep-alive", LENGTH, start="HTTP/1.0 200 OK"),
    "interim answers with a line that is no field": keeping(
        "no field", "", "HTTP/1.1 100 Continue", "", "HTTP/1.1 200 OK", LENGTH, start="HTTP/1.1 103 Early Hints"
    ),
}

REFUSED = {
    "two lengths in one field": (keeping(f"{LENGTH}, 7"), "Content-Length '300, 7'"),
    "two lengths in two fields": (keeping(LENGTH, "Content-Length: 7"), "Content-Length '300, 7'"),
    "a word for a length": (keeping("Content-Length: many"), "Content-Length 'many'"),
    "a length below nothing": (keeping("Content-Length: -1"), "Content-Length '-1'"),
    "a length with a sign": (keeping(f"Content-Length: +{len(BODY)}"), "Content-Length '+300'"),
    "a length with a unit": (keeping(f"{LENGTH} bytes"), "Content-Length '300 bytes'"),
    "a hexadecimal length": (keeping("Content-Length: 0x12c"), "Content-Length '0x12c'"),
    "a length of 5,000 digits": (keeping("Content-Length: " + "9" * 5000), "Content-Length '999"),
    "an empty length": (keeping("Content-Length:"), "Content-Length ''"),
    "a length and a word": (keeping(f"{LENGTH}, many"), "Content-Length '300, many'"),
    "a packed transfer": (
        keeping("Transfer-Encoding: gzip, chunked", body=CHUNKS),
        "Transfer-Encoding 'gzip, chunked'",
    ),
    "chunked, but not at the end": (keeping("Transfer-Encoding: chunked, gzip"), "Transfer-Encoding 'chunked, gzip'"),
    "a transfer coding of no meaning": (keeping("Transfer-Encoding: binary"), "Transfer-Encoding 'binary'"),
    "2,000 fields": (keeping(*(f"X-Note-{number}: value" for number in range(2000)), LENGTH), "1,000 lines"),
    "a line of 70,000 characters": (keeping("X-Note: " + "x" * 70_000, LENGTH), "65,536 bytes"),
    "a chunk of less than nothing": (keeping(CHUNKED, body=b"-5\r\nabcde\r\n0\r\n\r\n"), "length -5"),
}

CLOSED = {
    "a word for a length": keeping("Content-Length: many", "Connection: close"),
    "a length below nothing": keeping("Content-Length: -1", "Connection: close"),
    "an empty length": keeping("Content-Length:", "Connection: close"),
    "a word for a length, by HTTP/1.0": keeping("Content-Length: many", start="HTTP/1.0 200 OK"),
}


def once(script):
    """The script for one request; then the connection is closed."""

    def run(peer):
        read, peer.read_request = peer.read_request, lambda: None if peer.received else read()
        script(peer)

    return run


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_it_is_understood_and_the_connection_serves_on(case, serve, start_transport, exchange):
    server = serve(UNDERSTOOD[case])
    transport = start_transport(server.url)
    started = time.monotonic()
    for _ in range(3):
        reply = exchange(transport, timeout=Limits(attempt=60))
        assert (reply.status, reply.content) == (200, BODY)
    assert len(server.peers) == 1
    assert time.monotonic() - started < KEPT


@pytest.mark.parametrize("case", CLOSED)
def test_without_a_length_a_body_ends_with_a_connection_that_is_closed(case, serve, start_transport, exchange):
    assert exchange(start_transport(serve(once(CLOSED[case])).url)).content == BODY


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_at_once_by_its_name_and_not_asked_for_again(case, serve):
    script, named = REFUSED[case]
    server = serve(script)
    started = time.monotonic()
    with (
        ChatPool("m", base_url=server.url, timeout=Timeout(attempt=60)) as pool,
        pytest.raises(APIResponseError) as caught,
    ):
        pool.chat("ping")
    assert named in str(caught.value)
    assert (caught.value.attempts, len(server.peers)) == (1, 1)
    assert time.monotonic() - started < KEPT


@pytest.mark.parametrize("head", [(f"{LENGTH}, 7",), ("Content-Length: many",), ("Transfer-Encoding: gzip, chunked",)])
def test_a_stream_is_refused_in_the_same_way(head, serve):
    server = serve(keeping("Content-Type: text/event-stream", *head))
    with ChatPool("m", base_url=server.url, timeout=Timeout(attempt=60)) as pool, pytest.raises(APIResponseError):
        list(pool.stream("ping"))
    assert len(server.peers) == 1


def test_fields_after_one_that_is_none_reach_the_error(serve):
    body = b'{"error": {"message": "slow down"}}'
    script = keeping(
        "no field", "Retry-After: 7", f"Content-Length: {len(body)}", body=body, start="HTTP/1.1 429 Too Many Requests"
    )
    with (
        ChatPool("m", base_url=serve(script).url, retry=0) as pool,
        pytest.raises(RateLimitError, match="slow down") as caught,
    ):
        pool.chat("ping")
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body_needs_no_length(status, serve, start_transport, exchange):
    server = serve(keeping("Content-Length: many", body=b"", start=f"HTTP/1.1 {status}"))
    transport = start_transport(server.url)
    assert [exchange(transport).content for _ in range(2)] == [b"", b""]
    assert len(server.peers) == 1


@pytest.mark.parametrize("body", [b"", b"0\r\n\r\n"])
def test_chunks_of_an_answer_without_a_body_are_not_waited_for(body, serve, start_transport, exchange):
    server = serve(keeping(CHUNKED, body=body, start="HTTP/1.1 204 No Content"))
    transport = start_transport(server.url)
    started = time.monotonic()
    assert [exchange(transport).content for _ in range(3)] == [b"", b"", b""]
    assert time.monotonic() - started < KEPT


def test_an_answer_comes_through_whole_calls(serve):
    import json

    body = json.dumps(chat_completion("pong")).encode()
    server = serve(keeping("what is this", f"Content-Length: {len(body)}, {len(body)}", body=body))
    with ChatPool("m", base_url=server.url) as pool:
        assert [reply.text for reply in pool.map(["ping"] * 5, progress=False)] == ["pong"] * 5
