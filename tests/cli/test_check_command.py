"""``chatpool check``: every line says how something is, and what to do if it is wrong."""

from __future__ import annotations

import ssl

import pytest

from chatpool.testing import Answer, Error, FakeServer, Html, RateLimited, Stall

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


def marks(lines):
    """The state of each thing that was looked at."""
    return {name: line.split()[0] for name, line in lines.items()}


def models_only(step, call=None):
    """A script: one step for the list of models, another for the call."""
    return lambda request: step if request.path.endswith("/models") else call


MODELS = Answer(body={"object": "list", "data": [{"id": "m"}]})


def test_all_is_well(check, serves_models, chatpool_server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    code, lines, out = check("--model", "m")
    assert code == 0
    assert list(lines) == ["base_url", "proxy", "CA", "server", "key", "model", "call", "limits"]
    assert set(marks(lines).values()) == {"ok"}
    assert "answered in 0." in lines["call"]
    assert "limit requests 500, remaining requests 499" in lines["limits"]
    assert "one of the server's 1" in lines["model"]
    assert "secret" not in out
    assert [request.path for request in chatpool_server.requests] == ["/v1/models", "/v1/chat/completions"]


def test_quiet_shows_only_what_is_not_well(check, chatpool_server):
    chatpool_server.set_script(models_only(MODELS))
    code, lines, _ = check("--model", "m", "--quiet")
    assert (code, marks(lines)) == (0, {"limits": "unknown"})


@pytest.mark.parametrize("key", ["sk-secret", None])
def test_a_refused_key_is_wrong_and_proves_nothing_else(check, chatpool_server, monkeypatch, key):
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    chatpool_server.set_script(Error(401))
    code, lines, out = check("--model", "m")
    assert code == 3
    assert marks(lines) == {
        "base_url": "unknown",
        "proxy": "ok",
        "CA": "ok",
        "server": "ok",
        "key": "WRONG",
        "model": "unknown",
        "call": "WRONG",
        "limits": "unknown",
    }
    assert ("-> check the API key" if key else "-> set OPENAI_API_KEY") in out
    assert len(chatpool_server.requests) == 2  # nothing is tried again


@pytest.mark.parametrize(
    "step",
    [
        Error(404),
        Error(401),
        Error(403),
        Html(200),
        Html(404),
        Error(500),
        pytest.param(Stall(), marks=pytest.mark.slow),
    ],
)
def test_a_server_that_lists_no_models_is_well_if_it_answers(check, chatpool_server, step):
    chatpool_server.set_script(models_only(step))
    code, lines, _ = check("--model", "m", "--timeout", "5")
    assert code == 0
    assert {name for name, mark in marks(lines).items() if mark != "ok"} == {"limits"}
    assert lines["model"] == "ok       model     m, it answers"


def test_a_model_that_is_not_listed_is_well_if_it_answers(check, serves_models):
    code, lines, _ = check("--model", "alias")
    assert (code, marks(lines)["model"]) == (0, "ok")


def test_a_model_that_is_not_listed_and_does_not_answer_is_wrong(check, chatpool_server):
    chatpool_server.set_script(models_only(MODELS, Error(404)))
    code, lines, out = check("--model", "gone")
    assert code == 3
    assert lines["model"] == "WRONG    model     gone is not among the server's models"
    assert "-> choose another, for instance m" in out
    assert marks(lines)["base_url"] == "ok"


def test_a_model_that_is_not_listed_is_unknown_where_the_key_is_refused(check, chatpool_server):
    chatpool_server.set_script(models_only(MODELS, Error(401)))
    _, lines, _ = check("--model", "gone")
    assert (marks(lines)["model"], marks(lines)["key"]) == ("unknown", "WRONG")


def test_without_a_model_the_first_of_the_server_is_called(check, serves_models, chatpool_server):
    code, lines, _ = check()
    assert (code, "none is named; the server has m" in lines["model"]) == (0, True)
    assert chatpool_server.requests[1].body["model"] == "m"


def test_a_first_model_that_is_for_other_calls_proves_nothing(check, chatpool_server):
    chatpool_server.set_script(models_only(MODELS, Error(400, "not a chat model")))
    code, lines, out = check()
    assert (code, marks(lines)["call"], "WRONG" in out) == (1, "unknown", False)
    assert "-> name one: --model NAME" in out


@pytest.mark.parametrize(
    ("step", "words", "base_url"),
    [
        (Html(200), "is not JSON", "WRONG"),
        (Html(404), "HTTP 404", "WRONG"),
        (Error(404, code="model_not_found"), "HTTP 404", "unknown"),
        (Error(500), "HTTP 500", "unknown"),
        (Error(429, "no credit", type="insufficient_quota", code="insufficient_quota"), "no credit", "unknown"),
    ],
)
def test_a_call_that_fails_says_why_and_what_to_do(check, chatpool_server, step, words, base_url):
    chatpool_server.set_script(step)
    code, lines, _ = check("--model", "m")
    assert code == 3
    assert marks(lines)["call"] == "WRONG"
    assert words in lines["call"]
    assert (marks(lines)["base_url"], marks(lines)["key"], marks(lines)["server"]) == (base_url, "unknown", "ok")


def test_a_refusal_for_the_rate_proves_neither(check, chatpool_server):
    chatpool_server.set_script(RateLimited(5))
    code, lines, out = check("--model", "m")
    assert (code, marks(lines)["call"], marks(lines)["key"]) == (1, "unknown", "unknown")
    assert "WRONG" not in out
    assert "check again later" in out


def test_a_server_that_is_not_there_is_said(check):
    code, lines, _ = check("--model", "m", url="http://127.0.0.1:1/v1")
    assert (code, "connection refused" in lines["server"]) == (3, True)
    assert {name for name, mark in marks(lines).items() if mark == "WRONG"} == {"server"}
    assert marks(lines)["call"] == marks(lines)["key"] == marks(lines)["base_url"] == "unknown"


def test_a_server_that_never_answers_is_wrong(check, chatpool_server):
    chatpool_server.set_script(Stall())
    code, lines, _ = check("--model", "m", "--timeout", "0.3")
    assert code == 3
    assert (marks(lines)["server"], marks(lines)["key"]) == ("WRONG", "unknown")
    assert "timed out" in lines["server"]


def test_a_certificate_that_is_not_trusted_is_a_matter_of_the_ca(run, monkeypatch, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FakeServer(tls=context) as server:
        refused = run("check", "--model", "m", "--base-url", server.base_url)
        bundle = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(bundle))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        accepted = run("check", "--model", "m", "--base-url", server.base_url)
    assert (refused.code, accepted.code) == (3, 0)
    assert "WRONG    CA" in refused.out
    assert "WRONG    server" in refused.out
    assert f"ok       CA        {bundle}" in accepted.out


def test_a_base_url_without_a_version_is_remarked_on_where_nothing_answers(check, chatpool_server):
    chatpool_server.set_script(Html(404))
    _, lines, out = check("--model", "m", url=chatpool_server.origin)
    assert marks(lines)["base_url"] == "WRONG"
    assert "-> most servers want it to end in /v1" in out


def test_a_missing_key_of_openai_is_exit_code_2(run):
    ended = run("check")
    assert (ended.code, "OPENAI_API_KEY" in ended.err) == (2, True)


def test_a_proxy_is_named_without_its_password(check, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    _, lines, out = check("--model", "m", "--timeout", "1", url="http://server.invalid/v1")
    assert "unknown  proxy     127.0.0.1:9" in lines["proxy"]
    assert "secret" not in out


def test_a_ca_bundle_that_is_not_there_is_exit_code_2(run, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    ended = run("check", "--model", "m", "--base-url", "https://127.0.0.1:1/v1")
    assert (ended.code, "/nowhere/ca.pem" in ended.err) == (2, True)
