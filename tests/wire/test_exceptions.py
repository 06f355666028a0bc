"""Classification of exceptions that an exchange raised."""

from __future__ import annotations

import contextlib
import errno
import http.client
import pickle
import socket
import ssl
import struct
import threading
import traceback

import pytest
import requests
import urllib3.exceptions
from hypothesis import given
from hypothesis import strategies as st

from chatpool import APIConnectionError, APIResponseError, APITimeoutError
from chatpool._wire import classify_exception

URL = "https://api.example.com/v1/chat/completions"
SECRET = "sk-secret"
BODY = "a prompt"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def read_request(connection):
    """Read to the end: bytes left unread would turn an orderly close into a reset."""
    with connection.makefile("rb") as stream:
        head = list(iter(lambda: stream.readline().strip().lower(), b""))
        stream.read(sum(int(line.partition(b":")[2]) for line in head if line.startswith(b"content-length:")))


def read_anything(connection):
    """Read what has come, in whichever protocol."""
    connection.recv(65536)


@contextlib.contextmanager
def server(answer, *, take=read_request, reset=False, hold=False):
    """A server on loopback that reads one request, sends ``answer`` and closes; its URL."""
    done = threading.Event()

    def serve():
        connection, _ = listener.accept()
        with connection:
            take(connection)
            connection.sendall(answer)
            if hold:
                done.wait(10)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            done.set()
            thread.join()


def raised(call, *args, **keywords):
    """What ``call`` raises."""
    try:
        call(*args, **keywords)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raised_by_post(url, **keywords):
    with requests.Session() as session:
        session.trust_env = False
        keywords = {"timeout": 5, "headers": {"Authorization": f"Bearer {SECRET}"}, "data": BODY, **keywords}
        return raised(session.post, url, **keywords)


class TestRealFailures:
    """Failures of real connections, as requests reports them in whichever version is installed."""

    def test_nobody_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        verdict = classify_exception(raised_by_post(url), url=url)
        assert (verdict.kind, verdict.scope, type(verdict.error)) == ("unavailable", "call", APIConnectionError)
        assert str(verdict.error).startswith(f"connection refused by {url}; check that the server runs")

    @pytest.mark.parametrize(
        ("answer", "options", "words"),
        [
            (b"", {}, "closed the connection without an answer"),
            (b"", {"reset": True}, "was reset"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", {}, "broke off"),
            (b"I speak no HTTP\r\n\r\n", {}, "is not HTTP"),
        ],
    )
    def test_the_connection_breaks(self, answer, options, words):
        with server(answer, **options) as url:
            verdict = classify_exception(raised_by_post(url), url=url)
        assert (verdict.kind, type(verdict.error)) == ("unavailable", APIConnectionError)
        assert words in str(verdict.error)
        assert url in str(verdict.error)

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"], ids=["head", "body"])
    def test_the_server_is_silent_for_too_long(self, answer):
        with server(answer, hold=True) as url:
            verdict = classify_exception(raised_by_post(url, timeout=0.05), url=url)
        assert (verdict.kind, type(verdict.error)) == ("timeout", APITimeoutError)
        assert str(verdict.error).startswith(f"timed out waiting for {url}; raise timeout")

    def test_the_server_does_not_speak_tls(self):
        with server(b"HTTP/1.1 400 Bad Request\r\n\r\n", take=read_anything) as url:
            url = url.replace("http:", "https:")
            verdict = classify_exception(raised_by_post(url), url=url)
        assert verdict.kind == "unavailable"
        assert "TLS connection" in str(verdict.error)
        assert "http:// or https://" in str(verdict.error)

    def test_the_answer_cannot_be_decompressed(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"
        with server(answer) as url:
            verdict = classify_exception(raised_by_post(url), url=url)
        assert (verdict.kind, type(verdict.error)) == ("retry", APIResponseError)

    def test_the_host_has_no_address(self, monkeypatch):
        def fail(*args, **keywords):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        verdict = classify_exception(raised_by_post(URL), url=URL)
        assert verdict.kind == "unavailable"
        assert str(verdict.error).startswith(f"the host name in {URL} cannot be resolved: gaierror: Name or service")

    def test_the_proxy_does_not_let_through(self):
        with server(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
            verdict = classify_exception(raised_by_post(URL, proxies={"https": proxy}), url=URL)
        assert (verdict.kind, verdict.scope, verdict.about) == ("fatal", "endpoint", "access")
        assert f"the proxy refused to connect to {URL}" in str(verdict.error)
        assert "407" in str(verdict.error)
        assert "NO_PROXY" in str(verdict.error)
        assert "user and password" in str(verdict.error)

    @pytest.mark.parametrize(
        ("status", "kind", "said"),
        [
            (401, "fatal", "refused to connect"),  # tinyproxy, of a wrong login
            (403, "fatal", "does not allow connections"),
            (405, "fatal", "does not allow connections"),  # it is no proxy
            (500, "unavailable", "did not connect"),  # tinyproxy, of a server that is down
            (502, "unavailable", "did not connect"),
        ],
    )
    def test_the_proxy_answers_for_a_tunnel(self, status, kind, said):
        with server(b"HTTP/1.1 %d No\r\n\r\n" % status) as proxy:
            error = raised_by_post(URL, proxies={"https": proxy})
            verdict = classify_exception(error, url=URL, proxy="http://proxy.test:3128")
        assert verdict.kind == kind
        assert str(verdict.error).startswith(f"the proxy http://proxy.test:3128 {said} to {URL}")
        assert str(status) in str(verdict.error)

    def test_a_failure_on_the_way_names_the_proxy_and_its_cure(self):
        error = requests.exceptions.ConnectionError(ConnectionRefusedError())
        said = str(classify_exception(error, url=URL, proxy="http://proxy.test:3128").error)
        assert f"connection refused by {URL} through the proxy http://proxy.test:3128" in said
        assert "HTTPS_PROXY" in said
        assert "NO_PROXY" in said
        assert "proxy" not in str(classify_exception(error, url=URL).error)

    @pytest.mark.parametrize(
        ("code", "words", "cure"),
        [
            (85, "Missing Authority Key Identifier", "VERIFY_X509_STRICT"),
            (89, "Basic Constraints of CA cert not marked critical", "VERIFY_X509_STRICT"),
            (62, "Hostname mismatch, certificate is not valid for 'x'", "base_url names the host"),
            (10, "certificate has expired", "renewed by its owner"),
            (20, "unable to get local issuer certificate", "certificate authority of your own"),
        ],
    )
    def test_what_is_wrong_with_a_certificate_decides_on_the_cure(self, code, words, cure):
        cause = ssl.SSLCertVerificationError(1, f"certificate verify failed: {words}")
        cause.verify_code = code
        verdict = classify_exception(requests.exceptions.SSLError(cause), url=URL)
        assert (verdict.kind, verdict.scope) == ("fatal", "endpoint")
        assert words in str(verdict.error)
        assert cure in str(verdict.error)

    def test_a_proxy_that_speaks_socks_needs_a_package(self):
        error = requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")
        said = str(classify_exception(error, url=URL, proxy="socks5h://proxy.test:1080").error)
        assert "proxy" in said
        assert "requests[socks]" in said

    @pytest.mark.parametrize("url", ["no-scheme/v1", "ftp://127.0.0.1/v1", "http://", "http://[broken/v1"])
    def test_the_url_is_none(self, url):
        verdict = classify_exception(raised_by_post(url), url=url)
        assert (verdict.kind, type(verdict.error)) == ("fail", APIConnectionError)
        assert "check base_url" in str(verdict.error)

    def test_a_header_is_wrong(self):
        bad = {"Authorization": f"Bearer {SECRET}\nx"}
        verdict = classify_exception(raised_by_post("http://127.0.0.1:1/v1", headers=bad), url=URL)
        assert verdict.kind == "fail"
        assert "a header cannot be sent" in str(verdict.error)
        assert SECRET not in "".join(traceback.format_exception(None, verdict.error, None))


def wrapped(reason, outer=requests.ConnectionError):
    """``reason`` as urllib3 and requests wrap it."""
    return outer(urllib3.exceptions.MaxRetryError(None, f"/v1?api-key={SECRET}", reason))


def nested(outer, inner):
    """``outer`` raised while ``inner`` was handled."""
    outer.__context__ = inner
    return outer


def certificate_error():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")
    return wrapped(urllib3.exceptions.SSLError(error), requests.exceptions.SSLError)


class OfTheTransport(requests.exceptions.ReadTimeout):
    """A subclass such as a transport makes for a deadline of its own."""


def connection_failure(inner):
    return nested(urllib3.exceptions.NewConnectionError(None, "Failed to establish a new connection"), inner)


BROKEN = ("unavailable", "call", APIConnectionError)
NOT_CONNECTED_IN_TIME = ("unavailable", "call", APITimeoutError)
TOO_SLOW = ("timeout", "call", APITimeoutError)
HOPELESS = ("fail", "call", APIConnectionError)
FATAL = ("fatal", "endpoint", APIConnectionError)

NO_ROUTE = OSError(errno.ENETUNREACH, "Network is unreachable")
LATE = OSError(errno.ETIMEDOUT, "Connection timed out")
LATE_TO_CONNECT = wrapped(urllib3.exceptions.ConnectTimeoutError("timed out"), requests.ConnectTimeout)
LATE_BODY = requests.ConnectionError(urllib3.exceptions.ReadTimeoutError(None, "/", "slow"))
NO_SOCKS = requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support")

# exception, (kind, scope, error class), words
TABLE = {
    "certificate": (certificate_error(), FATAL, "REQUESTS_CA_BUNDLE"),
    "tls of requests": (requests.exceptions.SSLError("bad"), BROKEN, "TLS"),
    "tls eof": (ssl.SSLEOFError(8, "EOF occurred"), BROKEN, "EOF occurred"),
    "no route": (wrapped(connection_failure(NO_ROUTE)), BROKEN, "no network route"),
    "no files": (OSError(errno.EMFILE, "Too many open files"), BROKEN, "ulimit -n"),
    "connect time-out of the system": (wrapped(connection_failure(LATE)), BROKEN, "no connection to"),
    "connect time-out": (LATE_TO_CONNECT, NOT_CONNECTED_IN_TIME, "timed out connecting to"),
    "read time-out": (requests.ReadTimeout("slow"), TOO_SLOW, "timed out waiting"),
    "time-out of one's own": (OfTheTransport("slow"), TOO_SLOW, "timed out waiting"),
    "time-out of a socket": (socket.timeout("slow"), TOO_SLOW, "timed out waiting"),
    "time-out in the body": (LATE_BODY, TOO_SLOW, "timed out waiting"),
    "proxy": (requests.exceptions.ProxyError("no"), BROKEN, "NO_PROXY"),
    "proxy url": (requests.exceptions.InvalidProxyURL("no"), FATAL, "HTTPS_PROXY"),
    "socks": (NO_SOCKS, FATAL, "SOCKS"),
    "pipe": (BrokenPipeError(errno.EPIPE, "Broken pipe"), BROKEN, "was reset"),
    "aborted": (ConnectionAbortedError(), BROKEN, "was reset"),
    "cut off": (http.client.IncompleteRead(b"ab", 9), BROKEN, "broke off"),
    "header too long": (http.client.LineTooLong("header line"), BROKEN, "not HTTP"),
    "redirects": (requests.TooManyRedirects("30"), HOPELESS, "too many redirects"),
    "of a mock": (requests.ConnectionError("no registered mock"), BROKEN, "no registered mock"),
    "of urllib3": (urllib3.exceptions.HTTPError("odd"), BROKEN, "odd"),
    "of the system": (OSError(errno.EIO, "Input/output error"), BROKEN, "Input/output"),
    "header in http.client": (ValueError(f"Invalid header value b'{SECRET}'"), HOPELESS, "headers="),
    "unexpected": (KeyError("hook"), HOPELESS, "KeyError: 'hook'"),
}


@pytest.mark.parametrize(("error", "expected", "words"), TABLE.values(), ids=TABLE)
def test_every_row_of_the_table(error, expected, words):
    verdict = classify_exception(error, url=URL)
    assert (verdict.kind, verdict.scope, type(verdict.error)) == expected
    assert (verdict.status, verdict.value, verdict.error.status_code) == (None, None, None)
    assert words in str(verdict.error)
    assert URL in str(verdict.error)
    assert verdict.error.__cause__ is error
    assert SECRET not in "".join(traceback.format_exception(None, verdict.error, None))
    assert str(pickle.loads(pickle.dumps(verdict.error))) == str(verdict.error)


def test_time_outs_are_time_out_errors():
    assert isinstance(classify_exception(requests.ReadTimeout(), url=URL).error, TimeoutError)


class TestScrubbing:
    """Causes are kept, without what they hold."""

    def test_requests_and_responses_are_dropped_at_every_depth(self):
        prepared = requests.Request("POST", URL, headers={"Authorization": SECRET}).prepare()
        inner = requests.ConnectionError("inner", request=prepared)
        middle = nested(
            requests.ConnectionError(inner, request=prepared), requests.HTTPError(response=requests.Response())
        )
        outer = requests.ConnectionError(middle, request=prepared)
        classify_exception(outer, url=URL)
        for error in (outer, middle, inner, middle.__context__):
            assert error.request is None
            assert error.response is None

    def test_pools_and_frames_are_dropped(self):
        error = raised_by_post("http://127.0.0.1:1/v1?api-key=" + SECRET)
        classify_exception(error, url=URL)
        reason = error.args[0]
        assert (reason.pool, reason.url, reason.__traceback__, error.__traceback__) == (None, None, None, None)
        assert SECRET not in str(error) + str(reason)

    def test_an_unexpected_exception_keeps_its_traceback(self):
        error = raised(lambda: {}["hook"])
        classify_exception(error, url=URL)
        assert error.__traceback__ is not None

    def test_exceptions_that_wrap_one_another_in_a_circle_are_survived(self):
        first, second = requests.ConnectionError("a"), requests.ConnectionError("b")
        first.args, second.args = (second,), (first,)
        assert classify_exception(first, url=URL).kind == "unavailable"

    def test_the_url_is_shown_without_user_and_query(self):
        error = classify_exception(requests.ConnectionError(), url=f"https://me:{SECRET}@h/v1?key={SECRET}").error
        assert "https://h/v1" in str(error)
        assert SECRET not in str(error)


@given(
    st.sampled_from(
        [OSError, ValueError, requests.ConnectionError, urllib3.exceptions.HTTPError, http.client.HTTPException]
    ),
    st.lists(st.text() | st.binary() | st.none() | st.integers(), max_size=3),
    st.text(),
)
def test_whatever_was_raised_there_is_one_consistent_verdict(cls, args, url):
    error = cls(*args)
    verdict = classify_exception(error, url=url)
    assert verdict.kind in {"timeout", "unavailable", "retry", "fail", "fatal"}
    assert (verdict.scope == "call") == (verdict.kind != "fatal")
    assert verdict.error.__cause__ is error
