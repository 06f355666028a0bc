"""``samples=`` of batch runs: several answers for each row, in its line or its cell."""

from __future__ import annotations

import csv
import itertools
import json
import signal
import sqlite3
import sys
from collections import Counter

import pytest

import chatpool
from chatpool import ConfigurationError, batch
from chatpool._journal import read_journal
from chatpool.batch import shards
from chatpool.testing import Error, FakeServer


class Numbers:
    """Replies that count the answers of the model: 0, 1, 2 ... in their order."""

    def __init__(self):
        self._next = itertools.count()

    def __call__(self, body):
        return [str(next(self._next)) for _ in range(body.get("n") or 1)]


@pytest.fixture
def numbered():
    """A server whose answers are all different and which takes ``n``."""
    with FakeServer(reply=Numbers()) as server:
        yield server


@pytest.fixture
def one_at_a_time():
    """A server whose answers are all different and which refuses ``n``."""
    with FakeServer(reply=Numbers(), choices=1) as server:
        yield server


def run(server, source, target, **options):
    options = {"model": "m", "base_url": server.base_url, "max_workers": 4, "retry": 0, "progress": False, **options}
    return batch.run(source, target, **options)


def texts_of(line):
    return [choice["message"]["content"] for choice in line["response"]["body"]["choices"]]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("choices", [128, 1, "first"])
def test_a_line_has_all_answers_in_the_form_of_the_api(write_rows, tmp_path, read_lines, processes, choices):
    target = tmp_path / "out.jsonl"
    with FakeServer(reply=Numbers(), choices=choices) as server:
        result = run(server, write_rows(6), target, samples=3, processes=processes, in_order=True)
        assert (result.succeeded, result.rows) == (6, 6)
        assert result.usage.completion_tokens == 18
        before = len(server.requests)
        again = run(server, tmp_path / "in.jsonl", target, samples=3, processes=processes, in_order=True)
        assert again.done_before == 6
        assert len(server.requests) == before
    lines = read_lines(target)
    assert [line["custom_id"] for line in lines] == [f"row {number}" for number in range(6)]
    assert all(len(texts_of(line)) == 3 for line in lines)
    assert len({text for line in lines for text in texts_of(line)}) >= (18 if choices != "first" else 6)
    assert [choice["index"] for choice in lines[0]["response"]["body"]["choices"]] == [0, 1, 2]


def test_another_number_of_samples_is_sent_again(numbered, write_rows, tmp_path, read_lines):
    source, target = write_rows(2), tmp_path / "out.jsonl"
    for samples in (2, 4):
        result = run(numbered, source, target, samples=samples)
    assert result.changed == 2
    assert [len(texts_of(line)) for line in read_lines(target)] == [4, 4]


def test_a_cell_of_a_table_is_a_list(numbered, write_rows, tmp_path):
    target = tmp_path / "out.csv"
    run(numbered, write_rows(1), target, samples=3, fields="id,answer,finish_reason,tokens,error")
    (row,) = csv.DictReader(target.read_text().splitlines())
    assert json.loads(row["answer"]) == ["0", "1", "2"]
    assert json.loads(row["finish_reason"]) == ["stop"] * 3
    assert (row["tokens"], row["error"]) == ("5", "")


def test_fields_of_parsed_answers_are_lists_too(write_rows, tmp_path):
    target = tmp_path / "out.db"
    answers = [json.dumps({"city": city, "sure": sure}) for city, sure in [("Rome", True), ("Oslo", False)]]
    schema = {"type": "object", "properties": {"city": {}, "sure": {}}, "required": ["city"]}
    with FakeServer(reply=lambda body: answers) as server:
        run(server, write_rows(1), target, samples=2, parse=schema)
    with sqlite3.connect(target) as database:
        city, sure = database.execute("SELECT city, sure FROM answers").fetchone()
    database.close()
    assert (json.loads(city), json.loads(sure)) == (["Rome", "Oslo"], [True, False])


def test_responses_have_the_others_beside_the_first(tmp_path, read_lines):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"custom_id": "a", "model": "m", "input": "hello"}) + "\n")
    with FakeServer() as server:
        run(server, source, target, samples=3)
        table = tmp_path / "out.csv"
        run(server, source, table, samples=3)
    (line,) = read_lines(target)
    body = line["response"]["body"]
    assert [each["object"] for each in [body, *body["samples"]]] == ["response"] * 3
    assert body["usage"]["output_tokens"] == 3
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert json.loads(row["answer"]) == ["hello"] * 3


def one_fails():
    """A script that refuses n, and the third request without it for good."""
    seen = itertools.count()
    return lambda request: Error(500) if "n" not in request.body and next(seen) == 2 else None


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_row_that_failed_in_part_asks_for_what_is_missing(write_rows, tmp_path, read_lines, processes):
    source, target = write_rows(1), tmp_path / "out.jsonl"
    with FakeServer(one_fails(), reply=Numbers(), choices=1) as server:
        result = run(server, source, target, samples=3, processes=processes, max_workers=2)
        assert (result.failed, result.causes) == (1, {"InternalServerError": 1})
        ((record, _),) = read_journal(str(tmp_path / "out.journal"))
        assert record.error["message"].startswith("2 of 3 answers came: ")
        before = len(server.requests)
        assert run(server, source, target, samples=3, processes=processes, max_workers=2).succeeded == 1
        assert [request.body.get("n", 1) for request in server.requests[before:]] == [1]
    (line,) = read_lines(target)
    assert len(set(texts_of(line))) == 3


@pytest.mark.slow
def test_a_budget_counts_all_samples_in_several_processes(numbered, write_rows, tmp_path):
    budget = chatpool.Budget(tokens=900)
    with chatpool.ChatPool("m", base_url=numbered.base_url, budget=budget, max_workers=2) as pool:
        result = batch.run(
            *(write_rows(3, max_tokens=100), tmp_path / "out.jsonl"),
            pool=pool,
            samples=10,
            processes=2,
            progress=False,
        )
    assert type(result.fatal) is chatpool.BudgetExceededError
    assert not numbered.requests


def test_rows_that_have_no_samples_fail_before_they_are_sent(numbered, tmp_path, read_lines):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"model": "text-embedding-3-small", "input": "hello"}) + "\n")
    result = run(numbered, source, target, samples=3, url="/v1/embeddings")
    assert result.causes == {"ConfigurationError": 1}
    assert "samples= is for" in read_lines(tmp_path / "out.errors.jsonl")[0]["error"]["message"]
    assert not numbered.requests


@pytest.mark.parametrize("samples", [0, "3"])
def test_a_number_that_cannot_be(numbered, write_rows, tmp_path, samples):
    with pytest.raises((TypeError, ConfigurationError), match="samples must be"):
        run(numbered, write_rows(1), tmp_path / "out.jsonl", samples=samples)


def test_shards_take_it(numbered, write_rows, tmp_path, read_lines):
    plan = shards.split(write_rows(4), tmp_path / "plan", rows=2)
    for index in range(2):
        shards.run(plan, index, model="m", base_url=numbered.base_url, samples=2, progress=False)
    shards.merge(plan, tmp_path / "out.jsonl")
    assert [len(texts_of(line)) for line in read_lines(tmp_path / "out.jsonl")] == [2] * 4


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.slow
def test_a_run_that_is_killed_pays_no_finished_row_twice(one_at_a_time, start_run, write_rows, tmp_path, read_lines):
    source, target = write_rows(60), tmp_path / "out.jsonl"
    process = start_run(one_at_a_time, source, target, "--samples", 3, "--max-workers", 3)
    one_at_a_time.wait_for(40, timeout=60)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    one_at_a_time.wait_until(lambda: one_at_a_time.in_flight == 0, timeout=60)
    done = {record.custom_id for record, _ in read_journal(str(tmp_path / "out.journal"))}
    assert len(done) >= 3
    before = len(one_at_a_time.requests)
    process = start_run(one_at_a_time, source, target, "--samples", 3, "--max-workers", 3)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not done & {request.prompt for request in one_at_a_time.requests[before:]}
    lines = read_lines(target)
    assert Counter(len(texts_of(line)) for line in lines) == {3: 60}


class TestBatchApi:
    def test_a_row_is_one_request_with_n(self, api_with, write_rows, read_lines):
        api = api_with(reply=Numbers())
        result = api.answer(write_rows(3), samples=4)
        assert result.succeeded == 3
        assert [len(texts_of(line)) for line in read_lines(api.output)] == [4] * 3
        assert api.run(api.folder / "in.jsonl", samples=4).done_before == 3

    def test_what_is_missing_can_be_asked_for_as_a_run(self, api_with, write_rows, read_lines):
        api = api_with(reply=Numbers(), choices="first")
        result = api.answer(write_rows(1), samples=3)
        assert result.causes == {"APIResponseError": 1}
        assert api.run(api.folder / "in.jsonl", samples=3).succeeded == 1
        assert sum(request.body.get("n", 1) for request in api.sent("POST", "/chat/completions")) == 2 + 1
        assert len(texts_of(read_lines(api.output)[0])) == 3

    @pytest.mark.parametrize(
        ("row", "samples"), [({"model": "m", "input": "a"}, 3), ({"model": "m", "prompt": "a"}, 129)]
    )
    def test_rows_that_one_request_cannot_answer_are_refused(self, api_with, tmp_path, row, samples):
        api = api_with()
        source = tmp_path / "in.jsonl"
        source.write_text(json.dumps(row) + "\n")
        with pytest.raises(ConfigurationError, match="line 1 cannot be put into a batch: samples="):
            api.submit(source, samples=samples)
        assert not api.server.requests


def test_the_command(numbered, start_run, write_rows, tmp_path, read_lines):
    process = start_run(numbered, write_rows(2), tmp_path / "out.jsonl", "--samples", 3)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [len(texts_of(line)) for line in read_lines(tmp_path / "out.jsonl")] == [3, 3]
