"""Rows keep their name: when cells gain line breaks, blank lines come and go, rows leave, and after version 0.1.0."""

from __future__ import annotations

import gzip
import io
import shutil
import sys
from pathlib import Path

import pytest

import chatpool
from chatpool import ChatPool
from chatpool.testing import Error

OLD = Path(__file__).parent / "written_by_0_1_0"


@pytest.fixture
def run(chatpool_server, tmp_path):
    """``run(content, name, **options)`` runs an input to ``out.jsonl``; with ``name="-"`` from standard input."""

    def start(content, name="in.csv", **options):
        path = "-"
        if name == "-":
            options.pop("monkeypatch").setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        else:
            path = tmp_path / name
            path.write_text(content)
        with ChatPool(
            "m", base_url=chatpool_server.base_url, retry=0, max_workers=options.pop("max_workers", 4)
        ) as pool:
            return chatpool.batch.run(path, tmp_path / "out.jsonl", pool=pool, progress=False, **options)

    return start


@pytest.fixture
def answers(tmp_path, read_lines):
    """The answers in an output, by name."""

    def read(path=tmp_path / "out.jsonl"):
        lines = read_lines(path)
        found = {line["custom_id"]: said(line["response"]["body"]) for line in lines}
        assert len(found) == len(lines)
        return found

    return read


def said(body):
    """The text of an answer of chat or of completions, None of another."""
    choice = body.get("choices", [{}])[0]
    return choice["message"]["content"] if "message" in choice else choice.get("text")


def counts_agree(result, target):
    """The counts of the summary, of the report and of the files are the same."""
    report = chatpool.batch.report(target)
    errors = target.with_suffix(".errors.jsonl")
    lines = [len(path.read_text().splitlines()) if path.exists() else 0 for path in (target, errors)]
    assert [result.succeeded, result.failed] == [report.succeeded, report.failed] == lines
    return True


def test_a_cell_that_gains_a_line_break_is_the_only_one_that_runs_again(run, answers, chatpool_server, tmp_path):
    run("prompt,x\none,1\ntwo,2\nthree,3\n")
    before = answers()
    assert before == {"row-2": "one", "row-3": "two", "row-4": "three"}
    result = run('prompt,x\n"one\nmore",1\ntwo,2\nthree,3\n')
    assert [request.prompt for request in chatpool_server.requests[3:]] == ["one\nmore"]
    assert answers() == {**before, "row-2": "one\nmore"}
    assert counts_agree(result, tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("in.csv", "prompt,x\none,1\ntwo,2\n", "prompt,x\n\none,1\n,\n\ntwo,2\n,\n"),
        ("in.txt", "one\ntwo\n", "\none\n\n  \ntwo\n"),
        ("in.jsonl", '{"prompt": "one"}\n{"prompt": "two"}\n', '\n{"prompt": "one"}\n\n\n{"prompt": "two"}\n\n'),
    ],
)
def test_blank_lines_come_and_go(run, answers, chatpool_server, tmp_path, name, first, second):
    run(first, name)
    before = answers()
    for content in (second, first, second):
        assert counts_agree(run(content, name), tmp_path / "out.jsonl")
        assert answers() == before
    assert len(chatpool_server.requests) == 2


def test_rows_may_be_inserted_anywhere_where_a_field_names_them(run, answers, chatpool_server, tmp_path):
    run("id,prompt\na,one\nb,two\n", id_field="id", column="prompt")
    result = run("id,prompt\nc,zero\na,one\nd,half\nb,two\n", id_field="id", column="prompt")
    assert answers() == {"a": "one", "b": "two", "c": "zero", "d": "half"}
    assert sorted(request.prompt for request in chatpool_server.requests[2:]) == ["half", "zero"]
    assert counts_agree(result, tmp_path / "out.jsonl")


def test_the_counts_agree_when_rows_left_and_the_rest_was_not_reached(run, answers, chatpool_server, tmp_path):
    run("one\ntwo\nthree\nfour\n", "in.txt")
    chatpool_server.set_script(Error(401))
    result = run("one\nTWO\nthree\n", "in.txt")
    assert result.fatal is not None
    assert (result.rows, result.succeeded, result.removed_rows) == (3, 2, 1)
    assert answers() == {"row-1": "one", "row-3": "three"}
    assert counts_agree(result, tmp_path / "out.jsonl")


def test_a_row_that_is_changed_back_before_it_was_sent_has_its_answer_again(run, answers, chatpool_server):
    run("one\ntwo\nthree\n", "in.txt")
    chatpool_server.set_script(Error(401))
    assert run("ONE\ntwo\nTHREE\n", "in.txt", max_workers=1).pending == 1
    assert answers() == {"row-2": "two"}
    chatpool_server.set_script(None)
    assert run("one\ntwo\nthree\n", "in.txt").succeeded == 3
    assert answers() == {"row-1": "one", "row-2": "two", "row-3": "three"}
    assert [request.prompt for request in chatpool_server.requests[3:]] == ["ONE", "one"]


def test_a_limit_leaves_out_nothing_that_it_did_not_look_at(run, answers):
    run("one\ntwo\nthree\n", "in.txt")
    assert run("one\n", "in.txt", limit=1).removed_rows == 0
    assert len(answers()) == 3


def test_rows_of_standard_input_leave_and_come_back_too(run, answers, monkeypatch, chatpool_server, tmp_path):
    run("one\ntwo\nthree\n", "-", monkeypatch=monkeypatch)
    result = run("one\nTWO\n", "-", monkeypatch=monkeypatch)
    assert answers() == {"row-1": "one", "row-2": "TWO"}
    assert (result.removed_rows, result.done_before) == (1, 1)
    assert counts_agree(result, tmp_path / "out.jsonl")
    result = run("one\nTWO\nthree\n", "-", monkeypatch=monkeypatch)
    assert answers() == {"row-1": "one", "row-2": "TWO", "row-3": "three"}
    assert counts_agree(result, tmp_path / "out.jsonl")
    assert len(chatpool_server.requests) == 4


def test_a_dry_run_sets_nothing_aside(run, answers, tmp_path):
    run("one\ntwo\nthree\n", "in.txt")
    journal = (tmp_path / "out.journal").read_bytes()
    result = run("one\n\nTWO\n", "in.txt", dry_run=True)
    assert (result.pending, result.done_before) == (1, 1)
    assert (tmp_path / "out.journal").read_bytes() == journal
    assert len(answers()) == 3


# -- files of version 0.1.0 -----------------------------------------------------------------------------------------

NAMES = {
    "plain.csv": {"row-2": "one", "row-3": "two", "row-4": "three"},
    "odd.csv": {"row-2": "one\nmore", "row-3": "two", "row-4": "two", "row-5": "last\nof\nthem"},
    "blank.txt": {"row-1": "one", "row-2": "two", "row-3": "three", "row-4": "three"},
    "mixed.jsonl": {"row-1": "one", "own": "three"},
    "empty.csv": {"row-2": "one", "row-3": "nothing", "row-4": "  "},
}
OPTIONS = {"odd.csv": {"column": "prompt"}, "empty.csv": {"column": "prompt"}}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_files_of_version_0_1_0_go_on_without_sending_anything_again(
    chatpool_server, tmp_path, answers, read_lines, name, packed
):
    for path in OLD.glob(f"{name}*"):
        shutil.copy(path, tmp_path)
    source, target = tmp_path / name, tmp_path / f"{name}.out.jsonl"
    if packed:
        source = tmp_path / f"{name}.gz"
        source.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    model = "embed-m" if name == "mixed.jsonl" else "m"
    options = {"model": model, "base_url": chatpool_server.base_url, "progress": False, **OPTIONS.get(name, {})}
    before = sorted(str(line["response"]["body"]) for line in read_lines(target))
    for _ in range(2):
        result = chatpool.batch.run(source, target, **options)
        assert result.failed == result.pending == 0
        assert answers(target).items() >= NAMES[name].items()
        assert counts_agree(result, target)
    kept = sorted(str(line["response"]["body"]) for line in read_lines(target))
    assert chatpool_server.requests == []
    assert set(kept) <= set(before)
    assert len(kept) == len(before) - (name == "odd.csv")  # whose last row is nothing but separators


def test_a_changed_row_of_version_0_1_0_is_the_only_one_that_is_sent(chatpool_server, tmp_path, answers):
    for path in OLD.glob("odd.csv*"):
        shutil.copy(path, tmp_path)
    source, target = tmp_path / "odd.csv", tmp_path / "odd.csv.out.jsonl"
    source.write_text(source.read_text().replace("3,two", "3,drei"))
    result = chatpool.batch.run(
        source, target, model="m", base_url=chatpool_server.base_url, progress=False, column="prompt"
    )
    assert [request.prompt for request in chatpool_server.requests] == ["drei"]
    assert answers(target) == {**NAMES["odd.csv"], "row-4": "drei"}
    assert counts_agree(result, target)
