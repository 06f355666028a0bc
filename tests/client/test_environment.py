"""Environment variables of OpenAI's client: what it reads, a pool reads in the same way."""

from __future__ import annotations

import pytest

from chatpool import AuthenticationError, ChatPool, ConfigurationError, Endpoint
from chatpool.testing import Error

KEY = "sk-of-the-environment"


@pytest.fixture
def custom_headers(monkeypatch):
    """A function that sets OPENAI_CUSTOM_HEADERS."""
    return lambda text: monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", text)


def headers_of(server):
    return server.requests[-1].headers


class TestCustomHeaders:
    def test_each_line_is_a_header_as_openais_client_splits_it(self, serve, custom_headers):
        custom_headers("X-Team: a\r\n  x-url :  http://host:80/a  \nno header\n\nX-Empty:\nX-Team: b")
        server, pool = serve()
        pool.chat("a")
        sent = headers_of(server)
        assert (sent["x-team"], sent["x-url"], sent["x-empty"]) == ("b", "http://host:80/a", "")

    def test_they_go_before_other_variables_and_behind_arguments(self, serve, custom_headers, monkeypatch):
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
        custom_headers("openai-organization: org-2\nX-Team: environment\nX-Call: environment")
        server, pool = serve(headers={"x-team": "argument"})
        pool.chat("a", headers={"x-call": "call"})
        sent = headers_of(server)
        assert [sent[name] for name in ("openai-organization", "openai-project", "x-team", "x-call")] == [
            "org-2",
            "proj-1",
            "argument",
            "call",
        ]

    def test_an_authorization_stands_for_the_key_of_the_environment_only(self, serve, custom_headers, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        custom_headers("authorization: Bearer of-the-gateway")
        server, pool = serve()
        pool.chat("a")
        assert headers_of(server)["authorization"] == "Bearer of-the-gateway"
        server, pool = serve(api_key="sk-argument")
        pool.chat("a")
        assert headers_of(server)["authorization"] == "Bearer sk-argument"
        monkeypatch.delenv("OPENAI_API_KEY")
        ChatPool().close()  # OpenAI's own server: it is signed in

    def test_azure_gets_them_too(self, chatpool_server, custom_headers):
        custom_headers("X-Team: a")
        with ChatPool.azure(chatpool_server.origin, "gpt", api_key="k", api_version="1") as pool:
            pool.chat("a")
        assert headers_of(chatpool_server)["x-team"] == "a"

    def test_an_endpoint_that_the_environment_is_not_for_gets_none(self, serve, custom_headers, monkeypatch):
        home, _ = serve()
        other, _ = serve()
        monkeypatch.setenv("OPENAI_BASE_URL", home.base_url)
        custom_headers("X-Secret: a-token")
        endpoints = [
            Endpoint(),
            Endpoint(other.base_url),
            Endpoint.azure(other.origin, "gpt", api_key="k", api_version="1"),
        ]
        for endpoint in endpoints:
            with ChatPool("m", endpoints=[endpoint]) as pool:
                pool.chat("a")
        assert headers_of(home)["x-secret"] == "a-token"
        assert ["x-secret" in request.headers for request in other.requests] == [False, False]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (
                "X-Team: caf\u00e9 \u2026",
                "the header 'X-Team' must not contain a character that no HTTP header can carry",
            ),
            (f"Bearer {KEY}: a", "the name of a header must be of letters, digits and hyphens, got one with ' '"),
            (": a", "the name of a header must be of letters, digits and hyphens, got an empty one"),
        ],
    )
    def test_a_header_that_cannot_be_sent_names_the_variable(self, custom_headers, text, words):
        custom_headers(text)
        with pytest.raises(ConfigurationError) as caught:
            ChatPool(base_url="http://x")
        assert str(caught.value) == f"OPENAI_CUSTOM_HEADERS: {words}"

    def test_a_key_among_them_is_not_shown(self, serve, custom_headers):
        custom_headers(f"X-Api-Key: {KEY}")
        server, pool = serve(Error(401, f"Incorrect key: {KEY}"))
        assert KEY not in repr(pool._core.transport.settings)
        with pytest.raises(AuthenticationError) as caught:
            pool.chat("a")
        assert KEY not in str(caught.value)
        assert headers_of(server)["x-api-key"] == KEY


class TestAzureToken:
    def test_a_token_of_the_environment_goes_before_its_key(self, chatpool_server, monkeypatch):
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
        monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "a-token")
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", chatpool_server.origin)
        for endpoint in (None, Endpoint.azure(None, "gpt", api_version="1")):
            options = {"endpoints": [endpoint]} if endpoint else {}
            make = ChatPool if endpoint else lambda: ChatPool.azure(None, "gpt", api_version="1")
            with make(**options) as pool:
                pool.chat("a")
            sent = headers_of(chatpool_server)
            assert (sent["authorization"], sent.get("api-key")) == ("Bearer a-token", None)

    def test_an_argument_goes_before_both(self, chatpool_server, monkeypatch):
        monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "a-token")
        with ChatPool.azure(chatpool_server.origin, "gpt", api_key="mine", api_version="1") as pool:
            pool.chat("a")
        sent = headers_of(chatpool_server)
        assert (sent.get("authorization"), sent["api-key"]) == (None, "mine")
