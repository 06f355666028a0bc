"""``chatpool watch``: a run under way, seen from another process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tqdm.utils import disp_len

import chatpool
from chatpool._journal import Journal, read_status
from chatpool.batch.run_status import RunStatus, counts_of, sum_of_counts
from chatpool.batch.watching import STALE_SECONDS, RunView, look
from chatpool.testing import Error, Stall
from chatpool.types import PoolStats
from tests.waiting import until

ROOT = Path(chatpool.__file__).parents[1]


@pytest.fixture
def start(tmp_path, chatpool_server):
    """``start(output, *arguments)`` runs 20 prompts in a process, of which the last eight stall and every 5th fails."""
    started = []
    source = tmp_path / "in.txt"
    source.write_text("".join(f"prompt {number}\n" for number in range(20)))

    def script(request):
        number = int(request.prompt.split()[1])
        return Stall() if number >= 12 else Error(400, "no") if number % 5 == 0 else None

    chatpool_server.set_script(script)

    def command(output, *arguments):
        options = ["--model", "m", "--base-url", chatpool_server.base_url, "--max-workers", "4"]
        process = subprocess.Popen(
            [sys.executable, "-m", "chatpool.cli", "run", source, "-o", output, *options, *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield command
    for process in started:
        process.kill()
        process.wait()


def is_stalled(journal):
    """Whether the run has said that all answers that can come are there."""
    status = read_status(str(journal)) or {}
    return status.get("in_flight") == 4 and status["succeeded"] + status["failed"] == 12


@pytest.mark.parametrize(
    ("output", "journal", "arguments"),
    [
        pytest.param("out.jsonl", "out.journal", (), marks=pytest.mark.slow),
        ("out.csv", "out.csv.journal", ("--processes", "2")),
        pytest.param("out.txt", "named.journal", ("--journal", "named.journal"), marks=pytest.mark.slow),
    ],
)
def test_a_run_is_seen_and_its_death_too(run, start, tmp_path, output, journal, arguments):
    output, journal = tmp_path / output, tmp_path / journal
    arguments = [tmp_path / word if word.endswith(".journal") else word for word in arguments]
    process = start(output, *arguments)
    until(lambda: is_stalled(journal))
    watched = journal if "--journal" in arguments else output
    ended = run("watch", watched, "--once")
    assert ended.code == 0
    assert "12 of 20 rows" in ended.out
    assert "4 in flight" in ended.out
    assert "3 rows failed: 3 x BadRequestError" in ended.out
    process.kill()
    process.wait()
    until(lambda: run("watch", watched, "--once").code == 3)  # a child of the run has to notice its parent's death
    ended = run("watch", watched)
    assert (ended.code, "9 of 20 rows answered, 3 failed, 8 pending" in ended.out) == (3, True)
    assert "is not running: it was killed" in ended.err


@pytest.mark.slow
def test_it_ends_when_the_run_ends(run, start, tmp_path, monkeypatch):
    process = start(tmp_path / "out.jsonl")
    until(lambda: is_stalled(tmp_path / "out.journal"))

    def look_and_end_the_run(journal):
        view = look(journal)
        process.terminate()
        return view

    monkeypatch.setattr("chatpool.cli.watch.look", look_and_end_the_run)
    ended = run("watch", tmp_path / "out.jsonl")
    assert ended.code == 0
    assert "the run has ended: 9 of 20 rows answered, 3 failed, 8 pending" in ended.out
    assert not list(tmp_path.glob("*.status"))


def test_before_the_first_row_it_says_that_the_input_is_read(run, tmp_path):
    journal = tmp_path / "out.journal"
    with Journal(journal):
        assert "has not said yet" in run("watch", tmp_path / "out.jsonl", "--once").out
        status = RunStatus(chatpool.batch.BatchResult()).facts()
        (tmp_path / "out.journal.status").write_text(json.dumps({"chatpool_status": 1, **status}))
        assert "nothing is sent yet" in run("watch", tmp_path / "out.jsonl", "--once").out


@pytest.mark.parametrize(("age", "is_running"), [(0, True), (STALE_SECONDS + 1, False)])
def test_without_locks_the_age_of_the_status_tells(tmp_path, monkeypatch, age, is_running):
    monkeypatch.setattr("chatpool.batch.watching.is_locked", lambda path: None)
    (tmp_path / "out.journal.status").write_text(json.dumps({"chatpool_status": 1, "at": time.time() - age}))
    view = look(str(tmp_path / "out.journal"))
    assert (view.is_running, view.was_killed) == (is_running, not is_running)


def test_a_run_that_is_silent_is_said_to_be(run, tmp_path):
    with Journal(tmp_path / "out.journal"):
        status = {"chatpool_status": 1, "at": time.time() - 60}
        (tmp_path / "out.journal.status").write_text(json.dumps(status))
        shown = run("watch", tmp_path / "out.jsonl", "--once").out
        assert re.search(r"it has not reported for (6\d|[7-9]\d) s", shown)  # the machine may be slow to look


def test_where_no_run_is_it_says_so(run, tmp_path):
    ended = run("watch", tmp_path / "out.jsonl")
    assert (ended.code, "name the output of a run that has begun" in ended.err) == (2, True)


def test_a_status_of_somebody_else_is_shown_without_harm(run, tmp_path):
    status = {
        "chatpool_status": 1,
        "at": "soon",
        "process": None,
        "host": "\x1b[31mhost",
        "elapsed": float("nan"),
        "total": -5,
        "succeeded": "x",
        "failed": 3,
        "causes": {"\x1b[2Jcause": "many"},
        "is_sending": True,
        "waits_for": "\x1b]0;wait",
    }
    with Journal(tmp_path / "out.journal"):
        (tmp_path / "out.journal.status").write_text(json.dumps(status))
        ended = run("watch", tmp_path / "out.jsonl", "--once")
    assert (ended.code, ended.err) == (0, "")
    assert "\x1b" not in ended.out


@pytest.mark.parametrize(
    "odd",
    [
        {"succeeded": 10**400},
        {"at": 10**400},
        {"at": -1e308},
        {"at": float("nan")},
        {"total": 10**300},
        {"elapsed": 1e308},
        {"elapsed": 1e-300},
        {"succeeded": -3, "elapsed": -5},
        {"succeeded": 200},
        {"host": "h" * 3000 + "\r\n\tx"},
    ],
    ids=lambda odd: str(odd)[:30],
)
def test_a_status_that_no_run_has_is_one_short_line(run, tmp_path, odd):
    status = {"chatpool_status": 1, "at": time.time(), "elapsed": 5, "total": 100, "succeeded": 10, "is_sending": True}
    with Journal(tmp_path / "out.journal"):
        (tmp_path / "out.journal.status").write_text(json.dumps({**status, **odd}))
        ended = run("watch", tmp_path / "out.jsonl", "--once")
    assert (ended.code, ended.err, len(ended.lines)) == (0, "", 1)
    assert len(ended.out) < 1000
    assert "-" not in ended.out.partition(" rows")[2]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
@pytest.mark.parametrize(("terminal", "redraws"), [("xterm", True), ("dumb", False)])
def test_lines_are_replaced_on_terminals_that_can_do_so(run, tmp_path, monkeypatch, terminal, redraws):
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("chatpool.cli.watch._LOOK_SECONDS", 0.001)
    views = iter([RunView(True, {"is_sending": True, "host": "主" * 50, "succeeded": 1})] * 2)
    monkeypatch.setattr("chatpool.cli.watch.look", lambda journal: next(views, RunView(False, None)))
    (tmp_path / "out.journal").touch()
    ended = run("watch", tmp_path / "out.jsonl")
    assert ("\x1b[" in ended.out) == redraws
    if redraws:
        assert all(disp_len(line) < 40 for line in ended.lines)


def test_counts_of_several_processes_are_added_and_the_reason_says_of_how_many_it_is():
    counts = counts_of(PoolStats(in_flight=2, retried=3, waits_for="server asks to wait 4 s"))
    assert sum_of_counts([counts, counts]) == {**counts, "in_flight": 4, "retried": 6}
    assert sum_of_counts([counts, {**counts, "waits_for": None}])["waits_for"] == "server asks to wait 4 s (1 of 2)"
    assert sum_of_counts([])["waits_for"] is None


def test_a_process_that_has_no_calls_is_none_that_sends():
    counts = counts_of(PoolStats(parked=2, waits_for="next retry in 4 s"))
    assert sum_of_counts([counts, counts_of(PoolStats(succeeded=3)), {}])["waits_for"] == "next retry in 4 s"
