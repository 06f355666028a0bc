"""Answers that call tools, and what is sent back."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatpool import ChatPool, ToolCall
from chatpool.testing import Answer, FakeServer
from chatpool.testing.model import chat_completion, response_object


def call(name, arguments, id_="call_1"):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(*calls, text=None):
    return Answer(body=chat_completion(text, finish_reason="tool_calls", tool_calls=calls))


def test_tools_and_tool_choice_go_into_the_body_as_they_are(serve):
    server, pool = serve()
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    pool.chat("x", tools=tools, tool_choice="auto")
    assert server.requests[0].body["tools"] == tools
    assert server.requests[0].body["tool_choice"] == "auto"


def test_the_calls_are_values_with_decoded_arguments(always):
    _, pool = always(answer(call("add", '{"a": 1, "b": 2}'), call("now", "", "call_2")))
    reply = pool.chat("x")
    assert reply.tool_calls == (ToolCall("call_1", "add", '{"a": 1, "b": 2}'), ToolCall("call_2", "now", ""))
    assert reply.tool_calls[0].arguments == {"a": 1, "b": 2}
    assert reply.tool_calls[1].arguments == {}
    assert reply.text == ""


def test_arguments_that_are_not_json_are_no_matter_until_somebody_asks(always):
    _, pool = always(answer(call("add", '{"a": 1,')))
    tool_call = pool.chat("x").tool_calls[0]
    assert tool_call.arguments_json == '{"a": 1,'
    with pytest.raises(ValueError, match="the arguments for the tool 'add' are not JSON: Expecting property name"):
        tool_call.arguments  # noqa: B018 - decoding is what is tested


def test_arguments_that_come_as_an_object_are_the_same(always):
    _, pool = always(answer(call("add", {"a": 1, "b": "ä"})))
    tool_call = pool.chat("x").tool_calls[0]
    assert tool_call.arguments == {"a": 1, "b": "ä"}
    assert json.loads(tool_call.arguments_json) == tool_call.arguments


def test_calls_of_the_responses_api_are_the_same_values(always):
    item = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'}
    _, pool = always(Answer(body={**response_object("", id="resp_1", model="m"), "output": [item]}))
    reply = pool.responses("x")
    assert reply.tool_calls == (ToolCall("call_1", "add", '{"a": 1}'),)
    assert reply.finish_reason == "tool_calls"


def model_with_a_tool(body):
    """Asks for the tool once, then says what it got."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        assert body["messages"][-2]["tool_calls"][0]["id"] == last["tool_call_id"]
        return f"{body['messages'][0]['content']} is {last['content']}"
    a, b = last["content"].split("+")
    return chat_completion(None, finish_reason="tool_calls", tool_calls=[call("add", json.dumps({"a": a, "b": b}))])


def test_the_loop_of_the_howto_runs_in_parallel_over_many_items():
    with FakeServer(reply=model_with_a_tool) as server, ChatPool("m", base_url=server.base_url) as pool:

        def solve(question):
            messages = [{"role": "user", "content": question}]
            while True:
                reply = pool.chat(messages, parse=str)
                if not reply.tool_calls:
                    return reply.parsed
                messages.append(reply.message)
                for each in reply.tool_calls:
                    total = int(each.arguments["a"]) + int(each.arguments["b"])
                    messages.append({"role": "tool", "tool_call_id": each.id, "content": str(total)})

        questions = [f"{number}+{number}" for number in range(50)]
        with ThreadPoolExecutor(8) as threads:
            solved = list(threads.map(solve, questions))
    assert solved == [f"{number}+{number} is {2 * number}" for number in range(50)]
