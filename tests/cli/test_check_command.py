"""``chatpool check``: every line says how something is, and what to do if it is wrong."""

from __future__ import annotations

import pytest

from chatpool.testing import Answer, Error, Html

LIMITS = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}


@pytest.fixture
def check(run, chatpool_server):
    """``check(*arguments)`` looks at the test's server; returns the exit code and the lines by name."""

    def command(*arguments, url=None):
        ended = run("check", "--base-url", url or chatpool_server.base_url, *arguments)
        lines = {line.split()[1]: line for line in ended.lines if not line.strip().startswith("->")}
        return ended.code, lines, ended.out

    return command


@pytest.fixture
def serves_models(chatpool_server):
    """Lets the server list one model, and name limits with every answer."""

    def script(request):
        if request.path.endswith("/models"):
            return Answer(body={"object": "list", "data": [{"id": "m"}]})
        return Answer("ok", headers=LIMITS)

    chatpool_server.set_script(script)


def test_all_is_well(check, serves_models, chatpool_server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    code, lines, out = check("--model", "m")
    assert code == 0
    assert list(lines) == ["key", "base_url", "proxy", "CA", "model", "call", "limits"]
    assert all(line.startswith("ok ") for line in lines.values())
    assert "answered in 0." in lines["call"]
    assert "limit requests 500, remaining requests 499" in lines["limits"]
    assert "one of the server's 1" in lines["model"]
    assert "secret" not in out
    assert [request.path for request in chatpool_server.requests] == ["/v1/models", "/v1/chat/completions"]


def test_a_model_that_is_not_there_is_marked(check, serves_models):
    code, lines, out = check("--model", "gone")
    assert code == 3
    assert lines["model"] == "WRONG  model     gone is not among the server's models"
    assert "-> choose another, for instance m" in out


def test_without_a_model_the_first_of_the_server_is_called(check, serves_models, chatpool_server):
    code, lines, _ = check()
    assert (code, "none is named; the server has m" in lines["model"]) == (0, True)
    assert chatpool_server.requests[1].body["model"] == "m"


@pytest.mark.parametrize(
    ("step", "words", "cure"),
    [
        (Error(401), "HTTP 401", "check the API key"),
        (Html(200), "is not JSON", "check that base_url points at"),
        (Error(404), "HTTP 404", "usually in /v1"),
    ],
)
def test_a_call_that_fails_says_why_and_what_to_do(check, chatpool_server, step, words, cure):
    chatpool_server.set_script(step)
    code, lines, out = check("--model", "m")
    assert code == 3
    assert lines["call"].startswith("WRONG")
    assert words in lines["call"]
    assert cure in out
    assert len(chatpool_server.requests) == 2  # nothing is tried again


def test_a_server_that_is_not_there_is_said(check):
    code, lines, _ = check("--model", "m", url="http://127.0.0.1:1/v1")
    assert (code, "connection refused" in lines["call"]) == (3, True)


def test_a_base_url_without_a_version_is_remarked_on(check, chatpool_server):
    _, lines, _ = check("--model", "m", url=chatpool_server.origin)
    assert "most servers want it to end in /v1" in lines["base_url"]


def test_a_missing_key_of_openai_is_exit_code_2(run):
    ended = run("check")
    assert (ended.code, "OPENAI_API_KEY" in ended.err) == (2, True)


def test_a_proxy_is_named_without_its_password(check, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    _, lines, out = check("--model", "m", "--timeout", "1", url="http://server.invalid/v1")
    assert "127.0.0.1:9" in lines["proxy"]
    assert "secret" not in out


def test_a_ca_bundle_that_is_not_there_is_exit_code_2(run, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    ended = run("check", "--model", "m", "--base-url", "https://127.0.0.1:1/v1")
    assert (ended.code, "/nowhere/ca.pem" in ended.err) == (2, True)
