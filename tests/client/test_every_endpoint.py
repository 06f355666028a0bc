"""Every endpoint of the API, over real sockets, with the bodies that the API sends."""

from __future__ import annotations

import base64

import pytest

from chatpool import APIResponseError, ChatCompletion, ChatRequest, NotFoundError, RateLimitError
from chatpool.testing import Answer


def response(**changes):
    """The body of an answer of ``/responses``."""
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Rome."}]}
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m-2024",
        "error": None,
        "incomplete_details": None,
        "output": [{"type": "reasoning", "id": "rs_1", "summary": []}, message],
        "usage": {
            "input_tokens": 9,
            "output_tokens": 2,
            "total_tokens": 11,
            "input_tokens_details": {"cached_tokens": 4},
        },
        **changes,
    }


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'}


class TestResponses:
    @pytest.mark.parametrize(
        "item",
        [
            "Capital of Italy?",
            [{"role": "user", "content": "Capital of Italy?"}],
            [CALL, {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}],
            {"input": "Capital of Italy?"},
            {"prompt": {"id": "pmpt_1"}},
            ChatRequest({"input": "Capital of Italy?"}, "/responses"),
        ],
        ids=["text", "messages", "input items", "body", "stored prompt", "request"],
    )
    def test_all_kinds_of_item_go_to_responses(self, serve, item):
        server, pool = serve(Answer(body=response()))
        assert pool.responses(item, max_output_tokens=50).text == "Rome."
        received = server.requests[0]
        assert received.path == "/v1/responses"
        asked = {"input": item} if isinstance(item, (str, list)) else getattr(item, "body", item)
        assert received.body == {**asked, "model": "m", "max_output_tokens": 50}

    def test_the_answer_is_one_in_the_words_of_chat(self, serve):
        _, pool = serve(Answer(body=response(), headers={"x-request-id": "req_9"}))
        reply = pool.responses("Capital of Italy?")
        assert isinstance(reply, ChatCompletion)
        assert (str(reply), reply.finish_reason, reply.model, reply.id) == ("Rome.", "stop", "m-2024", "resp_1")
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.cached_tokens) == (9, 2, 4)
        assert reply.request_id == "req_9"
        assert reply.message == {"role": "assistant", "content": "Rome."}
        assert reply.raw["output"][0]["type"] == "reasoning"

    @pytest.mark.parametrize(
        ("details", "reason"),
        [
            ({"reason": "max_output_tokens"}, "length"),
            ({"reason": "content_filter"}, "content_filter"),
            (None, None),
        ],
    )
    def test_an_incomplete_answer_says_why(self, serve, details, reason):
        _, pool = serve(Answer(body=response(status="incomplete", incomplete_details=details)))
        assert pool.responses("x").finish_reason == reason

    def test_calls_of_tools_are_read(self, serve):
        _, pool = serve(Answer(body=response(output=[CALL])))
        reply = pool.responses("Weather in Rome?", tools=[{"type": "function", "name": "weather"}])
        assert (reply.text, reply.finish_reason) == ("", "tool_calls")
        assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
            ("call_1", "weather", {"city": "Rome"})
        ]

    def test_a_conversation_goes_on_from_the_last_answer(self, serve):
        server, pool = serve(Answer(body=response()), Answer(body=response(id="resp_2")))
        first = pool.responses("Capital of Italy?")
        assert pool.responses("And its river?", previous_response_id=first.id).id == "resp_2"
        assert server.requests[1].body["previous_response_id"] == "resp_1"

    def test_a_system_text_becomes_the_instructions(self, serve):
        server, pool = serve(system="Be brief.")
        pool.responses("one")
        pool.responses("two", instructions="Be verbose.")
        assert [request.body["instructions"] for request in server.requests] == ["Be brief.", "Be verbose."]

    def test_a_failed_answer_is_asked_for_again(self, serve, instant_waits):
        failed = response(status="failed", output=[], error={"code": "server_error", "message": "The model failed."})
        server, pool = serve(Answer(body=failed), Answer(body=response()))
        assert pool.responses("x").text == "Rome."
        assert len(server.requests) == 2

    def test_a_failed_answer_that_is_a_refusal_for_rate_is_one(self, serve):
        failed = response(status="failed", output=[], error={"code": "rate_limit_exceeded", "message": "Slow down."})
        _, pool = serve(Answer(body=failed), retry=0)
        with pytest.raises(RateLimitError, match="Slow down"):
            pool.responses("x")

    def test_an_answer_without_output_is_none(self, serve):
        _, pool = serve(Answer(body={"id": "resp_1", "object": "response", "status": "completed"}), retry=0)
        with pytest.raises(APIResponseError, match="output"):
            pool.responses("x")

    @pytest.mark.parametrize("item", [7, None, b"x", [], {"messages": []}, {"x": 1}, ChatRequest({"messages": []})])
    def test_what_is_no_item_of_it_is_refused_before_anything_is_sent(self, serve, item):
        server, pool = serve()
        with pytest.raises(TypeError, match="input"):
            pool.responses(item)
        assert not server.requests

    def test_many_go_into_a_run(self, serve):
        server, pool = serve()
        rows = [{"q": "a"}, {"q": "b"}, {"q": "c"}]
        replies = pool.map(rows, prompt=lambda row: {"input": row["q"]}, max_output_tokens=5)
        assert [str(reply) for reply in replies] == ["a", "b", "c"]
        assert {request.path for request in server.requests} == {"/v1/responses"}
        assert replies.outcomes[1].item == {"q": "b"}
        assert replies.usage.total_tokens > 0


class TestTheRest:
    def test_completions_answer_with_a_text(self, serve):
        server, pool = serve(
            Answer(
                body={
                    "id": "cmpl-1",
                    "object": "text_completion",
                    "choices": [{"text": " Rome.", "index": 0, "logprobs": None, "finish_reason": "length"}],
                    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
                }
            )
        )
        reply = pool.chat({"prompt": "The capital of Italy is"}, max_tokens=2)
        assert (reply.text, reply.finish_reason, reply.usage.total_tokens) == (" Rome.", "length", 7)
        assert server.requests[0].path == "/v1/completions"

    def test_embeddings_come_as_numbers_or_as_base64(self, serve):
        coded = base64.b64encode(b"\x00\x00\x80\x3f\x00\x00\x00\xbf").decode()
        bodies = [{"object": "list", "data": [{"index": 0, "embedding": form}]} for form in ([1, -0.5], coded)]
        _, pool = serve(*[Answer(body=body) for body in bodies])
        assert pool.embed("a") == [1.0, -0.5]
        assert pool.embed("a", encoding_format="base64") == [1.0, -0.5]

    def test_vectors_that_come_in_another_order_are_put_in_theirs(self, serve):
        data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
        _, pool = serve(Answer(body={"object": "list", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}))
        assert pool.embed(["a", "b"]) == [[1.0], [2.0]]

    def test_moderations_are_a_request(self, serve):
        server, pool = serve()
        answer = pool.request("/moderations", {"input": ["a", "b"]})
        assert [result["flagged"] for result in answer["results"]] == [False, False]
        assert "model" not in server.requests[0].body

    def test_a_moderation_without_results_is_no_answer(self, serve):
        _, pool = serve(Answer(body={"id": "modr-1"}), retry=0)
        with pytest.raises(APIResponseError, match="results"):
            pool.request("/moderations", {"input": "a"})

    def test_models_are_listed_and_looked_up(self, serve):
        server, pool = serve(None, Answer(body={"id": "m", "object": "model", "created": 1, "owned_by": "x"}))
        assert [model["id"] for model in pool.request("/models", method="GET")["data"]]
        assert pool.request("/models/m", method="GET")["object"] == "model"
        assert [(request.method, request.raw) for request in server.requests] == [("GET", b"")] * 2

    def test_a_path_that_the_server_does_not_have_says_so(self, serve):
        _, pool = serve(Answer(status=404, body={"detail": "Not Found"}))
        with pytest.raises(NotFoundError, match="Not Found"):
            pool.request("/rerank", {"query": "a", "documents": ["b"]})


PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "https://example.invalid/a.png", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBOR" * 50}},
    {"type": "input_audio", "input_audio": {"data": "UklGR" * 50, "format": "wav"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBER"}},
]
ITEMS = [
    {"type": "input_text", "text": "What is this?"},
    {"type": "input_image", "image_url": "data:image/png;base64," + "iVBOR" * 50, "detail": "high"},
    {"type": "input_file", "file_id": "file-1"},
]


class TestImagesSoundAndFiles:
    def test_parts_of_a_message_reach_the_server_as_they_are(self, serve):
        server, pool = serve()
        message = {"role": "user", "content": PARTS}
        pool.chat([message])
        pool.map([[message]] * 2, system="Describe.")
        sent = [request.body["messages"] for request in server.requests]
        assert [messages[-1] for messages in sent] == [message] * 3

    def test_so_do_those_of_the_responses_api(self, serve):
        server, pool = serve()
        pool.responses([{"role": "user", "content": ITEMS}])
        assert server.requests[0].body["input"] == [{"role": "user", "content": ITEMS}]

    def test_an_answer_that_is_sound_is_kept(self, serve):
        message = {
            "role": "assistant",
            "content": None,
            "audio": {"id": "audio_1", "data": "UklGR", "transcript": "Hi"},
        }
        _, pool = serve(Answer(body={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
        reply = pool.chat("Say hi.", modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})
        assert reply.text == ""
        assert reply.message["audio"]["transcript"] == "Hi"
