"""What a hostile server says, on a terminal, in a pipe, in reports and on stdouts that take nothing."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import chatpool
from chatpool.testing import Answer, Error, chat_completion

TITLE = "\x1b]0;owned\x07\x9b2J"
SHOWN = "\\u001b]0;owned\\u0007\\u009b2J"
HALF = "half \ud83d pair"


class Terminal(io.StringIO):
    """A stdout that is one."""

    def isatty(self):
        return True


@pytest.fixture
def on_a_terminal(monkeypatch, ask):
    """``on_a_terminal(*arguments)`` -> what ``chatpool ask`` prints on a terminal."""

    def command(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Terminal())
            ask(*arguments)
            return sys.stdout.getvalue()

    return command


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--stream",)], ids=["plain", "json", "stream"])
def test_an_answer_has_nothing_in_it_that_a_terminal_obeys(on_a_terminal, chatpool_server, arguments):
    chatpool_server.set_script(Answer(f"a{TITLE}b\n{HALF}"))
    out = on_a_terminal(*arguments, "hi")
    text = json.loads(out)["text"] if arguments == ("--json",) else out.removesuffix("\n")
    assert ("\x1b" in out, "\x9b" in out) == (False, False)
    assert text == (f"a{TITLE}b\n{HALF}" if arguments == ("--json",) else f"a{SHOWN}b\nhalf \\ud83d pair")


@pytest.mark.parametrize("arguments", [(), ("--stream",)], ids=["plain", "stream"])
def test_in_a_pipe_it_is_as_it_came(ask, chatpool_server, arguments):
    chatpool_server.set_script(Answer(f"a{TITLE}b"))
    assert ask(*arguments, "hi").out == f"a{TITLE}b\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_whatever_the_encoding_of_stdout(ask, chatpool_server, monkeypatch, encoding):
    chatpool_server.set_script(Answer(f"ü{TITLE}{HALF}"))
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        ask("--json", "hi")
        assert json.loads(written.getvalue().decode(encoding))["text"] == f"ü{TITLE}{HALF}"


def test_an_error_has_nothing_in_it_that_a_terminal_obeys(ask, chatpool_server):
    chatpool_server.set_script(Error(400, f"no{TITLE}", code=TITLE))
    ended = ask("hi")
    assert ended.code == 1
    assert SHOWN in ended.err
    assert TITLE not in ended.err


def test_check_shows_no_escape_sequence_of_a_server(run, chatpool_server, instant_waits):
    chatpool_server.set_script(Error(400, f"no{TITLE}{HALF}"))
    ended = run("check", "--base-url", chatpool_server.base_url, "--model", "m")
    assert ended.code == 3
    assert SHOWN in ended.out
    assert TITLE not in ended.out


@pytest.fixture
def output(run, chatpool_server, tmp_path, instant_waits):
    """The output of a run whose server is hostile in its answers, models and errors."""
    chatpool_server.set_script(
        {
            "one": Error(400, f"no {HALF}", code=f"{TITLE}\ud800"),
            "two": Answer(body=chat_completion(f"{TITLE}{HALF}", model=f"m{TITLE}\ud800")),
            "three": Answer("fine"),
        }
    )
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("one\ntwo\nthree\n")
    ended = run("run", source, "-o", target, "--model", "m", "--base-url", chatpool_server.base_url)
    assert (ended.code, TITLE in ended.err) == (1, False)
    return target


@pytest.mark.parametrize("has_journal", [True, False])
def test_a_report_has_nothing_in_it_that_a_terminal_obeys(run, output, has_journal):
    if not has_journal:
        output.with_name("out.journal").unlink()
    ended = run("report", output)
    assert ended.code == 0
    assert f"1 x HTTP 400 {SHOWN}\\ud800" in ended.out
    assert f"m{SHOWN}\\ud800: 1" in ended.out
    numbers = json.loads(run("report", output, "--json").out)
    assert (numbers["rows"], numbers["failures"]) == (3, {f"HTTP 400 {SHOWN}\\ud800": 1})
    report = chatpool.batch.report(output)
    "".join([*report.failures, *report.models]).encode("utf-8")


def test_a_run_over_hostile_answers_writes_lines_of_json(output):
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    texts = {line["response"]["body"]["choices"][0]["message"]["content"] for line in answers}
    assert texts == {f"{TITLE}{HALF}", "fine"}
    (error,) = [json.loads(line) for line in output.with_name("out.errors.jsonl").read_text().splitlines()]
    assert error["response"]["body"]["error"]["code"] == f"{TITLE}\ud800"


def test_an_output_that_is_not_utf_8_ends_no_report(run, output):
    output.with_name("out.journal").unlink()
    output.write_bytes(output.read_bytes().replace(b"fine", b"f\xffne"))
    assert run("report", output).code == 0


def test_retries_and_what_an_error_says_are_logged_without_escape_sequences(chatpool_server, caplog, instant_waits):
    chatpool_server.enqueue(Error(500, f"no{TITLE}{HALF}", code=TITLE))
    with caplog.at_level(logging.INFO, "chatpool"), chatpool.ChatPool("m", base_url=chatpool_server.base_url) as pool:
        pool.chat("hi")
        chatpool_server.set_script(Error(400, f"no{TITLE}{HALF}", code=TITLE))
        results = pool.map(["hi"])
        with pytest.raises(chatpool.BadRequestError) as caught:
            pool.chat("hi")
    explained = results.explain()
    traced = "".join(traceback.format_exception(None, caught.value, caught.value.__traceback__))
    assert "attempt 1 failed" in caplog.text
    for shown in (caplog.text, explained, traced):
        assert ("\x1b" in shown, "\ud83d" in shown) == (False, False)
    assert f"(400, {SHOWN})" in explained
    assert caught.value.code == TITLE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("command", ["ask", "report"])
def test_a_stdout_that_takes_nothing_is_exit_code_3_and_one_line(command, chatpool_server, output):
    chatpool_server.set_script(None)
    ask = ["ask", "--model", "m", "--base-url", chatpool_server.base_url, "hi"]
    arguments = ["report", output] if command == "report" else ask
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "chatpool.cli", *map(str, arguments)],
            cwd=Path(chatpool.__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (ended.returncode, ended.stderr) == (3, "chatpool: OSError: [Errno 28] No space left on device\n")
