"""Streams of a FakeServer: usual ones, scripted ones, and those that break."""

from __future__ import annotations

import http.client
import json
import socket

import pytest

from chatpool.errors import ConfigurationError
from chatpool.testing import Answer, Drip, Error, Reset, Stall, Stream, Truncate, chat_completion
from chatpool.testing.sse import ENDS, words

CHAT = {"model": "m", "messages": [{"role": "user", "content": "one  two\nthree "}], "stream": True}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}


def events(raw):
    """(name, JSON or text) of each event in a body with line feeds."""
    found = []
    for block in raw.decode().split("\n\n")[:-1]:
        fields = [line.partition(": ")[::2] for line in block.split("\n")]
        data = "\n".join(value for field, value in fields if field == "data")
        if data:
            found.append((dict(fields).get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


def deltas(raw, choice=0):
    """What a chat's chunks say of one choice."""
    payloads = [payload for _, payload in events(raw) if payload != "[DONE]"]
    return [
        (piece["delta"], piece["finish_reason"])
        for payload in payloads
        for piece in payload.get("choices", ())
        if piece["index"] == choice
    ]


def texts(raw, choice=0):
    return [delta["content"] for delta, _ in deltas(raw, choice) if "content" in delta and "role" not in delta]


@pytest.mark.parametrize("text", ["", " ", "one", " one", "one two ", "a\n\nb  c\n"])
def test_words_are_the_text(text):
    assert "".join(words(text)) == text


def test_a_chat_is_streamed_a_word_at_a_time(make_server, post):
    answer = post(make_server(), body=CHAT)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["x-request-id"] == "req_0"
    assert texts(answer.raw) == ["one", "  two", "\nthree", " "]
    assert deltas(answer.raw)[0] == ({"role": "assistant", "content": "", "refusal": None}, None)
    assert deltas(answer.raw)[-1] == ({}, "stop")
    assert events(answer.raw)[-1] == ("", "[DONE]")
    first = events(answer.raw)[0][1]
    assert (first["object"], first["id"], first["model"]) == ("chat.completion.chunk", "chatcmpl-0", "m")
    assert "usage" not in first


def test_usage_comes_in_a_chunk_of_its_own_where_it_is_asked_for(make_server, post):
    answer = post(make_server(), body={**CHAT, "stream_options": {"include_usage": True}})
    payloads = [payload for _, payload in events(answer.raw)]
    assert payloads[-2]["choices"] == []
    assert payloads[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert all(payload["usage"] is None for payload in payloads[:-2])


def test_as_many_choices_as_asked_for(make_server, post):
    answer = post(make_server(), body={**CHAT, "n": 2})
    assert texts(answer.raw, 0) == texts(answer.raw, 1) == ["one", "  two", "\nthree", " "]


def test_completions_are_streamed_for_each_prompt(make_server, post):
    answer = post(make_server(), path="/completions", body={"prompt": ["a b", "c"], "stream": True})
    pieces = [
        (piece["index"], piece["text"], piece["finish_reason"])
        for _, payload in events(answer.raw)[:-1]
        for piece in payload["choices"]
    ]
    assert pieces == [(0, "a", None), (1, "c", None), (0, " b", None), (0, "", "stop"), (1, "", "stop")]


def test_responses_are_streamed_as_named_events(make_server, post):
    answer = post(make_server(), path="/responses", body={"input": "a b", "stream": True})
    found = events(answer.raw)
    assert [name for name, _ in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert all(payload["type"] == name for name, payload in found)
    assert [payload["sequence_number"] for _, payload in found] == list(range(10))
    assert found[-1][1]["response"]["output"][0]["content"][0]["text"] == "a b"
    assert found[-1][1]["response"]["usage"]["output_tokens"] == 2


def test_a_response_may_call_functions_and_be_incomplete(make_server, post):
    call = {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"city": "Paris"}'}
    body = {"id": "r", "object": "response", "status": "completed", "output": [call], "usage": {}}
    server = make_server([Stream(body=body), Stream(["a"], finish_reason="length")])
    raw = post(server, path="/responses", body={"input": "a", "stream": True}).raw
    found = events(raw)
    pieces = [payload["delta"] for name, payload in found if name == "response.function_call_arguments.delta"]
    assert "".join(pieces) == call["arguments"]
    assert len(pieces) > 1
    raw = post(server, path="/responses", body={"input": "b", "stream": True}).raw
    name, payload = events(raw)[-1]
    assert name == "response.incomplete"
    assert payload["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_tool_calls_come_in_pieces(make_server, post):
    body = chat_completion(None, finish_reason="tool_calls", tool_calls=[CALL])
    raw = post(make_server(Stream(body=body)), body=CHAT).raw
    calls = [call for delta, _ in deltas(raw) for call in delta.get("tool_calls", ())]
    assert calls[0] == {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Paris"}'
    assert deltas(raw)[-1] == ({}, "tool_calls")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"reply": lambda body: "hi there"}, ["hi", " there"]),
        ({"reply": lambda body: chat_completion("a b", finish_reason="length")}, ["a", " b"]),
        ({"script": Answer("from the script")}, ["from", " the", " script"]),
    ],
)
def test_every_usual_answer_is_streamed_where_a_stream_is_asked_for(make_server, post, options, expected):
    assert texts(post(make_server(**options), body=CHAT).raw) == expected


def test_a_body_given_whole_and_errors_are_sent_as_they_are(make_server, post):
    body = chat_completion("pong")
    server = make_server([Answer(body=body), Error(503), None])
    assert post(server, body=CHAT).json == body
    assert post(server, body=CHAT).status == 503
    assert post(server, body={"stream": True}).status == 400


def test_a_stream_for_a_request_that_asks_for_none_is_an_answer(make_server, post):
    server = make_server([Stream(["po", b": x\n\n", "ng"]), Stream(body=chat_completion("whole")), Stream()])
    assert [post(server).text for _ in range(3)] == ["pong", "whole", "ping"]


def test_other_paths_do_not_stream(make_server, post):
    answer = post(make_server(Stream()), path="/embeddings", body={"input": "x", "stream": True})
    assert answer.json["object"] == "list"


def test_pieces_are_the_chunks_and_what_stands_between_them_is_sent_as_it_is(make_server, post):
    first = {"choices": [], "prompt_filter_results": []}
    stream = Stream([first, "a", b": keep-alive\n\n", "b c", b"event: ping\ndata: {}\n\n"], finish_reason="length")
    raw = post(make_server(stream), body=CHAT).raw
    assert events(raw)[0] == ("", first)
    assert texts(raw) == ["a", "b c"]
    assert b'"content": "a"' in raw.split(b": keep-alive\n\n")[0]
    assert ("ping", {}) in events(raw)
    assert deltas(raw)[-1] == ({}, "length")


def test_text_is_sent_as_utf_8_and_half_a_pair_escaped(make_server, post):
    raw = post(make_server(Stream(["é😀", "\ud800"])), body=CHAT).raw
    assert "é😀".encode() in raw
    assert texts(raw) == ["é😀", "\ud800"]


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_lines_may_end_otherwise(make_server, post, newline):
    plain = post(make_server(Stream(["a", b": x\n\n"])), body=CHAT).raw
    other = post(make_server(Stream(["a", b": x\n\n"], newline=newline)), body=CHAT).raw
    marked = plain.replace(b": x\n\n", b"!")
    assert other.replace(b": x\n\n", b"!") == marked.replace(b"\n", newline.encode())


def test_the_data_of_an_event_may_take_several_lines(make_server, post):
    raw = post(make_server(Stream(["a"], several_lines=True)), body=CHAT).raw
    assert all(line.startswith(b"data: ") or not line for line in raw.split(b"\n"))
    assert len(raw.split(b"\n")) > 20
    assert texts(raw) == ["a"]


@pytest.mark.parametrize(
    ("end", "reason", "mark"),
    [
        ("done", True, True),
        ("no_done", True, False),
        ("no_reason", False, True),
        ("cut", False, False),
        ({"error": {"message": "busy"}}, False, False),
    ],
)
def test_ends_that_end_the_body(make_server, post, end, reason, mark):
    raw = post(make_server(Stream(["a", "b"], end=end)), body=CHAT).raw
    assert b"data: [DONE]" in raw if mark else b"[DONE]" not in raw
    assert (b'"finish_reason": "stop"' in raw) is reason
    assert b'"content": "b"' in raw
    assert (events(raw)[-1] == ("", end)) is isinstance(end, dict)


def test_without_pieces_a_stream_that_is_cut_is_empty(make_server, post):
    answer = post(make_server(Stream([], end="cut")), body=CHAT)
    assert (answer.status, answer.raw) == (200, b"")


def test_a_stream_without_a_text_is_whole_all_the_same(make_server, post):
    assert deltas(post(make_server(Stream([])), body=CHAT).raw)[-1] == ({}, "stop")


def stream_request():
    data = json.dumps(CHAT).encode()
    return f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def read_until(sock, mark):
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def test_a_hangup_leaves_the_body_without_its_end(make_server, open_socket, read_all):
    sock = open_socket(make_server(Stream(["a"], end="hangup")), stream_request())
    data = read_all(sock)
    assert b'"content": "a"' in data
    assert not data.endswith(b"0\r\n\r\n")


def test_the_end_of_the_connection_may_be_the_end_of_the_body(make_server, open_socket, read_all):
    data = read_all(open_socket(make_server(Stream(["a"], framing="close")), stream_request()))
    assert b"connection: close" in data
    assert data.endswith(b"data: [DONE]\n\n")


def test_a_reset_comes_after_the_pieces(make_server, open_socket, read_all):
    sock = open_socket(make_server(Stream(["a", "b"], end="reset")), stream_request())
    assert b'"content": "b"' in read_until(sock, b'"content": "b"')
    with pytest.raises(ConnectionResetError):
        read_all(sock)


@pytest.mark.parametrize(("end", "mark"), [("stall", b'"content": "b"'), ("open", b"[DONE]")])
def test_silence_comes_after_the_pieces_and_ends_with_the_client(make_server, open_socket, end, mark):
    server = make_server(Stream(["a", "b"], end=end))
    sock = open_socket(server, stream_request())
    read_until(sock, mark)
    assert server.in_flight == 1
    sock.shutdown(socket.SHUT_RDWR)
    server.wait_until(lambda: server.in_flight == 0)


@pytest.mark.parametrize("step", [Drip(size=3, every=0, part="body", then=Stream(["é"])), Stream(["é"], every=0.001)])
def test_a_stream_may_come_slowly(make_server, post, step):
    assert texts(post(make_server(step), body=CHAT).raw) == ["é"]


def test_other_faults_cut_a_stream_by_bytes(make_server, post, open_socket):
    server = make_server([Truncate(then=Stream(["a"])), Reset(after=30, then=Stream(["a"])), Stall(40, then=Stream())])
    with pytest.raises(http.client.IncompleteRead):
        post(server, body=CHAT)
    with pytest.raises((ConnectionResetError, http.client.HTTPException)):
        post(server, body=CHAT)
    assert read_until(open_socket(server, stream_request()), b"\r\n").startswith(b"HTTP/1.1 200")


def test_headers_replace_the_servers_own(make_server, post):
    answer = post(make_server(Stream(["a"], headers={"Content-Type": "text/plain", "x-more": "1"})), body=CHAT)
    assert answer.headers.get_all("content-type") == ["text/plain"]
    assert answer.headers["x-more"] == "1"


@pytest.mark.parametrize("end", ENDS)
def test_streams_are_values(end):
    assert Stream(["a"], end=end) == Stream(("a",), end=end)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"end": "never"}, "end must be a dict or one of done, "),
        ({"newline": "\n\n"}, "newline must be one of"),
        ({"framing": "length"}, "framing of a stream"),
        ({"every": -1}, "every must be"),
        ({"pieces": ["a"], "body": {}}, "pieces or body"),
        ({"headers": {"x": "a\r\nb"}}, "line break"),
    ],
)
def test_what_cannot_be_streamed_is_refused_by_name(options, said):
    with pytest.raises(ConfigurationError, match=said):
        Stream(**options)


@pytest.mark.parametrize("pieces", ["text", b"bytes", {"a": 1}, [1], [None]])
def test_pieces_are_a_list_of_texts_dicts_and_bytes(pieces):
    with pytest.raises(TypeError, match="piece"):
        Stream(pieces)
