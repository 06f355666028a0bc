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
    [pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow), (signal.SIGTERM, 143, "terminated")],
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


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="redirections of a Unix shell")


def redirected(arguments, redirection, server="http://127.0.0.1:1/v1"):
    """Run the command with a standard stream redirected by the shell, and return how it ended."""
    command = [sys.executable, "-m", "chatpool.cli", *arguments, "--base-url", server]
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    return subprocess.run(shell, cwd=ROOT, input="", capture_output=True, text=True, timeout=120)


@POSIX
@pytest.mark.parametrize("redirection", ["2>&-", pytest.param("2>/dev/full", marks=pytest.mark.slow)])
def test_errors_that_nobody_can_read_go_nowhere_else_and_keep_the_exit_code(redirection):
    ended = redirected(["ask", "--model", "m", "--retries", "0", "ping"], redirection)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "")


@POSIX
@pytest.mark.parametrize("redirection", [pytest.param("2>&-", marks=pytest.mark.slow), "2>/dev/full"])
def test_wrong_usage_that_nobody_can_read_goes_nowhere_else(redirection):
    ended = redirected(["ask", "--no-such-option"], redirection)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")


@POSIX
def test_check_needs_no_standard_error(chatpool_server):
    ended = redirected(["check"], "2>&-", chatpool_server.base_url)
    assert ended.returncode == 0
    assert "call      answered" in ended.stdout


@POSIX
@pytest.mark.parametrize("arguments", [pytest.param(["ask"], marks=pytest.mark.slow), ["ask", "--lines"]])
def test_a_closed_standard_input_is_one_without_prompts(chatpool_server, arguments):
    ended = redirected(arguments, "<&-", chatpool_server.base_url)
    assert ended.returncode == 2
    assert "no prompt was given" in ended.stderr


@POSIX
def test_lines_are_answered_with_a_closed_standard_output(chatpool_server):
    ended = redirected(["ask", "--lines"], ">&-", chatpool_server.base_url)
    assert (ended.returncode, "no prompt was given" in ended.stderr) == (2, True)


@POSIX
def test_a_run_goes_on_although_nobody_can_read_its_messages(chatpool_server, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("ping\n")
    ended = redirected(["run", str(source), "-o", str(target)], "2>/dev/full", chatpool_server.base_url)
    assert ended.returncode == 0
    assert len(target.read_text().splitlines()) == 1
