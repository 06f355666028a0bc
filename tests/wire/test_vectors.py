"""Requests for embeddings joined, and their answer taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool.types import ChatRequest
from chatpool.wire.answers import UnusableAnswer
from chatpool.wire.vectors import joined, shared_part, taken_apart, tokens_of, vector_of


def request(text, path="/embeddings", **body):
    return ChatRequest({"input": text, **body}, path)


@pytest.mark.parametrize(
    "alone",
    [
        request(["a", "b"]),
        request([]),
        request(None),
        request("a", path="/responses"),
        ChatRequest({"input": "a"}, "/embeddings", "GET"),
    ],
)
def test_some_requests_go_alone(alone):
    assert shared_part(alone) is None


def test_what_has_to_be_shared_is_all_but_the_text():
    assert shared_part(request("a", model="m")) == shared_part(request("b", model="m"))
    assert shared_part(request("a", model="m")) != shared_part(request("a", model="n"))
    assert shared_part(request("a")) != shared_part(request("a", path="/v1/embeddings"))
    assert shared_part(request([1, 2])) is not None


def test_tokens_are_guessed_with_care():
    assert tokens_of(request("word " * 300)) >= 300
    assert tokens_of(request("字" * 300)) >= 300
    assert tokens_of(request([1] * 7)) == 7


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.integers(0, 10_000), st.randoms())
def test_taking_apart_undoes_joining_and_shares_out_every_token(texts, tokens, random):
    whole = joined([request(text, model="m") for text in texts])
    assert whole.body == {"input": texts, "model": "m"}
    data = [
        {"object": "embedding", "index": place, "embedding": [float(len(text))]} for place, text in enumerate(texts)
    ]
    random.shuffle(data)
    weights = [tokens_of(request(text)) for text in texts]
    parts = taken_apart(
        {"data": data, "model": "m", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}, weights
    )
    assert [vector_of(request(text), part) for text, part in zip(texts, parts)] == [
        [float(len(text))] for text in texts
    ]
    assert sum(part["usage"]["prompt_tokens"] for part in parts) == tokens
    assert {part["data"][0]["index"] for part in parts} == {0}


@pytest.mark.parametrize("data", [[], [{"index": 0}], [{"index": 5}, {"index": 0}], ["x", "y"]])
def test_an_answer_with_other_vectors_than_asked_for_is_unusable(data):
    with pytest.raises(UnusableAnswer, match="vectors for 2 texts"):
        taken_apart({"data": data}, [1, 1])
