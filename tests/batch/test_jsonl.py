"""Whatever a server or an input says, each line of an output is JSON by RFC 8259."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import ChatPool, batch
from chatpool._journal import FAILED, OK, Record, encode_value
from chatpool.batch.jsonl import answer_line, error_line
from chatpool.testing import Answer, FakeServer

# What Python's json reads: more than JSON.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read_strictly(line):
    """The value of a line of bytes, read as other readers of JSON do."""

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    assert len(line.decode("utf-8").splitlines()) == 1
    return json.loads(line, parse_constant=refuse)


def record(value, state, error=None, meta=None):
    return Record(7, state, "0123456789abcdef" * 2, "a", 1, 1.0, 1.0, (), error, meta, value)


@given(VALUES, VALUES)
def test_a_line_of_an_answer_is_json(value, meta):
    line = read_strictly(answer_line(record(encode_value(value), OK, meta=meta)))
    assert set(line) == {"id", "custom_id", "response", "error"} | ({"metadata"} if meta is not None else set())


@given(VALUES)
def test_a_line_of_an_answer_as_it_came_is_json(value):
    came = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    read_strictly(answer_line(record(came, OK)))


@given(VALUES, st.none() | st.integers(200, 599), VALUES)
def test_a_line_of_a_failure_is_json(body, status, meta):
    facts = {"class": "APIStatusError", "message": "m", "code": body, "status_code": status, "body": {"error": body}}
    read_strictly(error_line(record(b"null", FAILED, facts, meta)))


@pytest.mark.parametrize(
    "content",
    [
        b'{"choices": [{"message": {"content": "a"}, "logprobs": [NaN, -Infinity, 1e999]}], "usage": {"cost": NaN}}',
        '{"choices": [{"message": {"content": "a"}}]}'.encode("utf-16-le"),
        '{"choices": [{"message": {"content": "a\u2028b\u0085"}}]}'.encode(),
        b'{"choices": [{"message": {"content": "Infinity or NaN"}}]}',
    ],
    ids=["no numbers", "UTF-16", "line separators", "words"],
)
def test_a_server_that_says_more_than_json_gets_a_line_of_json(content, tmp_path, write_rows):
    with FakeServer(script=Answer(body=content)) as server, ChatPool("m", base_url=server.base_url, retry=0) as pool:
        assert batch.run(write_rows(1), tmp_path / "out.jsonl", pool=pool, progress=False).succeeded == 1
    (line,) = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert read_strictly(line)["response"]["body"]["choices"][0]["message"]["content"]


def test_an_error_with_more_than_json_gets_a_line_of_json(tmp_path, write_rows):
    answer = Answer(status=400, body=b'{"error": {"message": "m", "score": NaN}}')
    with FakeServer(script=answer) as server, ChatPool("m", base_url=server.base_url, retry=0) as pool:
        assert batch.run(write_rows(1), tmp_path / "out.jsonl", pool=pool, progress=False).failed == 1
    (line,) = (tmp_path / "out.errors.jsonl").read_bytes().splitlines()
    assert read_strictly(line)["response"]["body"]["error"] == {"message": "m", "score": None}
