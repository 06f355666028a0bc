"""``chatpool report``."""

from __future__ import annotations

import errno
import json
import os
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
    assert [options["model"] for options in numbers["runs"]] == ["m"]
    assert set(numbers["latency"]) == {"p50", "p90", "p95", "p99", "p100"}


def test_a_file_that_is_none_is_exit_code_2(run, tmp_path):
    ended = run("report", tmp_path / "nothing.jsonl")
    assert (ended.code, "cannot read" in ended.err) == (2, True)


def test_a_page_is_written(run, output, monkeypatch, tmp_path):
    monkeypatch.setitem(
        sys.modules, "chatpool.batch.report_html", types.SimpleNamespace(page=lambda report: f"<p>{report.rows}")
    )
    ended = run("report", output, "--html", tmp_path / "report.html")
    assert (ended.code, ended.err) == (0, f"chatpool: written: {tmp_path}/report.html\n")
    assert (tmp_path / "report.html").read_text() == "<p>2"


@pytest.fixture
def stub_page(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "chatpool.batch.report_html", types.SimpleNamespace(page=lambda report: f"<p>{report.rows}")
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links as POSIX has them")
def test_a_page_behind_a_link_replaces_what_the_link_leads_to(run, output, stub_page, tmp_path):
    link, target = tmp_path / "report.html", tmp_path / "elsewhere.html"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    assert run("report", output, "--html", link).code == 0
    assert (link.is_symlink(), target.read_text(), target.stat().st_mode & 0o777) == (True, "<p>2", 0o600)


@pytest.fixture
def no_place(tmp_path):
    """``no_place(kind)`` returns a path that no page can be written to."""

    def make(kind):
        folder = tmp_path / "folder"
        folder.mkdir()
        (tmp_path / "file").write_text("old")
        return {
            "in a missing folder": tmp_path / "missing" / "report.html",
            "a folder": folder,
            "below a file": tmp_path / "file" / "report.html",
            "too long": folder / ("x" * 300),
            "nothing": "",
        }[kind]

    return make


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("in a missing folder", "report.html: No such file or directory; make its folder"),
        ("a folder", "folder: Is a directory; name a file in it"),
        ("below a file", "report.html: Not a directory; choose another name"),
        ("too long", "File name too long; choose another name"),
        ("nothing", "cannot write '': "),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="errors as POSIX words them")
def test_a_place_that_cannot_be_written_to_is_wrong_usage(run, output, no_place, tmp_path, kind, words):
    path = no_place(kind)
    before = sorted(tmp_path.rglob("*"))
    ended = run("report", output, "--html", path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("chatpool: cannot write ")
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_so_is_one_without_permission(run, output, tmp_path, monkeypatch, number):
    def refuse(path, *arguments, **options):
        if str(path).startswith(str(tmp_path / "report.html")):
            raise OSError(number, os.strerror(number), path)
        return os_open(path, *arguments, **options)

    os_open = os.open
    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr(os, "open", refuse)
    ended = run("report", output, "--html", tmp_path / "report.html")
    assert ended.code == 2
    assert f"{os.strerror(number)}; choose a file that you may write to" in ended.err
    assert (tmp_path / "report.html").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_page_that_cannot_be_written_is_exit_code_3(run, output, stub_page):
    ended = run("report", output, "--html", "/dev/full")
    assert (ended.code, "No space left" in ended.err) == (3, True)
