"""What goes over the wire, and what comes back."""

from __future__ import annotations

import pytest
import requests

from chatpool._transport import KeyAuth, Transport, TransportSettings


def mirror(peer):
    """Answers with the request: its head, an empty line and its body."""
    while True:
        request = peer.read_request()
        if request is None or not peer.answer(request[0] + b"\n\n" + request[1]):
            return


def head_of(reply):
    """Request line and headers that the mirror saw, names in lower case."""
    lines = reply.content.decode().partition("\n\n")[0].split("\r\n")
    return lines[0], {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}


@pytest.fixture
def mirrored(serve, start_transport, exchange):
    """``mirrored(call={}, **settings)``: request line and headers of one exchange."""

    def send(call=None, base="/v1", **settings):
        transport = start_transport(serve(mirror).url + base, **settings)
        return head_of(exchange(transport, **(call or {})))

    return send


def test_a_request_is_json_and_asks_for_json(mirrored):
    line, headers = mirrored()
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "gzip, deflate"
    assert headers["content-length"] == "2"


def test_a_request_without_a_body_has_no_content_type(mirrored):
    line, headers = mirrored({"method": "GET", "path": "/models", "body": b""})
    assert line == "GET /v1/models HTTP/1.1"
    assert "content-type" not in headers


def test_the_key_is_sent(mirrored):
    assert mirrored(key="sk-123")[1]["authorization"] == "Bearer sk-123"


def test_netrc_does_not_replace_the_key(mirrored, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert mirrored(key="sk-123")[1]["authorization"] == "Bearer sk-123"
    assert "authorization" not in mirrored(key=None)[1]


def test_headers_of_settings_and_call_are_sent(mirrored):
    _, headers = mirrored(
        {"headers": {"X-Call": "1", "x-both": "call", "User-Agent": None}},
        headers={"X-Pool": "2", "X-Both": "pool", "Accept": "text/plain"},
    )
    assert (headers["x-call"], headers["x-pool"], headers["x-both"]) == ("1", "2", "call")
    assert headers["accept"] == "text/plain"
    assert "requests" not in headers.get("user-agent", "")


def test_a_header_of_one_call_is_not_sent_with_the_next(serve, start_transport, exchange):
    transport = start_transport(serve(mirror).url)
    exchange(transport, headers={"X-Call": "1"})
    assert "x-call" not in head_of(exchange(transport))[1]


def test_query_of_settings_and_call_is_sent(mirrored):
    line, _ = mirrored({"query": {"b": "2", "a": "call"}}, query={"a": "pool", "api-version": "2024-10-21"})
    assert line == "POST /v1/chat/completions?a=call&api-version=2024-10-21&b=2 HTTP/1.1"


def test_a_reply_has_status_headers_and_url_without_query(serve, start_transport, exchange):
    def script(peer):
        peer.read_request()
        peer.answer(b"{}", status="429 Too Many Requests", headers=["X-Request-Id: req_1", "Retry-After: 2"])

    server = serve(script)
    reply = exchange(start_transport(server.url + "/v1/"), query={"secret": "x"})
    assert (reply.status, reply.content) == (429, b"{}")
    assert (reply.headers["x-request-id"], reply.headers["RETRY-AFTER"]) == ("req_1", "2")
    assert reply.url == server.url + "/v1/chat/completions"


@pytest.mark.parametrize(("status", "shown"), [("401 Unauthorized", b"***"), ("200 OK", b"sk-a-secret-key")])
def test_the_key_is_scrubbed_from_error_bodies(status, shown, serve, start_transport, exchange):
    def script(peer):
        peer.read_request()
        peer.answer(b"wrong key: sk-a-secret-key", status=status)

    assert exchange(start_transport(serve(script).url)).content == b"wrong key: " + shown


def redirecting(location, status="307 Temporary Redirect"):
    def script(peer):
        while True:
            request = peer.read_request()
            if request is None:
                return
            if b"/old" in request[0].split(b"\r\n")[0]:
                peer.answer(b"moved", status=status, headers=[f"Location: {location}"])
            else:
                peer.answer(request[0] + b"\n\n" + request[1])

    return script


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_to_the_same_origin_is_followed_with_key_and_body(status, serve, start_transport, exchange):
    server = serve(redirecting("/v2/new?a=b", status))
    reply = exchange(start_transport(server.url), b"the body", path="/old", query={"c": "d"})
    line, headers = head_of(reply)
    assert line == "POST /v2/new?a=b HTTP/1.1"
    assert headers["authorization"] == "Bearer sk-a-secret-key"
    assert reply.content.endswith(b"\n\nthe body")
    assert reply.url == server.url + "/v2/new"


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_see_other_is_followed_by_get_with_the_key_and_without_the_body(method, serve, start_transport, exchange):
    server = serve(redirecting("/v2/calls/7", "303 See Other"))
    body = b"the body" if method == "POST" else b""
    reply = exchange(start_transport(server.url), body, path="/old", method=method)
    line, headers = head_of(reply)
    assert line == "GET /v2/calls/7 HTTP/1.1"
    assert headers["authorization"] == "Bearer sk-a-secret-key"
    assert {"content-length", "content-type", "transfer-encoding"}.isdisjoint(headers)
    assert reply.content.endswith(b"\n\n")
    assert len(server.peers) == 1


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found"])
def test_other_redirects_are_answers(status, serve, start_transport, exchange):
    server = serve(redirecting("/v2/new", status))
    reply = exchange(start_transport(server.url), path="/old")
    assert (reply.status, reply.headers["Location"]) == (int(status[:3]), "/v2/new")


@pytest.mark.parametrize("status", ["303 See Other", "307 Temporary Redirect"])
@pytest.mark.parametrize("location", ["http://localhost:1/", "http://[bad", "//evil.test/", "ftp://x/", "http://\\x"])
def test_a_redirect_to_another_origin_is_an_answer(location, status, serve, start_transport, exchange):
    server = serve(redirecting(location, status))
    reply = exchange(start_transport(server.url), path="/old")
    assert (reply.status, reply.headers["Location"]) == (int(status[:3]), location)


def test_redirects_without_end_are_an_error(serve, start_transport, exchange):
    server = serve(redirecting("/old"))
    with pytest.raises(requests.exceptions.TooManyRedirects):
        exchange(start_transport(server.url), path="/old")
    assert len(server.peers) == 1


def test_a_callable_key_is_asked_once_and_again_on_refresh(serve, exchange):
    keys = iter(["first-key", "second-key"])
    auth = KeyAuth(lambda: next(keys))
    transport = Transport(TransportSettings(serve(mirror).url, auth))
    try:
        for _ in range(2):
            assert head_of(exchange(transport))[1]["authorization"] == "Bearer first-key"
        auth.refresh()
        assert head_of(exchange(transport))[1]["authorization"] == "Bearer second-key"
    finally:
        transport.close()


def test_cookies_of_the_server_are_not_sent_back(serve, start_transport, exchange):
    def script(peer):
        while True:
            request = peer.read_request()
            if request is None or not peer.answer(request[0] + b"\n\n", headers=["Set-Cookie: a=b; Path=/"]):
                return

    transport = start_transport(serve(script).url)
    exchange(transport)
    assert "cookie" not in head_of(exchange(transport))[1]
