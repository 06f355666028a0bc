"""``chatpool report``."""

from __future__ import annotations

import json
import sys
import types

import pytest


@pytest.fixture
def output(run, chatpool_server, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("one\ntwo\n")
    assert run("run", source, "-o", target, "--model", "m", "--base-url", chatpool_server.base_url).code == 0
    return target


def test_it_prints_a_summary(run, output):
    ended = run("report", output, "--prices", "2,8")
    assert ended.code == 0
    assert ended.lines[0] == "rows        2: 2 answered, 0 failed"
    assert any(line.startswith("cost") for line in ended.lines)


def test_its_numbers_as_json(run, output):
    numbers = json.loads(run("report", output, "--json").out)
    assert (numbers["rows"], numbers["attempts"], numbers["models"]) == (2, 2, {"m": 2})
    assert set(numbers["latency"]) == {"p50", "p90", "p95", "p99", "p100"}


def test_a_file_that_is_none_is_exit_code_2(run, tmp_path):
    ended = run("report", tmp_path / "nothing.jsonl")
    assert (ended.code, "cannot read" in ended.err) == (2, True)


def test_a_page_needs_the_plotting_library(run, output, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    ended = run("report", output, "--html", tmp_path / "report.html")
    assert (ended.code, "chatpool[report]" in ended.err) == (2, True)
    assert not (tmp_path / "report.html").exists()


def test_a_page_is_written(run, output, monkeypatch, tmp_path):
    monkeypatch.setitem(
        sys.modules, "chatpool.batch.page", types.SimpleNamespace(page=lambda report: f"<p>{report.rows}")
    )
    ended = run("report", output, "--html", tmp_path / "report.html")
    assert (ended.code, ended.err) == (0, f"chatpool: written: {tmp_path}/report.html\n")
    assert (tmp_path / "report.html").read_text() == "<p>2"
