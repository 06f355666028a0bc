"""What version 0.1.0 has pickled: it loads, as what it was."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from chatpool import BadRequestError, Budget, ChatPool, Endpoint, Limits, RetryPolicy, Timeout
from chatpool.types import ChatChunk, ChatRequest, PoolStats, Results

FILE = Path(__file__).with_name("pickled_by_0_1_0.json")
PICKLED = {name: base64.b64decode(text) for name, text in json.loads(FILE.read_text(encoding="utf-8")).items()}


@pytest.fixture
def load(monkeypatch):
    """``load(name)`` is the value that was pickled under this name."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    return lambda name: pickle.loads(PICKLED[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", Timeout(total=3)),
        ("retry", RetryPolicy(max_retries=2)),  # its number was the limit, as it is today where it is given
        ("limits", Limits(tokens_per_minute=3, scope="x")),
        ("budget", Budget(tokens=5)),
        ("request", ChatRequest({"messages": []})),
    ],
)
def test_settings_are_equal_to_those_of_today(load, name, value):
    assert load(name) == value
    assert repr(load(name)) == repr(value)


@pytest.mark.parametrize("name", ["pool", "view"])
def test_a_pool_is_made_again_with_its_arguments(load, name):
    with load(name) as pool:
        assert isinstance(pool, ChatPool)
        assert f"model='{'m' if name == 'pool' else 'n'}'" in repr(pool)
        assert "base_url='http://127.0.0.1:9/v1'" in repr(pool)
        assert "max_workers=2" in repr(pool)


def test_endpoints_are_made_again_with_theirs(load):
    assert repr(load("endpoint")) == repr(Endpoint("http://127.0.0.1:9/v1", limits=Limits(requests_per_minute=5)))
    with load("with_endpoints") as pool:
        assert "endpoints=['http://127.0.0.1:9/v1', 'http://127.0.0.1:8/v1']" in repr(pool)


@pytest.mark.parametrize("name", ["results", "results_none"])
def test_results_have_their_answers_and_errors(load, name):
    results = load(name)
    assert isinstance(results, Results)
    assert results.texts == ["a", None]
    assert [outcome.ok for outcome in results.outcomes] == [True, False]
    assert type(results.outcomes[1].error) is BadRequestError
    assert results.outcomes[1].error.status_code == 400
    assert results.outcomes[0].history[0].reason == "ok"
    assert results.usage.total_tokens == 2


@pytest.mark.parametrize("name", PICKLED)
def test_they_are_shown_and_pickled_as_those_of_today(load, name):
    value = load(name)
    assert repr(pickle.loads(pickle.dumps(value))) == repr(value)


@pytest.mark.usefixtures("instant_waits")
def test_a_pool_with_a_policy_keeps_to_it(load):
    pool = load("pool")
    results = pool.map(["a"], progress=False)  # to a port where nobody listens
    pool.close()
    assert len(results.outcomes[0].history) == 2  # its RetryPolicy(max_retries=1)


def test_chunks_outcomes_and_statistics_too(load):
    chunks = load("chunk")
    assert {type(chunk) for chunk in chunks} == {ChatChunk}
    assert "".join(chunk.text for chunk in chunks) == "hello"
    assert [outcome.value.text for outcome in load("outcomes")] == ["a"]
    assert isinstance(load("stats"), PoolStats)
    assert load("stats").succeeded == 5
    assert load("stats").waits_for is None  # which is younger than the pickle


@pytest.mark.parametrize(
    "name", ["pool", *(pytest.param(name, marks=pytest.mark.slow) for name in ("endpoint", "results"))]
)
def test_they_load_where_nothing_has_been_imported(name):
    program = f"import base64, pickle; print(type(pickle.loads(base64.b64decode({base64.b64encode(PICKLED[name])!r}))))"
    environment = {"OPENAI_API_KEY": "sk-test", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.stdout.startswith("<class 'chatpool."), ended.stderr
