"""Requests for embeddings joined, and their answer split again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._wire.embeddings import join_requests, shared_part, split_response, tokens_of, vector_of
from chatpool._wire.response import UnusableAnswer
from chatpool.types import ChatRequest


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
    whole = join_requests([request(text, model="m") for text in texts])
    assert whole.body == {"input": texts, "model": "m"}
    data = [
        {"object": "embedding", "index": place, "embedding": [float(len(text))]} for place, text in enumerate(texts)
    ]
    random.shuffle(data)
    weights = [tokens_of(request(text)) for text in texts]
    parts = split_response(
        {"data": data, "model": "m", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}, weights
    )
    assert [vector_of(part) for part in parts] == [[float(len(text))] for text in texts]
    assert sum(part["usage"]["prompt_tokens"] for part in parts) == tokens
    assert {part["data"][0]["index"] for part in parts} == {0}


@pytest.mark.parametrize("data", [[], [{"index": 0}], [{"index": 0}] * 3])
def test_an_answer_with_other_vectors_than_asked_for_is_unusable(data):
    with pytest.raises(UnusableAnswer, match="vectors for 2 texts"):
        split_response({"data": data}, [1, 1])


def places(*numbers):
    """Which texts the vectors with these numbers belong to, by the place that they came at."""
    data = [{"index": number, "embedding": [float(place)]} for place, number in enumerate(numbers)]
    parts = split_response({"data": data}, [1] * len(data))
    return [part["data"][0]["embedding"][0] for part in parts]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0, 1, 2), [0, 1, 2]),
        ((2, 0, 1), [1, 2, 0]),
        ((7, 8, 9), [0, 1, 2]),
        ((9, 7, 8), [1, 2, 0]),
        ((0, 0, 0), [0, 1, 2]),
        ((None, None, None), [0, 1, 2]),
        ((None, 1, 2), [0, 1, 2]),
        ((2, None, 1), [1, 2, 0]),
        ((0, 1, 0, 1, 0), [0, 1, 2, 3, 4]),
        (("0", "1", "2"), [0, 1, 2]),
        ((1.0, 0.0), [1, 0]),
    ],
)
def test_vectors_find_their_places_however_they_are_numbered(numbers, expected):
    assert places(*numbers) == expected


@pytest.mark.parametrize("numbers", [(0, 2), (5, 0), (1, 1, 3), (0, 0, 1, 1)])
def test_numbers_that_make_no_sense_are_no_guess(numbers):
    with pytest.raises(UnusableAnswer, match="make no sense"):
        places(*numbers)


@pytest.mark.parametrize("vector", [[1.0, float("nan")], [float("inf")], [float("inf"), float("-inf")], [1e400]])
def test_a_vector_with_something_else_than_numbers_is_none(vector):
    answer = {"data": [{"embedding": vector}]}
    with pytest.raises(UnusableAnswer, match="NaN or infinity"):
        vector_of(answer)


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_a_number_that_is_too_large_for_a_vector_makes_none(number):
    with pytest.raises(UnusableAnswer, match="no 'embedding'"):
        vector_of({"data": [{"embedding": [number]}]})


@pytest.mark.parametrize("absurd", ["9" * 5000, 10**400, 1e300, float("inf"), float("nan"), None])
def test_an_absurd_number_of_a_vector_is_none(absurd):
    with pytest.raises(UnusableAnswer, match="make no sense"):
        places(0, 5, absurd)
    assert places(absurd) == places(0)


def test_the_largest_numbers_are_numbers():
    vector_of({"data": [{"embedding": [1.7e308, 1.7e308]}]})
