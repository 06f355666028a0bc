"""Every wrong argument is an error that names the argument and the cure."""

from __future__ import annotations

import pytest
import requests

from chatpool import APIConnectionError, ChatPool, ConfigurationError, RetryPolicy, Timeout

URL = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pool():
    with ChatPool("m", base_url=URL) as pool:
        yield pool


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ChatPool(), ConfigurationError, ["api_key is missing", "OPENAI_API_KEY", "base_url="]),
        (lambda: ChatPool(base_url=URL, workers=3), TypeError, ["workers"]),
        (lambda: ChatPool(base_url=URL, timeout=-1), ConfigurationError, ["timeout", "more than 0", "-1"]),
        (lambda: ChatPool(base_url=URL, timeout="10"), TypeError, ["timeout", "(connect, read)", "'10'"]),
        (lambda: ChatPool(base_url=URL, timeout=(1, 2, 3)), TypeError, ["timeout", "pair"]),
        (
            lambda: ChatPool(base_url=URL, timeout=Timeout(total=0)),
            ConfigurationError,
            ["timeout.total", "more than 0"],
        ),
        (lambda: ChatPool(base_url=URL, retry="3"), TypeError, ["retry", "max_retries", "'3'"]),
        (lambda: ChatPool(base_url=URL, retry=-1), ConfigurationError, ["max_retries", "0 or more"]),
        (lambda: ChatPool(base_url=URL, retry=RetryPolicy(stop=3)), TypeError, ["stop", "tenacity"]),
        (lambda: ChatPool(base_url=URL, max_workers=0), ConfigurationError, ["max_workers", "at least 1", "0"]),
        (lambda: ChatPool(base_url=URL, max_workers=2.5), TypeError, ["max_workers", "whole number", "2.5"]),
        (lambda: ChatPool(base_url="ftp://x"), ConfigurationError, ["base_url", "http"]),
        (lambda: ChatPool(base_url="localhost:8000/v1"), ConfigurationError, ["base_url", "http"]),
        (lambda: ChatPool(base_url="https://user:pw@host/v1"), ConfigurationError, ["base_url", "api_key"]),
        (lambda: ChatPool(base_url=URL, api_key=7), TypeError, ["api_key", "str"]),
        (lambda: ChatPool(base_url=URL, api_key="sk-\n"), ConfigurationError, ["api_key", "line break"]),
        (lambda: ChatPool(base_url=URL, headers="X: y"), TypeError, ["headers", "dict"]),
        (lambda: ChatPool(base_url=URL, defaults=[1]), TypeError, ["defaults", "dict"]),
        (lambda: ChatPool(7, base_url=URL), TypeError, ["model", "str", "7"]),
        (lambda: ChatPool(base_url=URL, session=requests), TypeError, ["session", "requests.Session"]),
        (lambda: ChatPool(base_url=URL, after_call=3), TypeError, ["after_call", "callable"]),
        (lambda: ChatPool(base_url=URL, listeners=[3]), TypeError, ["listeners", "Event"]),
        (
            lambda: ChatPool(base_url=URL, max_response_bytes=0),
            ConfigurationError,
            ["max_response_bytes", "1"],
        ),
        (lambda: ChatPool.azure(api_key="k"), ConfigurationError, ["endpoint", "AZURE_OPENAI_ENDPOINT"]),
        (lambda: ChatPool.azure("https://x"), ConfigurationError, ["api_key", "AZURE_OPENAI_API_KEY"]),
        (lambda: ChatPool.azure("https://x", "gpt", api_key="k"), ConfigurationError, ["api_version", "deployment"]),
        (lambda: ChatPool.azure("https://x", api_key="k", worker=1), TypeError, ["worker"]),
    ],
)
def test_a_pool_that_cannot_work_is_not_made(make, error, words):
    with pytest.raises(error) as caught:
        make()
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda pool: pool.map("text"), TypeError, ["[prompt]"]),
        (lambda pool: pool.map([{"role": "user", "content": "x"}]), TypeError, ["[messages]"]),
        (lambda pool: pool.map({"messages": []}), TypeError, ["[request]"]),
        (lambda pool: pool.map(7), TypeError, ["iterable", "int"]),
        (lambda pool: pool.map(["a"], prompt="x"), TypeError, ["prompt", "function"]),
        (lambda pool: pool.map(["a"], run_timeout=0), ConfigurationError, ["run_timeout", "more than 0"]),
        (lambda pool: pool.map(["a"], progress=3), TypeError, ["progress"]),
        (lambda pool: pool.map(["a"], buffersize=3), TypeError, ["buffersize"]),
        (lambda pool: pool.map(["a"], journal=3), TypeError, ["journal", "path"]),
        (lambda pool: pool.chat(7), TypeError, ["int", "a list of message dicts"]),
        (lambda pool: pool.chat([]), TypeError, ["empty"]),
        (lambda pool: pool.chat(["a", "b"]), TypeError, ["message"]),
        (lambda pool: pool.chat("a", on_error="none"), TypeError, ["on_error"]),
        (lambda pool: pool.chat("a", stream=True), TypeError, ["stream"]),
        (lambda pool: pool.chat("a", timeout=0), ConfigurationError, ["timeout"]),
        (lambda pool: pool.chat("a", extra_body=[1]), TypeError, ["extra_body", "dict"]),
        (lambda pool: pool.chat({"question": "x"}), TypeError, ["'messages'"]),
        (lambda pool: pool.with_options(max_workers=3), TypeError, ["max_workers", "timeout"]),
        (lambda pool: pool.request("moderations", {}), TypeError, ["path", "'/'"]),
        (lambda pool: pool.embed(7), TypeError, ["iterable"]),
    ],
)
def test_a_call_that_cannot_work_is_not_sent(pool, call, error, words):
    with pytest.raises(error) as caught:
        call(pool)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)
    assert pool.stats().failed == 0


def test_an_unreachable_server_is_named_with_what_to_check(pool):
    with pytest.raises(APIConnectionError) as caught:
        pool.chat("a", retry=0)
    for word in ("127.0.0.1:9", "refused", "base_url"):
        assert word in str(caught.value)
