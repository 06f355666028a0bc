"""The cheap way of sending and reading does what requests, urllib3 and http.client do, and leaves the rest to them."""

from __future__ import annotations

import contextlib
import http.client
import io
import re

import pytest
import requests
from hypothesis import assume, example, given
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3._collections import HTTPHeaderDict

from chatpool._transport import KeyAuth, TransportSettings, http1
from chatpool._transport.http1 import FinalResponse, ParsedHeaders, RequestHeaders, parse_fields
from chatpool._transport.session import Preparer, make_session
from chatpool._wire import UnreadableAnswer


class Wire:
    """A connection on which one answer has arrived."""

    def __init__(self, data, buffered=io.DEFAULT_BUFFER_SIZE):
        self.file = io.BufferedReader(io.BytesIO(data), buffered)

    def makefile(self, mode):
        return self.file


def read(cls, data, method="POST"):
    """What a response class makes of an answer: its attributes, its fields and the body's start, or the exception."""
    wire = Wire(data)
    response = cls(wire, method=method)
    try:
        response.begin()
    except Exception as error:
        return type(error)
    names = ("status", "code", "reason", "version", "chunked", "chunk_left", "length", "will_close")
    facts = {name: getattr(response, name) for name in names}
    return facts, response.msg.items(), response.headers.get("CONTENT-TYPE"), wire.file.read()


class Plain(FinalResponse):
    """Fails where the plain way is not taken."""

    def _begin_line_by_line(self, **options):
        raise AssertionError("read line by line")


FIELD = st.sampled_from(
    [
        "Content-Type: application/json",
        "content-length: 2",
        "Content-Length:2",
        "Content-Length: 10",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: " + "9" * 5000,
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close",
        "Connection: keep-alive, Close",
        "Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "Set-Cookie: a=b",
        "Set-Cookie: c=d; Path=/",
        "X-Empty:",
        "X-Space: a b \t",
        "X-Tab:\ta\tb",
        "X-Colon: a:b: c",
        " folded",
        "\tfolded",
        "No colon",
        "Bad name: x",
        "X-Bell: \x07",
        "X-Latin: \xe9",
        "X-Nul: \x00",
        "X-CR: a\rb",
        "X-LF: a\nb",
        ": no name",
    ]
)
STATUS = st.sampled_from(
    [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1 200 ",
        "HTTP/1.1 429 Too Many Requests",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 500  two spaces ",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 103 Early Hints",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc OK",
        "HTTP/2 200 OK",
        "ICY 200 OK",
    ]
)


# What http.client stops at, reads in another way, or takes for no length: test_framing.py has what is right there.
UNUSUAL = frozenset(
    {
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: " + "9" * 5000,
        "Transfer-Encoding: gzip, chunked",
        " folded",
        "\tfolded",
        "No colon",
        "Bad name: x",
        "X-Nul: \x00",
        "X-CR: a\rb",
        "X-LF: a\nb",
        ": no name",
    }
)


def frames_once(fields):
    names = [field.partition(":")[0].lower() for field in fields]
    return names.count("connection") < 2 and names.count("content-length") + names.count("transfer-encoding") < 2


PLAIN = st.lists(FIELD.filter(lambda field: field not in UNUSUAL), max_size=8).filter(frames_once)


@given(
    status=STATUS,
    fields=PLAIN,
    line_end=st.sampled_from(["\r\n", "\r\n", "\r\n", "\n"]),
    method=st.sampled_from(["POST", "GET", "HEAD"]),
)
def test_a_head_means_what_http_client_makes_of_it(status, fields, line_end, method):
    data = (line_end.join([status, *fields, "", ""]) + "{}").encode("latin-1")
    bodiless = method == "HEAD" or " 204 " in status or " 304 " in status
    assume(not (bodiless and "transfer-encoding" in data.decode("latin-1").lower()))
    theirs = read(http.client.HTTPResponse, data, method)
    if " 103 " in status:  # which theirs takes for the answer
        assert read(FinalResponse, data, method) in (http.client.IncompleteRead, http.client.BadStatusLine)
    else:
        assert comparable(read(FinalResponse, data, method)) == comparable(theirs)


def comparable(found):
    """Without the order of fields, and white space at the end of a value."""
    if isinstance(found, type):
        return found
    facts, fields, *rest = found
    return facts, sorted((name.lower(), value.strip().lower()) for name, value in fields), rest


@given(
    status=STATUS,
    fields=st.lists(FIELD, max_size=8),
    line_end=st.sampled_from(["\r\n", "\n"]),
    method=st.sampled_from(["POST", "HEAD"]),
)
@example(status="HTTP/1.1 200 OK", fields=["X-A: b"] * 120, line_end="\r\n", method="POST")
def test_any_head_is_read_to_its_end_or_refused(status, fields, line_end, method):
    data = (line_end.join([status, *fields, "", ""]) + "{}").encode("latin-1")
    found = read(FinalResponse, data, method)
    if isinstance(found, type):
        assert issubclass(found, http.client.HTTPException)
    else:
        assert found[-1] == b"{}"
        lengths = [value for name, value in found[1] if name.lower() == "content-length"]
        assert len(lengths) < 2
        assert lengths in ([], [str(found[0]["length"])]) or method == "HEAD" or found[0]["status"] in (204, 304)


@pytest.mark.parametrize("field", ["Content-Length: 2", "Transfer-Encoding: chunked", "X-Colon: a:b", "X-Empty:"])
def test_a_plain_head_is_taken_at_once(field):
    data = f"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n{field}\r\n\r\n{{}}".encode()
    assert read(Plain, data) == read(http.client.HTTPResponse, data)


@pytest.mark.parametrize("buffered", [100, 8192, 128 * 1024])  # the last is Python 3.15's own
@pytest.mark.parametrize("longest", [200, 20_000, 70_000, 200_000])
def test_a_head_is_taken_at_once_if_all_of_it_has_arrived_and_it_is_not_too_long(longest, buffered):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: " + b"x" * longest + b"\r\n\r\n{}"
    at_once = longest < min(buffered, 65536)
    with contextlib.nullcontext() if at_once else pytest.raises(AssertionError, match="read line by line"):
        Plain(Wire(data, buffered), method="POST").begin()


def test_a_head_that_arrives_in_pieces_is_read_line_by_line():
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n{}"
    response = FinalResponse(Wire(data, 100), method="POST")
    response.begin()
    assert (response.status, response.length, len(response.headers["x-long"])) == (200, 2, 20_000)
    assert response.read() == b"{}"


def test_a_line_that_is_too_long_is_refused_however_much_of_it_has_arrived():
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n{}"
    for buffered in (8192, 128 * 1024):
        with pytest.raises(UnreadableAnswer, match="65,536 bytes"):
            FinalResponse(Wire(data, buffered), method="POST").begin()


def test_an_answer_may_have_as_many_trailers_as_fields():
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"X-A: b\r\n" * 500 + b"\r\n"
    response = FinalResponse(Wire(data), method="POST")
    response.begin()
    assert response.read() == b"{}"


def test_trailers_without_end_are_refused():
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"X-A: b\r\n" * 2000
    response = FinalResponse(Wire(data), method="POST")
    response.begin()
    with pytest.raises(UnreadableAnswer, match="trailer has more than 1,000 lines"):
        response.read()


@given(st.binary(max_size=60))
def test_fields_cover_their_lines_or_are_refused(lines):
    fields = parse_fields(lines)
    if fields is not None:
        joined = "".join(f"{name}:{value}" for name, value in fields.all)
        assert re.sub(r"[ \t\r\n]", "", joined) == re.sub(r"[ \t\r\n]", "", lines.decode("latin-1"))


@given(st.lists(st.tuples(st.sampled_from(["Set-Cookie", "set-cookie", "Via", "A", "B"]), st.text("abc", max_size=3))))
def test_the_headers_of_an_answer_are_those_that_requests_and_urllib3_make_of_it(fields):
    lines = "".join(f"{name}: {value}\r\n" if value else f"{name}:\r\n" for name, value in fields)
    raw = HTTPHeaderDict(fields)
    theirs = requests.structures.CaseInsensitiveDict(raw)
    parsed = ParsedHeaders(parse_fields(lines.encode()))
    ours = parsed.to_requests()
    assert ours == theirs
    assert list(ours.items()) == list(theirs.items())
    assert [parsed.to_urllib3().get(name, "none") for name in ("VIA", "c")] == [raw.get("Via", "none"), "none"]
    assert parsed.to_urllib3() == raw
    assert parsed.to_urllib3().copy() == raw


def test_urllib3s_headers_may_be_changed():
    raw = ParsedHeaders(parse_fields(b"A: 1\r\nB: 2\r\n")).to_urllib3()
    raw["a"] = "3"
    del raw["b"]
    assert (raw.get("A"), raw.get("b"), dict(raw)) == ("3", None, {"a": "3"})
    with pytest.raises(AttributeError):
        _ = raw.other


def test_the_lines_that_are_remembered_are_bounded():
    for number in range(2000):
        parse_fields(b"X-Request-Id: %d\r\nX-Long: %d%s\r\n" % (number, number, b"x" * 1000))
    assert len(http1._parsed.lines) <= 128
    assert all(len(line) < 300 for line in http1._parsed.lines)


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Connection"])
def test_fields_that_frame_the_body_are_not_merged(name):
    assert parse_fields(f"{name}: 1\r\n{name.lower()}: 1\r\n".encode()) is None


@given(st.dictionaries(st.sampled_from(["A", "b", "Content-Length", "X-Y"]), st.text(max_size=5)), st.text(max_size=5))
def test_lean_headers_are_case_insensitive_headers(content, value):
    theirs, ours = requests.structures.CaseInsensitiveDict(content), RequestHeaders(content)
    copied = ours.copy()
    copied["x-y"] = value
    assert ours == theirs
    assert list(ours) == list(theirs)
    assert list(ours.items()) == list(theirs.items())
    assert copied["X-Y"] == value


def prepared_both_ways(**settings):
    """A request cloned from a template, and one prepared in full."""
    made = TransportSettings("http://host/v1", KeyAuth("sk-123"), **settings)
    preparer = Preparer(make_session(HTTPAdapter(), made.base_url, made.session), made)
    url = "http://host/v1/chat/completions"
    preparer.prepare("POST", url, b"the first")
    template = preparer.prepare("POST", url, b"the body")
    full = preparer._prepare_in_full("POST", url, b"the body", made.auth, {}, {})
    return template, full


def test_a_clone_of_a_template_is_a_request_prepared_in_full():
    session = requests.Session()
    session.params = {"p": "1"}
    session.cookies.set("c", "d")
    session.hooks["response"].append(print)
    cloned, full = prepared_both_ways(session=session, query={"q": "2"}, headers={"X-Y": "z", "Accept": None})
    assert dict(cloned.headers) == dict(full.headers)
    for name in ("method", "url", "body", "hooks", "path_url"):
        assert getattr(cloned, name) == getattr(full, name)


def test_clones_share_nothing_that_changes():
    first, _ = prepared_both_ways()
    second = first.copy()
    second.headers["X-Mine"] = "1"
    assert "X-Mine" not in first.headers


@pytest.fixture
def sends(monkeypatch):
    """What was sent, one entry for each piece."""
    from chatpool._transport.tcp import CONNECTION

    sent = []
    real = CONNECTION.sendall

    def sendall(self, data, *args, **kwargs):
        sent.append(bytes(data))
        return real(self, data, *args, **kwargs)

    monkeypatch.setattr(CONNECTION, "sendall", sendall)
    return sent


def echo(peer):
    while request := peer.read_request():
        peer.answer(request[0] + b"\r\n\r\n" + request[1])


@pytest.fixture
def detours(monkeypatch):
    """What was called of the slow ways: http.client's, whichever Python's it is, and the own one."""
    called = []

    def watch(owner, name):
        real = getattr(owner, name)

        def watched(*args, **kwargs):
            called.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    for name in ("putheader", "_send_output"):
        watch(http.client.HTTPConnection, name)
    for name in ("begin", "_read_status"):
        watch(http.client.HTTPResponse, name)
    watch(http.client, "parse_headers")
    watch(FinalResponse, "_begin_line_by_line")
    return called


def test_the_short_way_is_taken_on_this_python(serve, start_transport, exchange, sends, detours):
    fields = ["Content-Type: application/json", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Request-Id: 1"]

    def script(peer):
        while peer.read_request():
            peer.answer(b"{}", headers=fields)

    transport = start_transport(serve(script).url)
    for _ in range(3):
        assert exchange(transport, b"the body").content == b"{}"
    assert (len(sends), detours) == (3, [])


def test_the_long_way_is_seen_as_a_detour(serve, start_transport, exchange, sends, detours, monkeypatch):
    monkeypatch.setattr(http1, "_MAX_JOINED_BODY_BYTES", 0)
    monkeypatch.setattr(FinalResponse, "_begin_fast", lambda self: False)
    exchange(start_transport(serve(echo).url), b"the body")
    assert {"putheader", "_send_output", "_begin_line_by_line", "_read_status"} <= set(detours)
    assert len(sends) == 2


def test_head_and_body_leave_together(serve, start_transport, exchange, sends):
    reply = exchange(start_transport(serve(echo).url), b"the body")
    assert len(sends) == 1
    assert sends[0] == reply.content
    assert sends[0].endswith(b"\r\n\r\nthe body")


def test_a_large_body_leaves_by_itself(serve, start_transport, exchange, sends):
    body = b"x" * 100_000
    assert exchange(start_transport(serve(echo).url), body).content.endswith(b"\r\n\r\n" + body)
    assert len(sends) == 2


def test_a_body_is_sent_even_where_http_client_works_in_another_way(serve, start_transport, exchange, monkeypatch):
    def send_output(self, message_body=None, encode_chunked=False):
        self.send(b"\r\n".join([*self._buffer, b"", b""]))
        self._buffer.clear()

    monkeypatch.setattr(http1.FastPathConnection, "_send_output", send_output)
    assert exchange(start_transport(serve(echo).url), b"the body").content.endswith(b"\r\n\r\nthe body")


def test_the_same_goes_out_either_way(serve, start_transport, exchange, monkeypatch):
    transport = start_transport(serve(echo).url, headers={"X-Text": "a, b; c"})
    joined = exchange(transport).content
    monkeypatch.setattr(http1, "_MAX_JOINED_BODY_BYTES", 0)
    assert exchange(transport).content == joined


def test_templates_are_bounded(start_transport, exchange, serve):
    server = serve(lambda peer: echo(peer))
    transport = start_transport(server.url)
    for number in range(200):
        assert exchange(transport, path=f"/{number}").status == 200
    assert len(server.peers) == 1
    assert 0 < len(transport._preparer._templates["POST"]) <= 64


def test_repeated_fields_of_an_answer_are_joined(serve, start_transport, exchange):
    def script(peer):
        peer.read_request()
        peer.answer(b"{}", headers=["X-A: 1", "x-a: 2", "X-B: 3"])

    reply = exchange(start_transport(serve(script).url))
    assert (reply.headers["X-A"], reply.headers["x-b"]) == ("1, 2", "3")


def test_a_hook_finds_all_headers_in_urllib3s_response(serve, start_transport, exchange):
    seen = []
    session = requests.Session()
    session.hooks["response"].append(lambda response, **_: seen.append(response.raw.headers))
    cookies = ["Set-Cookie: a=1", "X-Other: yes", "set-cookie: b=2"]
    server = serve(lambda peer: peer.read_request() and peer.answer(b"{}", headers=cookies))
    reply = exchange(start_transport(server.url, session=session))
    [http1] = seen
    assert isinstance(http1, HTTPHeaderDict)
    assert http1.getlist("SET-COOKIE") == ["a=1", "b=2"]
    assert dict(http1) == {"Content-Length": "2", "Set-Cookie": "a=1, b=2", "X-Other": "yes"}
    assert reply.headers.get("x-other") == reply.headers["X-OTHER"] == "yes"
    assert reply.headers.get("X-Missing", "none") == "none"
