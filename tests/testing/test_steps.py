"""Each step does on the wire what it says."""

from __future__ import annotations

import gzip
import http.client
import json
import time

import pytest
import requests

from chatpool import ConfigurationError
from chatpool.testing import (
    HINTS,
    Answer,
    Delay,
    Drip,
    Error,
    Garbage,
    Hangup,
    Html,
    RateLimited,
    Redirect,
    Reset,
    Stall,
    Truncate,
)


def test_an_answer_with_a_text_is_wrapped_for_its_path(make_server, post):
    server = make_server(Answer("pong"))
    assert post(server).text == "pong"
    assert post(server, path="/responses", body={"input": "x"}).json["output"][0]["content"][0]["text"] == "pong"
    assert post(server, path="/completions", body={"prompt": "x"}).json["choices"][0]["text"] == "pong"


def test_an_answer_with_a_body_is_sent_as_it_is(make_server, post):
    server = make_server([Answer(body={"any": 1}), Answer(body=b"not json"), Answer(body="text")])
    assert post(server).json == {"any": 1}
    assert post(server).raw == b"not json"
    assert post(server).raw == b'"text"'


def test_headers_replace_the_servers_own_and_may_repeat(make_server, post):
    headers = [("X-Request-ID", "mine"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    answer = post(make_server(Answer(headers=headers, status=201)))
    assert answer.status == 201
    assert answer.headers.get_all("x-request-id") == ["mine"]
    assert answer.headers.get_all("set-cookie") == ["a=1", "b=2"]


def test_an_answer_in_chunks(make_server, open_socket, read_all):
    server = make_server(Answer(body=b"abcde", framing="chunked", chunk_size=2, headers={"connection": "close"}))
    head, _, body = read_all(open_socket(server)).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"2\r\nab\r\n2\r\ncd\r\n1\r\ne\r\n0\r\n\r\n"


def test_an_answer_that_ends_with_the_connection(make_server, open_socket, read_all):
    head, _, body = read_all(open_socket(make_server(Answer(body=b"abc", framing="close")))).partition(b"\r\n\r\n")
    assert body == b"abc"
    assert b"content-length" not in head


def test_a_compressed_answer(make_server):
    body = gzip.compress(b'{"choices": []}')
    server = make_server(Answer(body=body, headers={"content-encoding": "gzip"}))
    assert requests.post(f"{server.base_url}/chat/completions", json={}, timeout=10).json() == {"choices": []}


@pytest.mark.parametrize(
    ("step", "status", "error"),
    [
        (Error(401), 401, {"type": "invalid_request_error", "code": "invalid_api_key"}),
        (Error(429), 429, {"type": "requests", "code": "rate_limit_exceeded"}),
        (Error(503), 503, {"type": "server_error", "code": None}),
        (Error(529), 529, {"type": "server_error", "code": None}),
        (Error(418), 418, {"type": "invalid_request_error", "code": None}),
        (
            Error(429, "No credit", type=None, code="insufficient_quota"),
            429,
            {"type": None, "code": "insufficient_quota"},
        ),
        (Error(200, code=503), 200, {"type": "server_error", "code": 503}),
        (Error(400, param="model"), 400, {"param": "model", "code": None}),
    ],
)
def test_an_error_has_openais_shape(make_server, post, step, status, error):
    answer = post(make_server(step))
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert error.items() <= answer.json["error"].items()


@pytest.mark.parametrize("hint", HINTS)
def test_a_refusal_says_when_to_come_back(make_server, post, hint):
    answer = post(make_server(RateLimited(72.5, hint=hint)))
    said = {
        "retry-after-ms": ("retry-after-ms", "72500"),
        "retry-after": ("retry-after", "72.5"),
        "x-ratelimit-reset-requests": ("x-ratelimit-reset-requests", "1m12.5s"),
        "x-ratelimit-reset-tokens": ("x-ratelimit-reset-tokens", "1m12.5s"),
    }
    texts = {"text": "Please try again in 1m12.5s.", "text-seconds": "Please retry after 73 seconds."}
    assert answer.status == 429
    if hint in said:
        name, value = said[hint]
        assert answer.headers[name] == value
    elif hint in texts:
        assert texts[hint] in answer.json["error"]["message"]
    else:
        assert answer.headers["retry-after"].endswith("GMT")


def test_a_refusal_without_a_hint(make_server, post):
    answer = post(make_server(RateLimited(hint=None, headers={"x-ratelimit-remaining-requests": "0"})))
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert not {"retry-after", "retry-after-ms"} & {name.lower() for name in answer.headers}


def test_a_page_of_a_proxy(make_server, post):
    answer = post(make_server(Html(504)))
    assert (answer.status, answer.headers["content-type"]) == (504, "text/html; charset=utf-8")
    assert b"<h1>504 Gateway Timeout</h1>" in answer.raw
    assert post(make_server(Html(200, "<p>log in</p>"))).raw == b"<p>log in</p>"


def test_a_redirect_names_its_location(make_server, post):
    answer = post(make_server(Redirect("/v1/elsewhere", 308)))
    assert (answer.status, answer.headers["location"], answer.raw) == (308, "/v1/elsewhere", b"")


def test_a_delay_comes_before_the_answer(make_server, post):
    server = make_server([Delay(0.05), Delay(0.05, then=Error(503))])
    started = time.monotonic()
    assert post(server).text == "ping"
    assert time.monotonic() - started >= 0.05
    assert post(server).status == 503


def test_latency_delays_usual_answers_only(make_server, post):
    server = make_server([None, Error(503)], latency=0.05)
    started = time.monotonic()
    assert post(server).text == "ping"
    first = time.monotonic() - started
    assert first >= 0.05
    assert post(server).status == 503


def test_a_stall_sends_nothing_and_keeps_the_connection(make_server, open_socket):
    server = make_server(Stall())
    sock = open_socket(server)
    server.wait_until(lambda: server.in_flight == 1)
    sock.settimeout(0.05)
    with pytest.raises(OSError, match="timed out"):
        sock.recv(1)
    assert server.open_connections == 1


def test_a_stall_in_the_middle_of_an_answer(make_server, open_socket):
    sock = open_socket(make_server(Stall(after=20)))
    received = b""
    while len(received) < 20:
        received += sock.recv(100)
    assert received == b"HTTP/1.1 200 OK\r\ncon"
    sock.settimeout(0.05)
    with pytest.raises(OSError, match="timed out"):
        sock.recv(1)


def test_a_drip_sends_the_same_bytes_in_pieces(make_server, open_socket, read_all):
    last = {"connection": "close"}
    whole = read_all(open_socket(make_server(Answer("pong", headers=last))))
    for part in ("all", "headers", "body"):
        server = make_server(Drip(size=50, every=0.001, part=part, then=Answer("pong", headers=last)))
        assert read_all(open_socket(server)) == whole


def test_a_drip_of_the_body_takes_its_time_for_each_piece(make_server, open_socket):
    server = make_server(Drip(size=1, every=0.03, part="body", then=Answer(body=b"abcd")))
    began = time.monotonic()
    sock = open_socket(server)
    pieces = []
    while not b"".join(pieces).endswith(b"abcd"):
        pieces.append(sock.recv(65536))
    assert time.monotonic() - began >= 3 * 0.03


def test_a_drip_of_the_headers_ends_with_the_body_in_one_piece(make_server, open_socket):
    server = make_server(Drip(size=1, every=0.001, part="headers", then=Answer(body=b"abc")))
    began = time.monotonic()
    sock = open_socket(server)
    assert sock.recv(1) == b"H"
    pieces = []
    while b"".join(pieces)[-3:] != b"abc":
        pieces.append(sock.recv(65536))
    assert pieces[-1].endswith(b"abc")
    assert time.monotonic() - began >= 0.001 * len(b"".join(pieces).partition(b"\r\n\r\n")[0])


def test_a_reset_breaks_the_connection(make_server, open_socket):
    sock = open_socket(make_server(Reset()))
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_a_reset_in_the_middle_of_an_answer(make_server, open_socket):
    sock = open_socket(make_server(Reset(after=17)))
    received = b""
    with pytest.raises(ConnectionResetError):
        while len(received) <= 17:
            received += sock.recv(100)
    # The system may throw away at a reset what was not read before.
    assert received in (b"", b"HTTP/1.1 200 OK\r\n")


def test_a_truncated_body_ends_before_its_announced_length(make_server, post, open_socket, read_all):
    server = make_server(Truncate(then=Answer(body=b"0123456789")))
    with pytest.raises(http.client.IncompleteRead) as cut:
        post(server)
    assert cut.value.partial == b"01234"
    head, _, body = read_all(open_socket(make_server(Truncate(3, then=Answer(body=b"0123456789"))))).partition(
        b"\r\n\r\n"
    )
    assert b"content-length: 10" in head
    assert body == b"012"


def test_a_hangup_answers_nothing(make_server, post):
    with pytest.raises(http.client.RemoteDisconnected):
        post(make_server(Hangup()))


def test_a_hangup_after_an_answer_is_not_announced(make_server, open_socket, read_all):
    received = read_all(open_socket(make_server(Hangup(Answer("pong")))))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection" not in head.lower()
    assert json.loads(body)["choices"][0]["message"]["content"] == "pong"


def test_garbage_is_not_http(make_server, post, open_socket, read_all):
    with pytest.raises(http.client.BadStatusLine):
        post(make_server(Garbage()))
    assert read_all(open_socket(make_server(Garbage(b"SSH-2.0-x\r\n")))) == b"SSH-2.0-x\r\n"


def test_steps_are_values():
    assert Error(503, headers={"a": "b"}) == Error(503, headers=[("a", "b")])
    assert len({Error(503), Error(503), Delay(1, then=Stall()), Delay(1, then=Stall())}) == 2
    with pytest.raises(AttributeError):
        Error(503).status = 500  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: Answer(503), TypeError, "Error\\(503\\)"),
        (lambda: Answer("a", body={}), ConfigurationError, "text or body"),
        (lambda: Answer(framing="x"), ConfigurationError, "framing"),
        (lambda: Answer(framing="chunked", chunk_size=0), ConfigurationError, "chunk_size"),
        (lambda: Answer(status=99), ConfigurationError, "status"),
        (lambda: Answer(headers={"a": "b\r\nc: d"}), ConfigurationError, "line break"),
        (lambda: Error("503"), TypeError, "status"),
        (lambda: RateLimited(hint="soon"), ConfigurationError, "retry-after-ms"),
        (lambda: RateLimited(-1), ConfigurationError, "wait"),
        (lambda: Delay(-1), ConfigurationError, "seconds"),
        (lambda: Delay(float("inf")), ConfigurationError, "seconds"),
        (lambda: Drip(size=0), ConfigurationError, "size"),
        (lambda: Drip(every=float("nan")), ConfigurationError, "every"),
        (lambda: Drip(part="tail"), ConfigurationError, "part"),
        (lambda: Stall(after=-1), ConfigurationError, "after"),
        (lambda: Reset(after=-1), ConfigurationError, "after"),
        (lambda: Truncate(-1), ConfigurationError, "after"),
    ],
)
def test_a_wrong_step_is_refused_where_it_is_made(make, kind, said):
    with pytest.raises(kind, match=said):
        make()
