"""What the servers that speak OpenAI's protocol send, each in its own way, over real sockets."""

from __future__ import annotations

import json

import pytest

from chatpool import (
    APIResponseError,
    AuthenticationError,
    BadRequestError,
    ChatPool,
    ConfigurationError,
    InsufficientQuotaError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)
from chatpool.testing import Answer, FakeServer, Html

# --- answers --------------------------------------------------------------------------------------------------

TIMINGS = {"cache_n": 0, "prompt_n": 33, "prompt_ms": 22.5, "predicted_n": 4, "predicted_ms": 44.7}
FILTERED = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "low"}}


def completion(content="Rome.", finish_reason="stop", *, message=None, choice=None, **body):
    """A chat completion with fields of the server's own."""
    said = {"role": "assistant", "content": content, **(message or {})}
    return {"choices": [{"index": 0, "message": said, "finish_reason": finish_reason, **(choice or {})}], **body}


USAGE = {"prompt_tokens": 33, "completion_tokens": 4, "total_tokens": 37}

ANSWERS = {
    "Azure": completion(
        id="chatcmpl-1",
        usage=USAGE,
        choice={"content_filter_results": FILTERED, "logprobs": None},
        prompt_filter_results=[{"prompt_index": 0, "content_filter_results": FILTERED}],
        model="gpt-4o-2024-08-06",
    ),
    "vLLM": completion(
        id="chatcmpl-9f0c4b",
        usage={**USAGE, "prompt_tokens_details": None},
        message={"reasoning_content": "Italy has a capital.", "tool_calls": [], "refusal": None, "annotations": None},
        choice={"stop_reason": None, "token_ids": None},
        prompt_logprobs=None,
        kv_transfer_params=None,
        service_tier=None,
    ),
    "llama.cpp": completion(
        id="chatcmpl-JvmPw6leVT3eoFMX7mIRtkPNgqbbHY33",
        usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 0}},
        system_fingerprint="b0-unknown",
        timings=TIMINGS,
    ),
    "Ollama": completion(
        id="chatcmpl-417", usage=USAGE, system_fingerprint="fp_ollama", message={"reasoning": "Let me think."}
    ),
    "OpenRouter": completion(
        id="gen-1700000000-abcDEF",
        usage={**USAGE, "cost": 0.00014, "cost_details": {"upstream_inference_cost": None}},
        provider="Some Provider",
        choice={"native_finish_reason": "STOP", "logprobs": None},
        message={"refusal": None, "reasoning": None},
    ),
    "Together": completion(
        id="o4pXyZ-4yUbBN-9d",
        usage={**USAGE, "cached_tokens": 0},
        prompt=[],
        choice={"seed": 17911368, "logprobs": None},
        message={"tool_calls": []},
    ),
}


@pytest.mark.parametrize("server_name", ANSWERS)
def test_an_answer_is_read_and_what_is_the_servers_own_is_kept(serve, server_name):
    body = ANSWERS[server_name]
    _, pool = serve(Answer(body=body))
    reply = pool.chat("Capital of Italy?")
    assert (reply.text, reply.finish_reason, reply.id) == ("Rome.", "stop", body["id"])
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (33, 4, 37)
    assert reply.raw == body
    assert reply.message["content"] == "Rome."
    assert None not in reply.message.values()


@pytest.mark.parametrize("server_name", ANSWERS)
def test_an_answer_without_usage_without_text_and_without_an_id_is_one(serve, server_name):
    body = json.loads(json.dumps(ANSWERS[server_name]))
    del body["usage"], body["id"]
    body["choices"][0]["message"]["content"] = None
    _, pool = serve(Answer(body=body))
    reply = pool.chat("Capital of Italy?")
    assert (reply.text, reply.usage, reply.id) == ("", None, None)
    assert reply.message["content"] is None


def test_a_call_of_a_tool_that_comes_without_text_is_read(serve):
    call = {"id": "call_x", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    _, pool = serve(Answer(body=completion(None, "tool_calls", message={"tool_calls": [call]})))
    reply = pool.chat("Weather?")
    assert reply.tool_calls[0].arguments == {"city": "Rome"}
    assert reply.message["tool_calls"] == [call]


def test_white_space_that_keeps_a_connection_alive_before_an_answer_is_none_of_it(serve):
    padded = b"\n         \n         \n" + json.dumps(ANSWERS["OpenRouter"]).encode()
    _, pool = serve(Answer(body=padded, framing="chunked", chunk_size=7))
    assert pool.chat("Capital of Italy?").text == "Rome."


# --- refusals -------------------------------------------------------------------------------------------------

AZURE_FILTER = {
    "message": "The response was filtered due to the prompt triggering the content management policy.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERED},
}
AZURE_KEY = "Access denied due to invalid subscription key or wrong API endpoint."
VLLM_MODEL = "The model `nope` does not exist."
VLLM_LENGTH = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
LLAMA_LENGTH = "request (9031 tokens) exceeds the available context size (8192 tokens), try increasing it"
LLAMA_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"
FLAGGED = {"reasons": ["violence"], "flagged_input": "...", "provider_name": "P", "model_slug": "m"}

# (status, body, error class, a word of its message, what of a run it ends)
REFUSALS = {
    "Azure: key": (
        401,
        {"error": {"code": "401", "message": AZURE_KEY}},
        AuthenticationError,
        "subscription key",
        "run",
    ),
    "Azure: token": (
        401,
        {"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid, or expired."},
        AuthenticationError,
        "Access token",
        "run",
    ),
    "Azure: keys are off": (
        403,
        {"error": {"code": "AuthenticationTypeDisabled", "message": "Key based authentication is disabled."}},
        PermissionDeniedError,
        "Key based authentication",
        "run",
    ),
    "Azure: deployment": (
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
        NotFoundError,
        "does not exist",
        "run",
    ),
    "Azure: version": (
        404,
        {"error": {"code": "404", "message": "Resource not found"}},
        NotFoundError,
        "Resource",
        "run",
    ),
    "Azure: filter": (400, {"error": AZURE_FILTER}, BadRequestError, "content management policy", "call"),
    "vLLM: model": (
        404,
        {"object": "error", "message": VLLM_MODEL, "type": "NotFoundError", "param": None, "code": 404},
        NotFoundError,
        "does not exist",
        "run",
    ),
    "vLLM: model, nested": (
        404,
        {"error": {"message": VLLM_MODEL, "type": "NotFoundError", "param": "model", "code": 404}},
        NotFoundError,
        "does not exist",
        "run",
    ),
    "vLLM: model, in a 200": (
        200,
        {"object": "error", "message": VLLM_MODEL, "type": "NotFoundError", "param": None, "code": 404},
        NotFoundError,
        "does not exist",
        "run",
    ),
    "vLLM: length": (
        400,
        {"object": "error", "message": VLLM_LENGTH, "type": "BadRequestError", "param": None, "code": 400},
        BadRequestError,
        "maximum context length",
        "call",
    ),
    "vLLM: key": (401, {"error": "Unauthorized"}, AuthenticationError, "Unauthorized", "run"),
    "llama.cpp: length": (
        400,
        {"error": {"code": 400, "message": LLAMA_LENGTH, "type": "exceed_context_size_error", "n_ctx": 8192}},
        BadRequestError,
        "context size",
        "call",
    ),
    "llama.cpp: key": (
        401,
        {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
        AuthenticationError,
        "Invalid API Key",
        "run",
    ),
    "llama.cpp: embeddings": (
        501,
        {"error": {"code": 501, "message": LLAMA_EMBEDDINGS, "type": "not_supported_error"}},
        InternalServerError,
        "does not support embeddings",
        "run",
    ),
    "Ollama: model": (
        404,
        {"error": {"message": 'model "nope" not found, try pulling it first', "type": "api_error", "code": None}},
        NotFoundError,
        "try pulling it first",
        "run",
    ),
    "OpenRouter: key": (
        401,
        {"error": {"message": "No auth credentials found", "code": 401}},
        AuthenticationError,
        "credentials",
        "run",
    ),
    "OpenRouter: credit": (
        402,
        {"error": {"message": "Insufficient credits", "code": 402}},
        InsufficientQuotaError,
        "Insufficient credits",
        "run",
    ),
    "OpenRouter: flagged": (
        403,
        {"error": {"message": "The input was flagged", "code": 403, "metadata": FLAGGED}},
        PermissionDeniedError,
        "flagged",
        "call",
    ),
    "Together: key": (
        401,
        {"id": "o4pX", "error": {"message": "Invalid API key provided", "type": "invalid_request_error", "code": None}},
        AuthenticationError,
        "Invalid API key",
        "run",
    ),
    "Together: length": (
        422,
        {"id": "o4pX", "error": {"message": "inputs tokens + max_new_tokens must be <= 8193", "type": None}},
        UnprocessableEntityError,
        "max_new_tokens",
        "call",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_told_in_the_servers_words_and_not_sent_again(serve, case):
    status, body, error_class, words, _ = REFUSALS[case]
    server, pool = serve(Answer(status=status, body=body))
    with pytest.raises(error_class, match=words) as caught:
        pool.chat("ping")
    assert caught.value.status_code == status or status == 200
    assert len(server.requests) == 1


@pytest.mark.parametrize("case", REFUSALS)
def test_it_ends_a_run_only_if_no_other_row_could_go_better(always, case):
    status, body, _, _, ends = REFUSALS[case]
    server, pool = always(Answer(status=status, body=body), max_workers=1)
    results = pool.map(["a", "b", "c", "d"], progress=False)
    assert results == [None] * 4
    assert len(server.requests) == (1 if ends == "run" else 4)
    assert (results.fatal is not None) == (ends == "run")


# (status, headers, body, the reason in the call's history)
BUSY = {
    "Azure": (
        429,
        {"retry-after": "1"},
        {"error": {"code": "429", "message": "Requests have exceeded token rate limit. Please retry after 1 second."}},
        "429 429",
    ),
    "vLLM": (503, {}, {"object": "error", "message": "Engine is overloaded", "type": "x", "code": 503}, "503 503"),
    "llama.cpp: loading": (
        503,
        {},
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "503 503",
    ),
    "Ollama": (
        503,
        {},
        {"error": {"message": "server busy, please try again. maximum pending requests exceeded", "type": "api_error"}},
        "503 api_error",
    ),
    "OpenRouter: upstream": (
        429,
        {"x-ratelimit-limit": "20", "x-ratelimit-reset": "1741305600000"},
        {
            "error": {
                "message": "Provider returned error",
                "code": 429,
                "metadata": {"provider_name": "P", "raw": "..."},
            }
        },
        "429 429",
    ),
    "OpenRouter: in a 200": (
        200,
        {},
        {"id": "gen-1", "error": {"message": "Upstream error", "code": 502, "metadata": {"provider_name": "P"}}},
        "502 502",
    ),
    "OpenRouter: in a choice": (
        200,
        {},
        completion("Ro", "error", choice={"error": {"code": 502, "message": "Upstream died"}}),
        "unusable answer (502)",
    ),
    "Together": (
        429,
        {"x-ratelimit-limit": "1", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"},
        {"id": "o", "error": {"message": "You have reached the rate limit", "type": "rate_limit", "code": None}},
        "429 rate_limit",
    ),
}


@pytest.mark.parametrize("case", BUSY)
def test_a_busy_server_is_asked_again(serve, instant_waits, case):
    status, headers, body, reason = BUSY[case]
    server, pool = serve(Answer(status=status, body=body, headers=headers), Answer("Rome."))
    outcome = next(iter(pool.imap(["Capital of Italy?"], progress=False)))
    assert str(outcome.value) == "Rome."
    assert [attempt.reason for attempt in outcome.history] == [reason, "ok"]
    assert len(server.requests) == 2


def test_the_page_of_a_gateway_in_front_of_a_server_is_a_failure_of_the_server(serve, instant_waits):
    _, pool = serve(Html(502), Html(200), Answer("Rome."))
    assert pool.chat("Capital of Italy?").text == "Rome."


def test_a_page_that_stays_is_told_as_such(serve):
    _, pool = serve(Html(200, "<html><head><title>Sign in</title></head></html>"), retry=0)
    with pytest.raises(APIResponseError, match="Sign in"):
        pool.chat("ping")


# --- Azure ----------------------------------------------------------------------------------------------------


def test_azures_paths_of_a_deployment_serve_every_operation(serve):
    server, _ = serve()
    with ChatPool.azure(server.origin + "/", "gpt", api_key="k", api_version="2024-10-21") as pool:
        pool.chat("ping")
        pool.embed("ping")
        pool.chat({"prompt": "ping"})
    assert [request.path for request in server.requests] == [
        f"/openai/deployments/gpt/{operation}" for operation in ("chat/completions", "embeddings", "completions")
    ]
    assert {request.query["api-version"] for request in server.requests} == {"2024-10-21"}


@pytest.mark.parametrize("ending", ["", "/", "/openai/v1", "/openai/v1/"])
def test_azures_v1_api_takes_no_version_with_a_date(serve, monkeypatch, ending):
    server, _ = serve()
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    with ChatPool.azure(server.origin + ending, api_key="k", model="gpt") as pool:
        pool.chat("ping")
        pool.responses("ping")
    with ChatPool.azure(server.origin + ending, api_key="k", model="gpt", api_version="preview") as pool:
        pool.chat("ping")
    paths = [request.path for request in server.requests]
    assert paths == ["/openai/v1/chat/completions", "/openai/v1/responses", "/openai/v1/chat/completions"]
    assert [request.query for request in server.requests] == [{}, {}, {"api-version": "preview"}]
    assert {request.headers["api-key"] for request in server.requests} == {"k"}


def test_a_token_of_entra_id_goes_where_openais_keys_go(serve, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "never sent")
    tokens = iter(["first-token", "second-token"])
    server, _ = serve(Answer(status=401, body={"statusCode": 401, "message": "expired"}))
    with ChatPool.azure(
        server.origin, "gpt", azure_ad_token_provider=lambda: next(tokens), api_version="2024-10-21"
    ) as pool:
        assert pool.chat("ping").text == "ping"
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer first-token",
        "Bearer second-token",
    ]
    assert all("api-key" not in request.headers for request in server.requests)


def test_there_is_one_way_to_sign_in(serve):
    with pytest.raises(ConfigurationError, match="azure_ad_token_provider"):
        ChatPool.azure("https://x.example", api_key="k", azure_ad_token_provider=lambda: "t")
    with pytest.raises(TypeError, match="azure_ad_token_provider"):
        ChatPool.azure("https://x.example", azure_ad_token_provider="a token")


def test_what_azure_filtered_out_of_an_answer_is_told_by_its_finish_reason(serve):
    _, pool = serve(Answer(body=completion("Once upon", "content_filter", choice={"content_filter_results": FILTERED})))
    reply = pool.chat("Tell me a story.")
    assert (reply.text, reply.finish_reason) == ("Once upon", "content_filter")
    assert reply.raw["choices"][0]["content_filter_results"] == FILTERED


def test_the_id_that_azures_gateway_gives_a_request_is_on_its_refusals():
    refusal = Answer(
        status=401,
        body={"error": {"code": "401", "message": "no"}},
        headers={"x-request-id": "", "apim-request-id": "4a1b-9c"},
    )
    with FakeServer(refusal) as server, ChatPool.azure(server.origin, api_key="k", model="gpt") as pool:
        future = pool.submit("ping")
        error = future.exception(timeout=60)
    assert isinstance(error, AuthenticationError)
    assert error.request_id == "4a1b-9c"


def test_a_wait_of_a_day_is_not_waited_for(serve):
    body = {"error": {"code": "429", "message": "Please retry after 86400 seconds."}}
    server, pool = serve(Answer(status=429, body=body, headers={"retry-after": "86400"}))
    with pytest.raises(RateLimitError) as caught:
        pool.chat("ping")
    assert caught.value.retry_after == 86400
    assert len(server.requests) == 1
