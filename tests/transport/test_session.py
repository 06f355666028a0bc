"""What is taken over from a session of the user's, and that it stays theirs."""

from __future__ import annotations

import logging

import pytest
import requests
from requests.adapters import HTTPAdapter

from chatpool._transport import KeyAuth, Transport, TransportSettings
from chatpool._transport.session import make_session

URL = "http://127.0.0.1:1/v1"


def mirror(peer):
    while True:
        request = peer.read_request()
        if request is None or not peer.answer(request[0]):
            return


@pytest.fixture
def seen(serve, start_transport, exchange):
    """``seen(session, **settings)``: the head of a request that the server received."""

    def send(session, **settings):
        return exchange(start_transport(serve(mirror).url, session=session, **settings)).content.decode()

    return send


def test_headers_params_cookies_and_hooks_are_taken_over(seen):
    session = requests.Session()
    session.headers["X-Team"] = "a"
    session.params = {"tenant": "b"}
    session.cookies.set("c", "d")
    statuses = []
    session.hooks["response"].append(lambda response, **kwargs: statuses.append(response.status_code))
    head = seen(session)
    assert "X-Team: a" in head
    assert "POST /chat/completions?tenant=b " in head
    assert "Cookie: c=d" in head
    assert statuses == [200]


def test_defaults_of_a_session_do_not_replace_ours(seen):
    assert "Accept: application/json" in seen(requests.Session())


def test_settings_beat_the_session(seen):
    session = requests.Session()
    session.headers["X-Team"] = "a"
    assert "X-Team: b" in seen(session, headers={"X-Team": "b"})


def test_its_auth_is_used_where_there_is_no_key(seen):
    session = requests.Session()
    session.auth = ("user", "pass")
    assert "Authorization: Basic dXNlcjpwYXNz" in seen(session, key=None)
    assert "Authorization: Bearer sk-1" in seen(session, key="sk-1")
    assert session.auth == ("user", "pass")


def test_its_verify_cert_proxies_and_trust_env_are_taken_over(serve, start_transport, exchange, authority):
    session = requests.Session()
    session.verify = authority.file
    server = serve(mirror, tls=True)
    assert exchange(start_transport(server.url, session=session, verify=None)).status == 200
    session.proxies = {"http": serve(mirror).url}
    assert b"http://api.test/" in exchange(start_transport("http://api.test", session=session)).content


def test_it_is_neither_changed_nor_closed(start_transport, exchange, serve):
    class Watched(HTTPAdapter):
        closed = False

        def close(self):
            self.closed = True
            super().close()

    adapter = Watched()
    session = requests.Session()
    session.mount("http://elsewhere.test", adapter)
    before = {name: repr(getattr(session, name)) for name in session.__attrs__ if name != "adapters"}
    adapters = dict(session.adapters)
    transport = start_transport(serve(mirror).url, session=session)
    exchange(transport)
    transport.close()
    assert {name: repr(getattr(session, name)) for name in before} == before
    assert dict(session.adapters) == adapters
    assert not adapter.closed


def test_later_changes_of_it_do_not_matter(seen, serve, start_transport, exchange):
    session = requests.Session()
    transport = start_transport(serve(mirror).url, session=session)
    session.headers["X-Late"] = "1"
    session.hooks["response"].append(lambda *args, **kwargs: 1 / 0)
    assert b"X-Late" not in exchange(transport).content


def test_an_adapter_of_the_users_is_kept_with_one_warning(serve, start_transport, exchange, caplog):
    class Counting(HTTPAdapter):
        sent = 0

        def send(self, *args, **kwargs):
            self.sent += 1
            return super().send(*args, **kwargs)

    adapter = Counting()
    session = requests.Session()
    session.mount("http://", adapter)
    with caplog.at_level(logging.WARNING):
        transport = start_transport(serve(mirror).url, session=session)
        for _ in range(2):
            assert exchange(transport).status == 200
    assert adapter.sent == 2
    session.close()
    warnings = [record.message for record in caplog.records if "hard deadlines" in record.message]
    assert len(warnings) == 1
    assert f"its own adapter for {transport.base_url} (Counting)" in warnings[0]


def test_an_adapter_for_another_place_raises_no_warning(caplog):
    class Other(HTTPAdapter):
        pass

    session = requests.Session()
    session.mount("http://elsewhere.test", Other())
    make_session(HTTPAdapter(), URL, session).close()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("base_url", "problem"),
    [
        ("api.openai.com/v1", "must start with http:// or https://"),
        ("", "must start with http:// or https://"),
        ("ftp://host/v1", "must start with http:// or https://"),
        ("https://", "must name a host"),
        ("https:///v1", "must name a host"),
        ("http://a b/v1", "must name a host and contain no spaces"),
        ("http://host:port/v1", "cannot be read as a URL"),
        ("http://[::1/v1", "cannot be read as a URL"),
        ("https://key@host/v1", "must not contain a user name or password"),
        ("https://host/v1?key=secret", "must not contain a query"),
        ("https://host/v1#top", "must not contain a fragment"),
    ],
)
def test_a_wrong_base_url_is_named(base_url, problem):
    with pytest.raises(ValueError, match="base_url") as caught:
        Transport(TransportSettings(base_url, KeyAuth(None)))
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "key@" not in str(caught.value)


def test_a_base_url_of_a_wrong_type_is_named():
    with pytest.raises(TypeError, match="base_url must be a str"):
        Transport(TransportSettings(None, KeyAuth(None)))


@pytest.mark.parametrize("base_url", ["http://host/v1", " http://host/v1/ ", "http://host/v1//"])
def test_slashes_do_not_matter(base_url):
    transport = Transport(TransportSettings(base_url, KeyAuth(None)))
    assert transport.base_url == "http://host/v1"
    assert transport.url_of("/models") == transport.url_of("models") == "http://host/v1/models"
    with pytest.raises(ValueError, match="path"):
        transport.url_of("http://elsewhere/v1")
    transport.close()
