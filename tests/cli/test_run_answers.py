"""``chatpool run --schema --max-reasks --accept``."""

from __future__ import annotations

import json
import sys

import pytest

from chatpool.testing import Answer
from chatpool.testing.model import chat_completion


@pytest.fixture
def command(run, chatpool_server, tmp_path):
    """``command(*arguments)`` runs two prompts."""
    source = tmp_path / "in.txt"
    source.write_text("7\nseven\n")

    def go(*arguments):
        target = tmp_path / "out.jsonl"
        return run("run", source, "-o", target, "--model", "m", "--base-url", chatpool_server.base_url, *arguments)

    return go


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "integer"}))
    return path


def test_rows_without_such_json_fail(command, schema, chatpool_server):
    ended = command("--schema", schema)
    assert ended.code == 1
    assert "1 of 2 rows answered; 1 failed (1 x ParseError)" in ended.err
    assert len(chatpool_server.requests) == 4
    assert "response_format" not in chatpool_server.requests[0].body


def test_how_often_they_are_asked_again(command, schema, chatpool_server):
    command("--schema", schema, "--max-reasks", "0")
    assert len(chatpool_server.requests) == 2


def test_which_reasons_are_taken(command, chatpool_server):
    chatpool_server.set_script({"7": Answer(body=chat_completion("7", finish_reason="length"))})
    ended = command("--accept", "stop, tool_calls")
    assert ended.code == 1
    assert "1 x LengthError" in ended.err
    assert command("--accept", "stop,length", "--retry-failed").code == 0


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (None, ["--max-reasks", "1"], "--max-reasks has no effect without --schema"),
        (None, ["--schema", "no-such-file"], "--schema no-such-file cannot be read: "),
        ("{", [], "cannot be read: "),
        ("[]", [], "is no JSON schema: it must be an object"),
        ('{"type": "nope"}', [], "no JSON schema: 'nope' is not valid"),
        ("{}", ["--max-reasks", "-1"], "--max-reasks must be 0 or more"),
        (None, ["--accept", " ,"], "--accept names no finish reason"),
    ],
)
def test_what_cannot_work_is_wrong_usage(command, schema, chatpool_server, content, arguments, said):
    if content is not None:
        schema.write_text(content)
        arguments = ["--schema", schema, *arguments]
    ended = command(*arguments)
    assert ended.code == 2
    assert said in ended.err
    assert not chatpool_server.requests


def test_so_is_a_missing_jsonschema(command, schema, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema.validators", None)
    ended = command("--schema", schema)
    assert ended.code == 2
    assert "pip install jsonschema" in ended.err
