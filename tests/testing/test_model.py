"""What a FakeServer answers when nothing else is said."""

from __future__ import annotations

import base64
import json
import math
import struct

import pytest

from chatpool.testing import FakeServer, chat_completion, embedding_vector
from chatpool.testing.received import prompt_of


def test_a_chat_is_answered_with_its_last_user_message(make_server, post):
    body = {
        "model": "gpt-x",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "said"},
            {"role": "user", "content": "two words"},
        ],
    }
    answer = post(make_server(), body=body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "req_0"
    assert answer.text == "two words"
    assert answer.json["model"] == "gpt-x"
    assert answer.json["id"] == "chatcmpl-0"
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    assert answer.json["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_content_parts_are_read_and_any_text_survives(make_server, post):
    text = 'quotes " and \\ and \n and é and 😀 and \ud800'
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": text}, {"type": "image_url"}]}]}
    assert post(make_server(), body=body).text == text


def test_as_many_choices_as_asked_for(make_server, post):
    answer = post(make_server(), body={"n": 3, "messages": [{"role": "user", "content": "x"}]})
    assert [choice["index"] for choice in answer.json["choices"]] == [0, 1, 2]


def test_reply_makes_the_text(make_server, post):
    server = make_server(reply=lambda body: f"{body['model']} says hello")
    assert post(server).text == "m says hello"


def test_reply_can_make_the_whole_body(make_server, post):
    cut = chat_completion("Once upon", finish_reason="length")
    assert post(make_server(reply=lambda body: cut)).json == cut


def test_a_body_may_call_tools(make_server, post):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = chat_completion(None, finish_reason="tool_calls", tool_calls=[call])
    message = post(make_server(reply=lambda _: body)).json["choices"][0]["message"]
    assert message == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


@pytest.mark.parametrize(("path", "body"), [("/completions", {"prompt": "x"}), ("/responses", {"input": "x"})])
def test_reply_makes_the_body_of_other_paths_too(make_server, post, path, body):
    assert post(make_server(reply=lambda _: {"own": 1}), path=path, body=body).json == {"own": 1}


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        (["no object"], ""),
        ({"messages": "no list"}, ""),
        ({"messages": [{"role": "system", "content": "x"}]}, ""),
        ({"messages": [{"role": "user", "content": 5}]}, ""),
        ({"messages": ["no object", {"role": "user", "content": "x"}]}, "x"),
        ({"prompt": [1, 2, 3]}, ""),
        ({"prompt": ["a", "b"]}, "b"),
        ({"input": ["a", "b"]}, "b"),
        ({"input": [1, 2]}, ""),
        ({"input": []}, ""),
    ],
)
def test_the_prompt_of_any_body_is_a_text(body, prompt):
    assert prompt_of(body) == prompt


def test_tokens_get_one_vector(make_server, post):
    assert len(post(make_server(), path="/embeddings", body={"input": [1, 2, 3]}).json["data"]) == 1


def test_a_completion_has_a_choice_per_prompt(make_server, post):
    answer = post(make_server(), path="/completions", body={"prompt": ["a b", "c"]})
    assert [choice["text"] for choice in answer.json["choices"]] == ["a b", "c"]
    assert answer.json["usage"]["total_tokens"] == 6


@pytest.mark.parametrize(
    "given",
    ["hello you", [{"role": "user", "content": "hello you"}], [{"role": "user", "content": [{"text": "hello you"}]}]],
)
def test_a_response_has_one_message(make_server, post, given):
    answer = post(make_server(), path="/responses", body={"model": "m", "input": given})
    assert answer.json["status"] == "completed"
    assert answer.json["output"][0]["content"][0]["text"] == "hello you"
    usage = answer.json["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (2, 2, 4)


def test_an_embedding_depends_on_the_text_alone(make_server, post):
    answer = post(make_server(), path="/embeddings", body={"model": "e", "input": ["a", "b", "a"]})
    vectors = [entry["embedding"] for entry in answer.json["data"]]
    assert vectors == [embedding_vector("a"), embedding_vector("b"), embedding_vector("a")]
    assert vectors[0] != vectors[1]
    assert math.isclose(math.hypot(*vectors[0]), 1, rel_tol=1e-6)


def test_an_embedding_as_base64_holds_the_same_numbers(make_server, post):
    body = {"input": "a", "dimensions": 16, "encoding_format": "base64"}
    encoded = post(make_server(), path="/embeddings", body=body).json["data"][0]["embedding"]
    assert list(struct.unpack("<16f", base64.b64decode(encoded))) == embedding_vector("a", 16)


def test_a_moderation_flags_nothing(make_server, post):
    answer = post(make_server(), path="/moderations", body={"input": ["a", "b"]})
    assert [result["flagged"] for result in answer.json["results"]] == [False, False]


def test_the_models_are_listed(make_server, connect):
    connection = connect(make_server())
    connection.request("GET", "/v1/models")
    assert json.loads(connection.getresponse().read())["data"][0]["id"] == "fake-model"


def test_azure_paths_are_known(make_server, connect):
    server = make_server()
    connection = connect(server)
    target = "/openai/deployments/mine/chat/completions?api-version=2024-10-21&empty="
    connection.request("POST", target, body=b'{"messages": [{"role": "user", "content": "hi"}]}')
    assert json.loads(connection.getresponse().read())["choices"][0]["message"]["content"] == "hi"
    request = server.requests[0]
    assert (request.path, request.query) == (
        "/openai/deployments/mine/chat/completions",
        {"api-version": "2024-10-21", "empty": ""},
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/chat/completions", {"model": "m"}, 400, "messages"),
        ("/chat/completions", ["no object"], 400, "JSON"),
        ("/completions", {}, 400, "prompt"),
        ("/responses", {}, 400, "input"),
        ("/embeddings", {}, 400, "input"),
        ("/moderations", {}, 400, "input"),
        ("/nowhere", {}, 404, "Unknown request URL: POST /v1/nowhere"),
        ("/models", {}, 405, "Unknown request URL"),
    ],
)
def test_a_wrong_request_is_refused_by_name(make_server, post, path, body, status, said):
    answer = post(make_server(), path=path, body=body)
    assert answer.status == status
    assert said in answer.json["error"]["message"]


def test_a_base_url_without_v1_is_told_so(make_server, connect):
    connection = connect(make_server())
    connection.request("POST", "/chat/completions", body=b"{}")
    response = connection.getresponse()
    assert response.status == 404
    assert b"/v1" in response.read()


def test_an_error_in_reply_is_answered_kept_and_raised(post):
    def reply(body):
        raise AssertionError("no such row")

    with pytest.raises(AssertionError, match="no such row"), FakeServer(reply=reply) as server:
        answer = post(server)
        assert answer.status == 500
        assert answer.headers["x-should-retry"] == "false"
        assert "no such row" in answer.json["error"]["message"]
        assert len(server.errors) == 1


def test_an_error_of_the_test_is_not_replaced_by_one_of_reply(post):
    def reply(body):
        raise AssertionError("in reply")

    with pytest.raises(KeyError), FakeServer(reply=reply) as server:
        post(server)
        raise KeyError("in the test")
