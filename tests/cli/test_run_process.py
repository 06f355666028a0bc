"""``chatpool run`` and ``chatpool shards run`` as processes: signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import chatpool
from chatpool.batch import shards
from chatpool.testing import Stall

ROOT = Path(chatpool.__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture
def start():
    """Starts ``chatpool run``, or another command, as a process, which is gone after the test."""
    started = []

    def command(server, *arguments, words=("run",)):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "chatpool.cli",
                *words,
                *map(str, arguments),
                "--model",
                "m",
                "--base-url",
                server.base_url,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield command
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if not stream.closed:
                stream.close()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.slow
def test_a_signal_ends_it_soon_with_everything_finished_on_disk(start, chatpool_server, tmp_path, number, code, word):
    source, target = tmp_path / "in.txt", tmp_path / "out file.jsonl"
    source.write_text("".join(f"prompt {line}\n" for line in range(1200)))
    chatpool_server.set_script(lambda request: Stall() if request.number >= 500 else None)
    process = start(chatpool_server, source, "-o", target)
    chatpool_server.wait_for(516, timeout=60)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)  # the 16 that stall would be waited for ten minutes
    assert process.returncode == code
    lines = err.splitlines()
    assert lines[-1] == f"chatpool: {word}"
    assert lines[-2].startswith(f"chatpool: to go on: chatpool run {source} -o '{target}' --model m ")
    assert "500 of 1,200 rows answered; 700 pending" in lines[-3]
    assert len({json.loads(line)["custom_id"] for line in target.read_text().splitlines()}) == 500
    chatpool_server.set_script(None)
    process = start(chatpool_server, source, "-o", target)
    assert process.wait(timeout=60) == 0
    assert len(chatpool_server.requests) == 1200 + 16


@pytest.mark.slow
def test_sigterm_ends_a_shard_and_all_after_it_with_everything_finished_on_disk(start, chatpool_server, tmp_path):
    source, work = tmp_path / "in.txt", tmp_path / "work"
    source.write_text("".join(f"prompt {line}\n" for line in range(60)))
    shards.split(source, work, rows=20)
    chatpool_server.set_script(lambda request: Stall() if request.number >= 30 else None)
    process = start(chatpool_server, work, "--all", words=("shards", "run"))
    chatpool_server.wait_for(40, timeout=60)  # a whole shard and all of the next one
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 143
    assert err[-1] == "chatpool: terminated"
    assert err[-2].startswith(f"chatpool: to go on: chatpool shards run {work} --all --model m ")
    assert "10 of 20 rows answered; 10 pending" in err[-3]
    assert [(state.done, state.pending) for state in shards.status(work)] == [(20, 0), (10, 10), (0, 20)]
    chatpool_server.set_script(None)
    assert start(chatpool_server, work, "--all", words=("shards", "run")).wait(timeout=60) == 0
    assert len(chatpool_server.requests) == 60 + 10


def test_a_signal_ends_it_while_it_waits_for_standard_input(start, chatpool_server, tmp_path):
    target = tmp_path / "out.jsonl"
    chatpool_server.set_script({"two": Stall()})
    process = start(chatpool_server, "-", "-o", target, "--max-workers", "1")
    process.stdin.write('{"prompt": "one"}\n{"prompt": "two"}\n')
    process.stdin.flush()
    chatpool_server.wait_for(2, timeout=60)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "1 of 2 rows answered" in process.stderr.read()
    assert len(target.read_text().splitlines()) == 1
