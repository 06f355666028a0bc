"""Batch runs in which answers have to be something: ``parse=``, ``accept=`` and ``max_reasks=``."""

from __future__ import annotations

import dataclasses
import json

import pytest

from chatpool import ChatPool, batch
from chatpool.batch.report import report
from chatpool.testing import Answer, FakeServer
from chatpool.testing.model import chat_completion

NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}


@dataclasses.dataclass
class Number:
    number: int


def reply(body):
    """Rows whose number can be divided by 3 need a second question, by 5 are never answered, by 7 are cut."""
    number = int(body["messages"][0]["content"].split()[1])
    if number % 7 == 6:
        return chat_completion("{", finish_reason="length")
    right = number % 5 != 4 and (number % 3 != 2 or len(body["messages"]) > 1)
    return json.dumps({"number": number}) if right else "no idea"


@pytest.fixture
def server():
    with FakeServer(reply=reply) as server:
        yield server


@pytest.fixture
def run(server, write_rows, tmp_path):
    """``run(**keywords)`` answers 21 rows."""
    source = write_rows(21)

    def go(**keywords):
        options = {"base_url": server.base_url, "progress": False, **keywords}
        return batch.run(source, tmp_path / "out.jsonl", **options)

    return go


NEVER = {"row 4", "row 9", "row 14", "row 19"}
CUT = {"row 6", "row 13", "row 20"}


@pytest.mark.parametrize(
    "keywords",
    [
        pytest.param({"parse": Number}, id="class"),
        pytest.param({"parse": NUMBER}, id="schema"),
        pytest.param({"parse": NUMBER, "processes": 2}, id="2", marks=pytest.mark.slow),
    ],
)
def test_each_row_is_in_the_file_where_it_belongs(run, server, read_lines, tmp_path, keywords):
    result = run(max_reasks=1, **keywords)
    assert (result.rows, result.succeeded, result.failed, result.pending) == (21, 14, 7, 0)
    assert result.causes == {"ParseError": 4, "LengthError": 3}
    answers, errors = read_lines(tmp_path / "out.jsonl"), read_lines(tmp_path / "out.errors.jsonl")
    numbers = [json.loads(line["response"]["body"]["choices"][0]["message"]["content"])["number"] for line in answers]
    assert sorted(f"row {number}" for number in numbers) == sorted(line["custom_id"] for line in answers)
    codes = {line["custom_id"]: line["error"]["code"] for line in errors}
    assert codes == {**dict.fromkeys(NEVER, "parse_error"), **dict.fromkeys(CUT, "length")}
    assert all(line["response"] is None for line in errors)
    assert "not JSON" in next(line["error"]["message"] for line in errors if line["custom_id"] in NEVER)
    second = {f"row {number}" for number in range(21) if number % 3 == 2} | NEVER
    assert len(server.requests) == 21 + len(second - CUT)


def test_the_tokens_of_all_answers_are_counted_and_reported(run, server, tmp_path):
    result = run(parse=Number, max_reasks=1)
    said = [reply(request.body) for request in server.requests]
    written = sum(1 if isinstance(each, dict) else len(each.split()) for each in said)
    assert result.usage.completion_tokens == written
    assert report(tmp_path / "out.jsonl").usage == result.usage


def test_rows_that_failed_so_run_again_only_where_that_is_asked_for(run, server):
    run(parse=Number, max_reasks=0)
    before = len(server.requests)
    assert run(parse=Number).done_before == 21
    assert len(server.requests) == before
    result = run(parse=Number, retry_failed="parse_error")
    assert (result.rows, result.succeeded) == (9, 5)
    result = run(accept=("stop", "length"), retry_failed="LengthError")
    assert (result.rows, result.succeeded) == (3, 3)


def test_accept_alone(run):
    result = run(accept="stop")
    assert (result.succeeded, result.causes) == (18, {"LengthError": 3})


@pytest.mark.parametrize(
    ("keywords", "kind", "said"),
    [
        ({"parse": 3}, TypeError, "parse must be"),
        ({"max_reasks": 1}, TypeError, "max_reasks has no effect without parse="),
        ({"accept": 3}, TypeError, "accept must be"),
        ({"parse": {"type": "nope"}}, ValueError, "no JSON schema"),
        ({"parse": lambda text: text, "processes": 2}, ValueError, "leave out processes"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sent(run, server, keywords, kind, said):
    with pytest.raises(kind, match=said):
        run(**keywords)
    assert not server.requests


def test_rows_of_embeddings_have_no_answers_to_parse(server, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"input": "a", "model": "embed"}\n{"input": "b", "model": "embed"}\n')
    result = batch.run(source, tmp_path / "out.jsonl", base_url=server.base_url, parse=Number, progress=False)
    assert result.succeeded == 2


def test_an_answer_that_was_not_taken_is_in_the_journal(run, tmp_path):
    run(accept="stop")
    assert b'"finish_reason": "length"' in (tmp_path / "out.journal").read_bytes()


def test_a_view_of_a_pool_is_left_as_it_is(server, write_rows, tmp_path):
    with ChatPool("m", base_url=server.base_url) as pool:
        batch.run(write_rows(2), tmp_path / "out.jsonl", pool=pool, parse=Number, progress=False)
        server.set_script(Answer("x"))
        assert pool.chat("row 1").parsed is None
