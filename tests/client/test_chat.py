"""One call: what is sent, what comes back, what is raised."""

from __future__ import annotations

import pytest

from chatpool import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChatPool,
    ChatRequest,
    ConfigurationError,
    DeadlineExceededError,
    InternalServerError,
    PoolClosedError,
    RateLimitError,
    RetryPolicy,
    Timeout,
)
from chatpool.testing import Answer, Error, Html, RateLimited, Stall, Truncate

MESSAGES = [{"role": "user", "content": "ping"}]


@pytest.mark.parametrize(
    "item",
    [
        "ping",
        MESSAGES,
        {"messages": MESSAGES},
        ChatRequest({"messages": MESSAGES}),
        {"model": "m", "messages": MESSAGES},
    ],
)
def test_every_kind_of_item_is_one_request(serve, item):
    server, pool = serve()
    assert pool.chat(item).text == "ping"
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].body == {"model": "m", "messages": MESSAGES}


def test_an_answer_tells_what_the_server_said(serve):
    _, pool = serve(Answer("pong", headers={"x-request-id": "req_7"}))
    answer = pool.chat("ping")
    assert str(answer) == answer.text == "pong"
    assert answer.message["role"] == "assistant"
    assert answer.finish_reason == "stop"
    assert answer.request_id == "req_7"
    assert answer.usage.total_tokens > 0
    assert answer.raw["choices"]


def test_body_fields_come_from_defaults_item_and_keywords_the_later_wins(serve):
    server, pool = serve(defaults={"temperature": 1, "top_p": 0.5, "seed": 1}, system="Be brief.")
    pool.chat({"messages": MESSAGES, "top_p": 0.7, "seed": 2}, seed=3, extra_body={"timeout": 9}, model="other")
    body = server.requests[0].body
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, *MESSAGES]
    assert {name: body[name] for name in ("temperature", "top_p", "seed", "timeout", "model")} == {
        "temperature": 1,
        "top_p": 0.7,
        "seed": 3,
        "timeout": 9,
        "model": "other",
    }


def test_key_organization_project_headers_and_query_are_sent(serve):
    server, pool = serve(
        api_key="sk-secret", organization="org", project="proj", headers={"X-Team": "a"}, query={"v": "1"}
    )
    pool.chat("ping", headers={"X-Job": "b"}, query={"w": "2"})
    received = server.requests[0]
    assert received.headers["authorization"] == "Bearer sk-secret"
    assert received.headers["openai-organization"] == "org"
    assert received.headers["openai-project"] == "proj"
    assert (received.headers["x-team"], received.headers["x-job"]) == ("a", "b")
    assert received.query == {"v": "1", "w": "2"}


@pytest.mark.parametrize(
    ("step", "error", "attempts"),
    [
        (Error(400), BadRequestError, 1),
        (Error(401), AuthenticationError, 1),
        (Error(500), InternalServerError, 3),
        (Html(502), InternalServerError, 3),
        (Html(200), APIResponseError, 3),
        (Truncate(), APIConnectionError, 3),
        (Answer(body={"error": {"message": "odd"}}), APIResponseError, 3),
        (RateLimited(500, hint="retry-after"), RateLimitError, 1),
    ],
)
def test_the_last_attempts_error_is_raised_when_retries_are_used_up(always, instant_waits, step, error, attempts):
    server, pool = always(step, retry=2)
    with pytest.raises(error) as caught:
        pool.chat("ping")
    assert type(caught.value) is error
    assert caught.value.attempts == attempts == len(server.requests)


def test_a_refusal_for_too_long_tells_how_long(always):
    _, pool = always(RateLimited(500, hint="retry-after"))
    with pytest.raises(RateLimitError) as caught:
        pool.chat("ping")
    assert caught.value.retry_after == 500


def test_refusals_are_waited_out_without_using_up_retries(serve, instant_waits):
    server, pool = serve(*[RateLimited(60)] * 5, retry=1)
    assert pool.chat("ping").text == "ping"
    assert len(server.requests) == 6


def test_an_attempt_that_hangs_is_cut_and_made_again(serve, instant_waits):
    server, pool = serve(Stall(), timeout=1)
    assert pool.chat("ping").text == "ping"
    assert len(server.requests) == 2


def test_an_attempt_that_always_hangs_is_made_three_times(always, instant_waits):
    server, pool = always(Stall(), timeout=0.1)
    with pytest.raises(APITimeoutError):
        pool.chat("ping")
    assert len(server.requests) == 3


def test_a_total_of_a_second_is_kept_against_a_server_that_hangs(always):
    _, pool = always(Stall(), timeout=Timeout(total=1))
    with pytest.raises(DeadlineExceededError, match=r"timeout\.total") as caught:
        pool.chat("ping")
    assert caught.value.attempts == 1


def test_a_call_that_waits_for_a_worker_too_long_says_so(always):
    server, pool = always(Stall(), max_workers=1)
    hanging = pool.submit("first")
    server.wait_for(1)
    with pytest.raises(DeadlineExceededError, match="waited for a worker"):
        pool.chat("second", timeout=Timeout(total=0.1))
    assert hanging.cancel()
    assert len(server.requests) == 1


def test_a_wait_that_cannot_end_in_time_is_not_begun(serve):
    server, pool = serve(RateLimited(60), timeout=Timeout(total=5))
    with pytest.raises(DeadlineExceededError, match="the next attempt would start in"):
        pool.chat("ping")
    assert len(server.requests) == 1


def test_a_rotated_key_is_fetched_once_more_when_the_server_refuses_it(serve):
    keys = iter(["old", "new"])
    server, pool = serve(Error(401), api_key=lambda: next(keys))
    assert pool.chat("ping").text == "ping"
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer old", "Bearer new"]


def test_a_key_function_that_raises_is_an_error_of_the_call(serve):
    def key():
        raise OSError("vault is sealed")

    server, pool = serve(api_key=key)
    with pytest.raises(
        ConfigurationError, match="api_key, the function that fetches the key, raised OSError"
    ) as caught:
        pool.chat("ping")
    assert str(caught.value.__cause__) == "vault is sealed"
    assert server.requests == []


def test_after_close_nothing_is_sent(serve):
    server, pool = serve()
    pool.close()
    pool.close()
    with pytest.raises(PoolClosedError, match="make a new ChatPool"):
        pool.chat("ping")
    assert isinstance(PoolClosedError(), RuntimeError)
    assert server.requests == []


def test_with_options_is_a_view_with_other_defaults_and_the_same_connections(serve):
    server, pool = serve(defaults={"temperature": 0})
    with pool.with_options(model="other", timeout=7, retry=RetryPolicy(max_retries=1)) as view:
        view.chat("a")
    pool.chat("b")
    assert [request.body["model"] for request in server.requests] == ["other", "m"]
    assert all(request.body["temperature"] == 0 for request in server.requests)
    assert server.connections == 1


def test_request_calls_any_endpoint(serve):
    server, pool = serve()
    assert pool.request("/moderations", {"input": "hi"})["results"]
    assert pool.request("/models", method="GET")["data"]
    assert [(one.method, one.path) for one in server.requests] == [("POST", "/v1/moderations"), ("GET", "/v1/models")]
    assert server.requests[0].body == {"input": "hi"}
    assert server.requests[1].raw == b""


def test_embed_gives_one_vector_or_many(serve):
    server, pool = serve()
    one = pool.embed("text", dimensions=8)
    many = pool.embed(["text", "other"], dimensions=8)
    assert many[0] == one
    assert many[1] != one
    assert all(isinstance(number, float) for number in one)
    assert server.requests[0].body == {"model": "m", "input": "text", "dimensions": 8}


def test_nobody_sees_the_key(serve, caplog):
    _, pool = serve(Error(401, message="Incorrect API key provided: sk-secret-key"), api_key="sk-secret-key")
    with pytest.raises(AuthenticationError) as caught:
        pool.chat("ping")
    shown = [repr(pool), str(caught.value), repr(caught.value), repr(caught.value.__dict__), caplog.text]
    assert not [text for text in shown if "sk-secret-key" in text]


def test_repr_shows_live_counts(always):
    server, pool = always(Stall())
    pool.submit("a")
    server.wait_for(1)
    assert f"base_url='{server.base_url}'" in repr(pool)
    assert "in_flight=1" in repr(pool)
    pool.abort()
    assert "closed" in repr(pool)


def test_stats_count_everything(serve, instant_waits):
    server, pool = serve(Error(500), RateLimited(1), Answer(), Error(400))
    pool.chat("a")
    pool.map(["b", "c"])
    stats = pool.stats()
    assert (stats.succeeded, stats.failed, stats.retried) == (2, 1, 2)
    assert stats.usage.total_tokens > 0
    assert (stats.queued, stats.parked, stats.in_flight) == (0, 0, 0)
    assert stats.lines[(server.base_url, "m")].failure_streak == 0


def test_environment_variables_of_openai_are_read(serve, monkeypatch):
    server, _ = serve()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-env")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-env")
    with ChatPool("m") as pool:
        pool.chat("ping")
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer sk-env"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-env", "proj-env")


class TestAzure:
    def test_a_deployment_has_a_path_a_version_and_a_key_header_of_its_own(self, serve):
        server, _ = serve()
        with ChatPool.azure(server.origin, "my-gpt", api_key="k", api_version="2024-10-21") as pool:
            pool.chat("ping")
        received = server.requests[0]
        assert received.path == "/openai/deployments/my-gpt/chat/completions"
        assert received.query == {"api-version": "2024-10-21"}
        assert received.headers["api-key"] == "k"
        assert "authorization" not in received.headers

    def test_without_a_deployment_the_v1_api_is_used(self, serve, monkeypatch):
        server, _ = serve()
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.origin + "/")
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
        monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
        with ChatPool.azure(model="my-gpt") as pool:
            pool.chat("ping")
        assert server.requests[0].path == "/openai/v1/chat/completions"
        assert server.requests[0].body["model"] == "my-gpt"
