"""Every endpoint of a real llama.cpp server: the embedded model (``make test-local``)."""

from __future__ import annotations

import json

import pytest

from chatpool import BadRequestError, ChatPool, InternalServerError, NotFoundError
from chatpool.local import LocalServer, install

pytestmark = pytest.mark.local

CAPITAL = {
    "type": "object",
    "properties": {"country": {"type": "string"}, "capital": {"type": "string"}},
    "required": ["country", "capital"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model_server():
    install()
    with LocalServer() as server:
        yield server


@pytest.fixture
def pool(model_server):
    with ChatPool(model_server.model, base_url=model_server.base_url, max_workers=4) as pool:
        yield pool


def test_the_responses_api_answers(pool):
    reply = pool.responses(
        "What is the capital of France? Answer in one sentence.", temperature=0, max_output_tokens=32
    )
    assert "Paris" in reply.text
    assert reply.usage.completion_tokens > 0
    assert reply.id.startswith("resp_")


def test_a_prompt_is_completed(pool):
    reply = pool.chat({"prompt": "The capital of France is"}, temperature=0, max_tokens=3)
    assert "Paris" in reply.text
    assert reply.finish_reason == "length"


def test_a_stream_arrives_in_pieces_and_says_what_it_used(pool):
    with pool.stream("Count from one to ten.", temperature=0, max_tokens=24) as stream:
        chunks = list(stream)
    assert len([chunk for chunk in chunks if chunk.text]) > 3
    assert "".join(chunk.text for chunk in chunks) == stream.text
    assert stream.completion.usage.completion_tokens > 3
    assert stream.completion.finish_reason in ("stop", "length")


def test_a_refusal_comes_before_the_stream(pool):
    with pytest.raises(BadRequestError, match="context size"), pool.stream("word " * 9000) as stream:
        list(stream)


def test_streams_are_collected_in_a_run(pool):
    results = pool.map(["Say one.", "Say two."], collect_stream=True, max_tokens=8, progress=False)
    assert all(result.text and result.usage.completion_tokens for result in results)


def test_models_are_listed(pool, model_server):
    assert [model["id"] for model in pool.request("/models", method="GET")["data"]] == [model_server.model]


def test_an_answer_keeps_to_a_json_schema(pool):
    wanted = {"type": "json_schema", "json_schema": {"name": "capital", "schema": CAPITAL, "strict": True}}
    questions = [f"What is the capital of {country}?" for country in ("France", "Japan")]
    for reply in pool.map(questions, response_format=wanted, temperature=0, max_tokens=200, progress=False):
        assert set(json.loads(reply.text)) == {"country", "capital"}


def test_a_schema_that_makes_no_sense_is_a_bad_request(pool):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(BadRequestError, match="nonsense") as caught:
        pool.chat("hello", response_format=wanted)
    assert caught.value.attempts == 1


def test_a_prompt_that_is_too_long_fails_alone(pool):
    results = pool.map(["word " * 9000, "Say hello."], max_tokens=4, on_error="return", progress=False)
    assert isinstance(results[0], BadRequestError)
    assert (results[0].type, results[0].attempts) == ("exceed_context_size_error", 1)
    assert results[1].text


def test_what_it_does_not_have_is_not_asked_for_again(pool):
    with pytest.raises(NotFoundError, match="File Not Found"):
        pool.request("/moderations", {"input": "hello"})
    with pytest.raises(InternalServerError, match="--embeddings") as caught:
        pool.embed("hello")
    assert (caught.value.status_code, caught.value.attempts) == (501, 1)


def test_started_for_embeddings_it_makes_them_and_chats_too():
    install()
    with LocalServer(embeddings=True) as server, ChatPool(server.model, base_url=server.base_url) as pool:
        paris, rome = pool.embed(["Paris is a city.", "Rome is a city."], progress=False)
        assert len(paris) == len(rome) == 576
        assert paris != rome
        assert pool.embed("Paris is a city.", encoding_format="base64") == pytest.approx(paris, abs=0.02)
        assert pool.chat("Say hello.", max_tokens=4).text
