"""The cron job of the examples: one run at a time, and an exit status that says who has to do something."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from chatpool.testing import Error, FakeServer

ROOT = Path(__file__).parents[2]
JOB = ROOT / "examples" / "cron_answers.py"
HUNG = 60  # seconds


@pytest.fixture
def server(monkeypatch, tmp_path, gate):
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("ping", "held")))
    monkeypatch.chdir(tmp_path)
    gate.set()
    with FakeServer(lambda request: None if request.prompt == "ping" else gate.wait(HUNG) and None) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-tests")
        yield server


def job():
    return subprocess.Popen([sys.executable, str(JOB)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run():
    """The exit status of a job, and what cron would send by mail."""
    with job() as process:
        printed, _ = process.communicate(timeout=HUNG)
        return process.returncode, printed


@pytest.mark.slow
def test_it_answers_what_is_new_and_is_silent(server, tmp_path):
    assert run() == (0, "")
    with (tmp_path / "questions.jsonl").open("a") as questions:
        questions.write('{"prompt": "pong"}\n')
    assert run() == (0, "")
    assert [request.prompt for request in server.requests[2:]] == ["pong"]
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_one_that_finds_another_at_work_has_nothing_to_do(server, gate):
    gate.clear()
    with job() as first:
        server.wait_for(2, HUNG)
        assert run() == (0, "")
        assert len(server.requests) == 2
        gate.set()
        assert (first.communicate(timeout=HUNG)[0], first.returncode) == ("", 0)


@pytest.mark.slow
def test_failed_rows_are_told_once(server):
    server.set_script({"held": Error(400)})
    status, printed = run()
    assert status == 1
    assert "1 failed" in printed
    assert run() == (0, "")  # it was refused for good: nothing new


@pytest.mark.slow
def test_a_refused_key_is_told_every_time(server):
    server.set_script(Error(401))
    for _ in range(2):
        status, printed = run()
        assert status == 3
        assert printed.startswith("AuthenticationError: ")


def test_a_run_out_of_time_leaves_the_rest_to_the_next(server, gate, capsys):
    gate.clear()
    main = runpy.run_path(str(JOB))["main"]
    main.__globals__["RUN_SECONDS"] = 0.5
    assert main() == 0
    gate.set()
    main.__globals__["RUN_SECONDS"] = HUNG
    assert main() == 0
    assert capsys.readouterr().out == ""
    assert len(Path("answers.jsonl").read_text().splitlines()) == 2
