"""Pools across processes."""

from __future__ import annotations

import pickle
import ssl

import pytest

from chatpool import ChatPool, ConfigurationError, RetryPolicy


def key_from_a_vault():
    return "sk-vault"


def copy_of(pool):
    return pickle.loads(pickle.dumps(pool))


def test_a_pool_is_pickled_as_its_configuration(serve):
    server, pool = serve(defaults={"temperature": 0}, timeout=7, retry=RetryPolicy(max_retries=1))
    with copy_of(pool) as copy:
        assert copy.chat("a").text == "a"
    assert server.requests[0].body["temperature"] == 0
    assert "max_workers=4" in repr(copy)


def test_a_context_cannot_be_pickled(serve):
    server, pool = serve(verify=ssl.create_default_context())
    with pytest.raises(ConfigurationError, match="verify= is an ssl.SSLContext"):
        pickle.dumps(pool)


def test_a_view_keeps_its_defaults(serve):
    server, pool = serve()
    with copy_of(pool.with_options(model="other")) as copy:
        copy.chat("a")
    assert server.requests[0].body["model"] == "other"


def test_a_key_that_was_passed_is_not_in_the_pickle(serve, monkeypatch):
    server, pool = serve(api_key="sk-secret-key")
    pickled = pickle.dumps(pool)
    assert b"sk-secret-key" not in pickled
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="keys are not pickled: set OPENAI_API_KEY"):
        pickle.loads(pickled)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-there")
    with pickle.loads(pickled) as copy:
        copy.chat("a")
    assert server.requests[0].headers["authorization"] == "Bearer sk-from-there"


def test_a_key_function_is_called_again(serve):
    server, pool = serve(api_key=key_from_a_vault)
    with copy_of(pool) as copy:
        copy.chat("a")
    assert server.requests[0].headers["authorization"] == "Bearer sk-vault"


def test_an_azure_pool_comes_back_as_one(serve, monkeypatch):
    server, _ = serve()
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    with ChatPool.azure(server.origin, "gpt", api_version="2024-10-21") as pool, copy_of(pool) as copy:
        copy.chat("a")
    assert server.requests[0].path == "/openai/deployments/gpt/chat/completions"
