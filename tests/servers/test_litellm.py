"""The LiteLLM proxy in front of a model: what it refuses for good ends a run, its limits teach the pace.

It has no database here, so keys of its own with budgets of their own are left out.
"""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import programs
import pytest
import requests

from benchmarks.debian import quiet_port
from chatpool import AuthenticationError, BadRequestError, ChatPool, InsufficientQuotaError, TruncatedStreamError
from chatpool.testing import EachCall, Error, FakeServer, RateLimited, Stream, embedding_vector

pytestmark = pytest.mark.servers

KEY = "sk-master"
WORKERS = 8
ROWS = 40
FEW = 12
HUNG = 150  # seconds: what takes as long does not end at all

EXCEEDED = Error(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded")
NO_CREDIT = Error(429, "You exceeded your current quota.", type="insufficient_quota", code="insufficient_quota")
OVERLOADED = {"error": {"message": "overloaded", "code": "server_is_overloaded"}}

# By the word that a prompt begins with.
STEPS = {
    "long": EXCEEDED,
    "broke": NO_CREDIT,
    "error": Stream(["a", "b"], end=OVERLOADED),
    "reset": Stream(["a", "b"], end="reset"),
    "cut": Stream(["a", "b"], end="cut"),
}
# The first attempt of each call.
FIRST_STEPS = {"busy": RateLimited(0.2), "down": Error(500)}


class Upstream(FakeServer):
    """The model behind it; what it does says the prompt."""

    def __init__(self):
        once = {word: EachCall(step) for word, step in FIRST_STEPS.items()}

        def step(request):
            word = request.prompt.partition(" ")[0]
            return once[word].take(request) if word in once else STEPS.get(word)

        super().__init__(script=step)

    def asked(self, model):
        """How many requests for ``model`` have arrived."""
        return sum(request.body.get("model") == model for request in self.requests if request.body)


def deployment(name, upstream, **options):
    """One entry of its list of models; behind it, each has a name of its own."""
    parameters = {"model": f"openai/up-{name}", "api_base": upstream.base_url, "api_key": "upstream", **options}
    return {"model_name": name, "litellm_params": parameters}


def configuration(upstream):
    prices = {"input_cost_per_token": 0.01, "output_cost_per_token": 0.01}
    return {
        "model_list": [
            deployment("fast", upstream, cooldown_time=0),
            deployment("minute", upstream, rpm=30),
            deployment("costly", upstream, max_budget=0.05, budget_duration="1d", **prices),
            deployment("cooled", upstream, cooldown_time=1),
        ],
        "litellm_settings": {"num_retries": 0},
        "router_settings": {"num_retries": 0, "optional_pre_call_checks": ["enforce_model_rate_limits"]},
        "general_settings": {"master_key": KEY},
    }


@pytest.fixture(scope="module")
def litellm(tmp_path_factory):
    """The proxy: ``.base_url``, and ``.upstream`` behind it."""
    python = programs.environment_python("CHATPOOL_LITELLM_PYTHON", "LiteLLM")
    folder, port = tmp_path_factory.mktemp("litellm"), quiet_port()
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_PROXY": "*"}
    with Upstream() as upstream:
        config = folder / "config.yaml"
        config.write_text(json.dumps(configuration(upstream)))  # which is YAML too
        command = [python.replace("/python", "/litellm"), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with programs.running(command, port, folder, env=environment):
            yield SimpleNamespace(base_url=f"http://127.0.0.1:{port}/v1", upstream=upstream)


@pytest.fixture(scope="module", autouse=True)
def run_of_a_minute(litellm):
    """A run beyond a limit by the minute, which goes on while the other tests run."""
    settings = {"base_url": litellm.base_url, "api_key": KEY, "max_workers": WORKERS}
    with ChatPool("minute", **settings) as pool, ThreadPoolExecutor(1) as executor:
        yield executor.submit(run, pool, prompts("row"))


@pytest.fixture
def pool(litellm):
    """``pool(model="fast", ...)`` makes a pool with every default; closed with the test."""
    with contextlib.ExitStack() as stack:

        def make(model="fast", **settings):
            settings = {"base_url": litellm.base_url, "api_key": KEY, "max_workers": WORKERS, **settings}
            return stack.enter_context(ChatPool(model, **settings))

        yield make


def prompts(word, count=ROWS):
    return [f"{word} {number}" for number in range(count)]


def run(pool, rows):
    return pool.map(rows, progress=False, run_timeout=HUNG)


def attempts(results):
    return [attempt for outcome in results.outcomes for attempt in outcome.history]


def test_it_lists_its_models(pool):
    models = pool().request("/models", method="GET")["data"]
    assert [model["id"] for model in models] == ["fast", "minute", "costly", "cooled"]


@pytest.mark.smoke
def test_every_row_is_answered(pool):
    results = run(pool(), prompts("row"))
    assert [reply.text for reply in results] == prompts("row")
    assert results.usage.prompt_tokens == 2 * ROWS


def test_texts_are_embedded(pool):
    texts = prompts("text")
    vectors = pool().embed(texts, progress=False)
    assert all(vectors)
    for text, vector in zip(texts, vectors):
        assert list(vector) == pytest.approx(embedding_vector(text), abs=1e-6)


def test_a_stream_comes_in_pieces_with_its_usage(pool):
    with pool().stream("one two three") as stream:
        pieces = [chunk.text for chunk in stream if chunk.text]
    assert pieces == ["one", " two", " three"]
    assert stream.completion.usage.completion_tokens == 3


def test_streams_in_parallel_lose_no_row(pool):
    found = pool().stream_many(prompts("row"), progress=False, run_timeout=HUNG)
    texts = {what.index: what.value.text for _, what in found if hasattr(what, "history")}
    assert sorted(texts.values()) == sorted(prompts("row"))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"model": "unknown"}, BadRequestError, "Invalid model name passed in"),
        ({"api_key": "sk-wrong"}, AuthenticationError, "No connected db"),
    ],
)
def test_an_unknown_model_and_a_wrong_key_end_the_run(settings, error, words, pool, litellm):
    before = litellm.upstream.asked("up-fast")
    results = run(pool(**settings), prompts("row"))
    assert len(results.failures) == ROWS
    assert words in str(results.fatal)
    assert "check" in str(results.fatal)
    assert isinstance(results.fatal, error)
    assert len(attempts(results)) <= WORKERS
    assert litellm.upstream.asked("up-fast") == before


def test_the_budget_of_a_model_ends_its_calls(pool, litellm):
    results = run(pool("costly"), prompts("row", 200))
    assert isinstance(results.fatal, InsufficientQuotaError)
    assert "crossed budget" in str(results.fatal)
    assert 0 < litellm.upstream.asked("up-costly") == sum(outcome.ok for outcome in results.outcomes)
    assert len(attempts(results)) < 100


def test_an_account_without_credit_behind_it_ends_the_run(pool):
    results = run(pool(), prompts("broke"))
    assert isinstance(results.fatal, InsufficientQuotaError)
    assert "You exceeded your current quota" in str(results.fatal)
    assert len(attempts(results)) <= WORKERS


def test_one_row_that_is_too_long_fails_alone(pool):
    results = run(pool(), [*prompts("row"), "long 1", *prompts("more")])
    assert results.fatal is None
    (failure,) = results.failures
    assert isinstance(failure.error, BadRequestError)
    assert "maximum context length is 10 tokens" in str(failure.error)
    assert failure.attempts == 1


def test_what_the_model_says_about_waiting_is_passed_on(pool):
    results = run(pool(), prompts("busy", FEW))
    assert not results.failures, results.explain()
    refused = [attempt for attempt in attempts(results) if attempt.status == 429]
    assert len(refused) == FEW


def test_failures_of_the_model_are_tried_again(pool):
    results = run(pool(), prompts("down", FEW))
    assert not results.failures, results.explain()
    assert sum(attempt.status == 500 for attempt in attempts(results)) == FEW


def test_a_model_that_cools_down_is_waited_for(pool):
    results = run(pool("cooled"), prompts("down", FEW))
    assert not results.failures, results.explain()


def test_a_stream_in_which_the_model_fails_is_an_error(pool):
    with pytest.raises(TruncatedStreamError, match="overloaded"), pool(retry=0).stream("error 1") as stream:
        assert "".join(chunk.text for chunk in stream) == "ab"


def test_a_stream_that_breaks_behind_it_is_an_error(pool):
    with pytest.raises(Exception, match="Connection reset|broke"), pool(retry=0).stream("reset 1") as stream:
        list(stream)


class TestWhatTheHowToSays:
    """docs/howto/compatible-servers.md."""

    def test_a_stream_that_the_model_cut_off_looks_complete(self, pool):
        with pool(retry=0).stream("cut 1") as stream:
            assert "".join(chunk.text for chunk in stream) == "ab"
        assert stream.completion.finish_reason == "stop"

    def test_a_call_without_a_key_is_an_internal_error(self, litellm):
        body = {"model": "fast", "messages": [{"role": "user", "content": "ping"}]}
        assert requests.post(f"{litellm.base_url}/chat/completions", json=body, timeout=60).status_code == 500


def test_a_limit_by_the_minute_loses_no_row(run_of_a_minute, litellm):
    results = run_of_a_minute.result(HUNG)
    assert not results.failures, results.explain()
    assert litellm.upstream.asked("up-minute") == ROWS
    assert sum(attempt.status == 429 for attempt in attempts(results)) <= ROWS
