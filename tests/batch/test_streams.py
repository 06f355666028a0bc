"""Batch runs whose answers are collected from streams."""

from __future__ import annotations

import json

import pytest

import chatpool
from chatpool import ChatPool
from chatpool.testing import Stream


def test_rows_are_answered_out_of_streams(write_rows, read_lines, chatpool_server, tmp_path):
    chatpool_server.set_script([Stream(["Once"], end="cut"), Stream(["Once"], end="reset", every=0.01)])
    target = tmp_path / "out.jsonl"
    with ChatPool("m", base_url=chatpool_server.base_url, max_workers=2) as pool:
        result = chatpool.batch.run(write_rows(5), target, pool=pool, progress=False, collect_stream=True)
    assert result.succeeded == 5
    assert all(request.body["stream"] is True for request in chatpool_server.requests)
    answers = [line["response"]["body"]["choices"][0]["message"]["content"] for line in read_lines(target)]
    assert len(answers) == 5
    assert len(chatpool_server.requests) == 7


def test_rows_that_cannot_be_streamed_are_answered_whole(chatpool_server, tmp_path, read_lines):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"custom_id": "a", "method": "POST", "url": "/v1/moderations", "body": {"input": "one"}},
        {
            "custom_id": "b",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "two"}]},
        },
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ChatPool("m", base_url=chatpool_server.base_url) as pool:
        result = chatpool.batch.run(source, target, pool=pool, progress=False, collect_stream=True)
    assert result.succeeded == 2
    sent = {request.path: request.body.get("stream") for request in chatpool_server.requests}
    assert sent == {"/v1/moderations": None, "/v1/chat/completions": True}


def test_it_is_true_or_false(write_rows, tmp_path):
    with pytest.raises(TypeError, match="collect_stream must be True or False"):
        chatpool.batch.run(write_rows(1), tmp_path / "out.jsonl", collect_stream="yes")
