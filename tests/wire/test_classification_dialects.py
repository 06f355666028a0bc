"""Classification of messages: no money left, a wrong key or model, a server that is starting."""

from __future__ import annotations

import json

import pytest
from requests.structures import CaseInsensitiveDict

from chatpool import ChatRequest
from chatpool._values import HTTPResponse
from chatpool._wire import classify_response

CHAT = ChatRequest({"model": "m", "messages": []})
NOW = 1_700_000_000.0


def classify(status, body, headers=None, *, proven=False, request=CHAT, proxy=""):
    reply = HTTPResponse(status, CaseInsensitiveDict(headers or {}), json.dumps(body).encode(), "http://h/v1", proxy)
    return classify_response(reply, request, endpoint_proven=proven, model_proven=proven, wall=NOW)


def error(message, kind=None, code=None):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


NO_MONEY = {
    "LiteLLM, 429": (429, error("Budget has been exceeded! Current cost: 10.5, Max budget: 10.0", "budget_exceeded")),
    "LiteLLM, 400": (400, error("Budget has been exceeded! Current cost: 10.5, Max budget: 10.0", "budget_exceeded")),
    "LiteLLM, 422": (422, error("ExceededBudget: User=u over budget. Spend=2, Budget=1", "budget_exceeded")),
    "LiteLLM, of OpenAI": (
        429,
        error("litellm.RateLimitError: OpenAIException - You exceeded your current quota", "throttling_error", "429"),
    ),
    "xAI, flat": (
        403,
        {"code": "The caller does not have permission", "error": "Your team doesn't have any credits yet."},
    ),
    "xAI, in words": (403, "Your team has either used all available credits or reached its monthly spending limit."),
    "xAI, 429": (429, "Your team has either used all available credits or reached its monthly spending limit."),
    "OpenRouter": (402, error("Insufficient credits. Add more using https://openrouter.ai/credits", code=402)),
    "OpenRouter, of one key": (403, error("Key limit exceeded (total limit). Manage it in the settings", code=403)),
    "Anthropic": (400, error("Your credit balance is too low to access the API. Please purchase credits.")),
    "SiliconFlow": (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    "Moonshot": (429, error("Your account is suspended, check your plan", "exceeded_current_quota_error")),
    "Alibaba": (400, error("Access denied, make sure your account is in good standing.", code="Arrearage")),
    "one-api": (403, error("用户额度不足", code="insufficient_user_quota")),
    "Zhipu": (429, error("余额不足或无可用资源包,请充值。", code="1113")),
    "MiniMax, inside a 200": (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
}


@pytest.mark.parametrize(("status", "body"), NO_MONEY.values(), ids=NO_MONEY)
@pytest.mark.parametrize("proven", [False, True])
def test_no_money_left_ends_the_run(status, body, proven):
    verdict = classify(status, body, proven=proven)
    assert (verdict.kind, verdict.scope, type(verdict.error).__name__) == ("fatal", "run", "InsufficientQuotaError")


def test_the_budget_of_a_deployment_ends_the_calls_of_its_model():
    said = error("No deployments available - crossed budget: Exceeded budget for provider x. Try again in 5 seconds")
    verdict = classify(429, said, {"Retry-After": "5"}, proven=True)
    assert (verdict.kind, verdict.scope, type(verdict.error).__name__) == ("fatal", "model", "InsufficientQuotaError")


@pytest.mark.parametrize(
    ("body", "headers", "hint"),
    [
        (error("You exceeded your current quota. Please retry in 34.5s.", code=429), {}, 34.5),
        (error("You exceeded your current quota.", code=429), {"Retry-After": "7"}, 7.0),
    ],
)
def test_a_quota_that_comes_back_in_seconds_is_a_rate(body, headers, hint):
    verdict = classify(429, body, headers)
    assert (verdict.kind, verdict.retry_after) == ("throttled", hint)


@pytest.mark.parametrize("status", [408, 409, 425, 500, 503])
def test_of_other_statuses_the_words_do_not_count(status):
    assert classify(status, error("Budget has been exceeded!")).kind != "fatal"


WRONG_KEY = {
    "LiteLLM without a database": error("No connected db.", "no_db_connection", "400"),
    "LiteLLM": error("Authentication Error, Invalid proxy server token passed", "auth_error", "400"),
    "Gemini": [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],
}


@pytest.mark.parametrize("body", WRONG_KEY.values(), ids=WRONG_KEY)
def test_a_wrong_key_ends_the_run_whatever_the_status(body):
    verdict = classify(400, body)
    assert (verdict.kind, verdict.scope, type(verdict.error).__name__) == ("fatal", "run", "AuthenticationError")
    assert "check the API key" in str(verdict.error)


UNKNOWN_MODEL = {
    "LiteLLM": error("/chat/completions: Invalid model name passed in model=nope. Call `/v1/models`", code="400"),
    "Mistral": {"object": "error", "message": "Invalid model: nope", "type": "invalid_model", "code": "1500"},
    "OpenAI's code": error("no", code="model_not_found"),
    "in words": error("The model `nope` does not exist"),
}


@pytest.mark.parametrize("body", UNKNOWN_MODEL.values(), ids=UNKNOWN_MODEL)
def test_an_unknown_model_ends_the_calls_of_that_model(body):
    assert classify(400, body)[:2] == ("fatal", "model")
    assert classify(400, body, proven=True).kind == "fail"  # it is known after all


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (503, "Loading model"),
        (503, "Model meta/llama is currently loading"),
        (503, "The model is still loading, try again"),
        (502, "upstream is starting up"),
        (500, "llm server is loading the model"),
        (503, "Model not ready"),
    ],
)
def test_a_server_that_is_starting_is_looked_at_again_after_a_second(status, message):
    verdict = classify(status, error(message))
    assert (verdict.kind, verdict.about, verdict.retry_after) == ("unavailable", "start", 1.0)
    assert verdict.error.retry_after is None  # nobody has asked for it


def test_a_server_that_is_starting_may_say_how_long_it_takes():
    assert classify(503, error("Loading model"), {"Retry-After": "9"}).retry_after == 9.0


@pytest.mark.parametrize("message", ["overloaded", "workload too high", "error loading model: out of memory"])
def test_other_words_do_not_mean_that_it_is_starting(message):
    assert classify(503, error(message)).about == ""


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [(403, {"Retry-After": "9"}, "throttled"), (403, {}, "fail"), (404, {}, "fail"), (401, {}, "fatal")],
)
def test_a_403_waits_where_the_server_says_how_long(status, headers, kind):
    verdict = classify(status, {"statusCode": status, "message": "Out of call volume quota."}, headers, proven=True)
    assert verdict.kind == kind
    assert (verdict.about == "access") == (kind != "throttled")


def test_a_403_with_a_reason_of_its_own_does_not_wait():
    known = error("no", code="unsupported_country_region_territory")
    assert classify(403, known, {"Retry-After": "9"})[:2] == ("fatal", "endpoint")
    flagged = {"error": {"message": "no", "metadata": {"flagged_input": "x"}}}
    assert classify(403, flagged, {"Retry-After": "9"}).kind == "fail"


@pytest.mark.parametrize("status", [408, 504, 524])
def test_what_a_gateway_waited_for_in_vain_is_a_time_out(status):
    assert classify(status, None).kind == "timeout"
    assert classify(200, error("upstream timed out", code=status)).kind == "timeout"


@pytest.mark.parametrize(
    "message", ["input (992 tokens) is too large to process. increase the batch size", "json: unsupported value: NaN"]
)
def test_a_text_that_is_beyond_the_model_fails_at_once(message):
    assert classify(500, error(message)).kind == "fail"


class TestFingerprint:
    """Which refusals say the same."""

    def test_the_same_words_are_the_same_refusal(self):
        one, two = (classify(400, error(f"no such tenant (request id {which})")) for which in ("req_8a1", "req_9b2"))
        assert one.fingerprint == two.fingerprint is not None

    def test_what_servers_make_anew_for_each_answer_does_not_count(self):
        said = (
            "at 2026-05-01T10:00:00Z, trace 0f8fad5b-d9cb-469f-a165-70867728950e",
            "at 2026-05-01T10:00:07Z, trace 7c9e6679-7425-40de-944b-e07fc1f90ae7",
        )
        one, two = (classify(422, error(f"no license {words}")) for words in said)
        assert one.fingerprint == two.fingerprint

    @pytest.mark.parametrize("other", [(400, error("another")), (422, error("no")), (400, error("no", code="c"))])
    def test_other_words_code_or_status_are_another(self, other):
        assert classify(400, error("no")).fingerprint != classify(*other).fingerprint

    @pytest.mark.parametrize(
        ("status", "body", "headers"),
        [
            (400, error("no", code="context_length_exceeded"), {}),
            (400, error("This model's maximum context length is 4096 tokens"), {}),
            (400, error("The response was filtered by the content management policy"), {}),
            (422, error("the image cannot be decoded"), {}),
            (413, error("no"), {}),
            (408, error("no"), {}),
            (409, error("no"), {}),
            (429, error("no"), {}),
            (500, error("no"), {}),
            (400, error("no"), {"Retry-After": "3"}),
            (403, {"error": {"message": "no", "metadata": {"flagged_input": "x"}}}, {}),
        ],
    )
    def test_what_concerns_one_request_or_passes_has_none(self, status, body, headers):
        assert classify(status, body, headers, proven=True).fingerprint is None

    def test_an_unusable_answer_is_known_by_its_bytes(self):
        one, same, other = (classify(200, {"choices": [], "n": n}) for n in (1, 1, 2))
        assert one.kind == "retry"
        assert one.fingerprint == same.fingerprint != other.fingerprint

    def test_one_that_is_not_to_be_asked_for_again_is_no_refusal_of_all(self):
        verdict = classify(200, {"choices": []}, {"x-should-retry": "false"})
        assert (verdict.kind, verdict.fingerprint) == ("fail", None)


@pytest.mark.parametrize("status", [401, 403, 407, 500, 502, 503, 504])
def test_a_refusal_through_a_proxy_names_it(status):
    said = str(classify(status, error("no"), proxy="http://proxy.test:3128").error)
    assert "through the proxy http://proxy.test:3128" in said
    assert "NO_PROXY" in said
    assert "NO_PROXY" not in str(classify(status, error("no")).error)


@pytest.mark.parametrize(
    ("url", "proxy", "status"),
    [
        ("https://h/v1", "http://proxy.test:3128", 502),  # what comes out of a tunnel is the server's
        ("http://h/v1", "http://proxy.test:3128", 429),
        ("http://h/v1", "socks5h://proxy.test:1080", 403),  # this one does not speak HTTP
    ],
)
def test_a_refusal_that_cannot_be_the_proxys_does_not_name_it(url, proxy, status):
    reply = HTTPResponse(status, CaseInsensitiveDict(), json.dumps(error("no")).encode(), url, proxy)
    verdict = classify_response(reply, CHAT, endpoint_proven=False, model_proven=False, wall=NOW)
    assert "proxy" not in str(verdict.error)


def test_an_error_inside_an_answer_of_the_server_is_not_the_proxys():
    verdict = classify(200, error("no", code="403"), proxy="http://proxy.test:3128")
    assert verdict.status == 403
    assert "proxy" not in str(verdict.error)


def test_a_proxy_that_wants_a_login_ends_the_run():
    verdict = classify(407, None, proxy="http://proxy.test:3128")
    assert (verdict.kind, verdict.scope) == ("fatal", "endpoint")
    assert "user and password" in str(verdict.error)
