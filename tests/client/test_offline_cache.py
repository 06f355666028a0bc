"""``Cache(offline=True)``: nothing is sent, and what is missing is named."""

from __future__ import annotations

import pickle

import pytest

from chatpool import Cache, CacheMissError, ChatPool, ConfigurationError
from chatpool.errors import from_dict
from chatpool.testing import FakeServer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def offline(path):
    """A pool that sends nothing, without a key, to OpenAI's own server."""
    with ChatPool("m", cache=Cache(path, account="tests", offline=True), retry=0) as pool:
        yield pool


@pytest.fixture
def recorded(server, path):
    """Answers of a pool with a key; the pool that sends nothing speaks to the same address."""
    cache = Cache(path, account="tests")
    with ChatPool("m", base_url=server.base_url, api_key="sk-real-key-of-mine", cache=cache) as pool:
        pool.chat("ping")
        pool.embed(["a", "b"], progress=False)
    sent = len(server.requests)
    with ChatPool("m", base_url=server.base_url, cache=Cache(path, account="tests", offline=True)) as pool:
        yield pool
    assert len(server.requests) == sent


def test_what_was_recorded_is_answered_without_a_key(recorded):
    assert recorded.chat("ping").text == "ping"
    assert recorded.map(["ping"], progress=False).texts == ["ping"]
    assert len(recorded.embed(["b", "a"], progress=False)[0]) > 0


def test_the_file_is_not_changed(recorded, path):
    before = path.read_bytes()
    recorded.chat("ping")
    recorded.map(["ping", "pong"], progress=False)
    recorded.close()
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]


def test_what_is_missing_is_named(recorded):
    with pytest.raises(CacheMissError) as caught:
        recorded.chat("What is the capital of France? " + "Think well. " * 20)
    error = caught.value
    assert (error.path, error.model, error.attempts) == ("/chat/completions", "m", 0)
    assert error.prompt == "What is the capital of France? Think well. Think well. Think..."
    assert error.prompt in str(error)
    assert "answers.db" in str(error)
    assert "/chat/completions" in str(error)


def test_no_key_is_named_with_it(server, path):
    cache = Cache(path, offline=True)
    pool = ChatPool("m", base_url=server.base_url, api_key="sk-real-key-of-mine", cache=cache)
    with pool, pytest.raises(CacheMissError) as caught:
        pool.chat("My key is sk-real-key-of-mine")
    assert "sk-real" not in str(caught.value)
    assert "sk-real" not in caught.value.prompt


def test_in_a_run_each_place_has_the_error_and_the_others_their_answers(recorded):
    results = recorded.map(["ping", "pong"], progress=False)
    assert results.texts == ["ping", None]
    assert isinstance(results.errors[1], CacheMissError)
    assert results.fatal is None
    results = recorded.embed(["a", "c"], progress=False)
    assert isinstance(results.errors[1], CacheMissError)
    assert results.errors[0] is None


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.stream("ping"),
        lambda pool: list(pool.stream_many(["ping"])),
        lambda pool: pool.models(),
        lambda pool: pool.files.upload(b"{}", "batch"),
        lambda pool: pool.submit("pong").result(),
        lambda pool: pool.responses("ping", background=True),
        lambda pool: pool.embed("ping"),
        lambda pool: pool.chat("ping", model="other"),
    ],
    ids=["stream", "stream_many", "models", "files", "submit", "background", "embed", "model"],
)
def test_nothing_else_is_sent_either(recorded, call):
    with pytest.raises(CacheMissError):
        call(recorded)


def test_an_answer_that_does_not_pass_its_review_any_more_says_so(recorded):
    def refuse(text):
        raise ValueError("not that")

    with pytest.raises(CacheMissError, match="no answer that is accepted"):
        recorded.chat("ping", parse=refuse)


def test_samples_are_recorded_by_their_number(server, path):
    cache = Cache(path, account="tests")
    with ChatPool("m", base_url=server.base_url, cache=cache) as pool:
        pool.map(["ping"] * 2, progress=False)
    with ChatPool("m", base_url=server.base_url, cache=Cache(path, account="tests", offline=True)) as pool:
        results = pool.map(["ping"] * 3, progress=False)
    assert [outcome.ok for outcome in results.outcomes] == [True, True, False]


def test_without_an_account_the_key_is_needed_as_ever(path):
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        ChatPool("m", cache=Cache(path, offline=True))


def test_with_one_neither_openai_nor_azure_need_one(path, offline):
    with pytest.raises(CacheMissError, match="api_key|has no answer"):
        offline.chat("ping")
    cache = Cache(path, account="tests", offline=True)
    pool = ChatPool.azure("https://example.openai.azure.com", cache=cache, model="m")
    with pool, pytest.raises(CacheMissError):
        pool.chat("ping")


def test_a_row_that_is_missing_stays_pending_in_a_journal(recorded, server, path, tmp_path):
    journal = tmp_path / "run.journal"
    recorded.map(["ping", "pong"], journal=journal, progress=False)
    with FakeServer() as other, ChatPool("m", base_url=other.base_url) as pool:
        assert pool.map(["ping", "pong"], journal=journal, progress=False).texts == ["ping", "pong"]
        assert [request.prompt for request in other.requests] == ["pong"]


def test_the_error_survives_pickling_and_json(offline):
    with pytest.raises(CacheMissError) as caught:
        offline.chat("ping")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.path, error.model, error.prompt) == ("/chat/completions", "m", "ping")
    assert from_dict(error.to_dict()).path == "/chat/completions"
    assert "prompt" not in error.to_dict()
