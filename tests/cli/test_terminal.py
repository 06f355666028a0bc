"""The command as a process: signals, and readers that leave."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import chatpool
from chatpool.testing import Stall

ROOT = Path(chatpool.__file__).parents[1]


@pytest.fixture
def start():
    """Starts ``chatpool ask`` as a process, which is gone after the test."""
    started = []

    def command(server, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "chatpool.cli", "ask", "--model", "m", "--base-url", server.base_url, *arguments],
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


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_it_at_once_whatever_the_server_does(start, chatpool_server, number, code, word):
    chatpool_server.set_script(Stall())
    process = start(chatpool_server, "ping")
    chatpool_server.wait_for(1, timeout=60)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", f"chatpool: {word}\n")


def test_a_signal_keeps_what_was_printed(start, chatpool_server):
    chatpool_server.set_script({"two": Stall()})
    process = start(chatpool_server, "--lines")
    process.stdin.write("one\ntwo\n")
    process.stdin.close()
    assert process.stdout.readline() == "one\n"
    chatpool_server.wait_for(2, timeout=60)
    process.terminate()
    assert process.wait(timeout=60) == 143


def test_a_reader_that_leaves_ends_it_in_silence(start, chatpool_server):
    process = start(chatpool_server, "--lines")
    process.stdout.close()
    process.stdin.write("one\ntwo\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""


def test_answers_are_printed_while_prompts_still_come(start, chatpool_server):
    process = start(chatpool_server, "--lines", "--max-workers", "1")
    process.stdin.write("one\ntwo\n")
    process.stdin.flush()
    chatpool_server.wait_for(2, timeout=60)
    process.stdin.close()
    assert process.stdout.read() == "one\ntwo\n"
    assert process.wait(timeout=60) == 0
