"""``chatpool ask``: prompts in, answers out, and an exit code that says how it went."""

from __future__ import annotations

import json
import socket
import sys

import pytest

import chatpool
from chatpool.testing import Answer, Error, RateLimited, Stream

KEY = "sk-secret-of-the-test"


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_the_words_of_the_command_line_are_one_prompt(ask, chatpool_server):
    ended = ask("What", "is", "this?")
    assert ended == (0, "What is this?\n", "")
    assert [request.prompt for request in chatpool_server.requests] == ["What is this?"]


def test_without_words_all_of_stdin_is_one_prompt(ask, chatpool_server):
    ended = ask(stdin="first line\nsecond line ä\n")
    assert ended.code == 0
    assert [request.prompt for request in chatpool_server.requests] == ["first line\nsecond line ä\n"]


def test_each_line_is_a_prompt_with_lines(ask):
    ended = ask("--lines", stdin="one\n\ntwo\r\n  three  \n")
    assert ended == (0, "one\ntwo\nthree\n", "")


def test_answers_come_in_the_order_of_the_lines(ask, chatpool_server):
    chatpool_server.set_script({"prompt 0": [Error(503), Error(503)]})
    prompts = [f"prompt {number}" for number in range(20)]
    assert ask("--lines", stdin="\n".join(prompts)).lines == prompts


def test_options_reach_the_request(ask, chatpool_server):
    assert ask("--system", "Be brief.", "--timeout", "30", "--max-workers", "2", "ping").code == 0
    body = chatpool_server.requests[0].body
    assert body["model"] == "m"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_json_prints_one_object_per_prompt_with_all_facts(ask):
    ended = ask("--lines", "--json", stdin="ping\npong\n")
    records = [json.loads(line) for line in ended.lines]
    assert ended.code == 0
    assert [record["text"] for record in records] == ["ping", "pong"]
    first = records[0]
    assert (first["index"], first["prompt"], first["ok"], first["attempts"]) == (0, "ping", True, 1)
    assert first["usage"]["total_tokens"] > 0
    assert first["finish_reason"] == "stop"


def test_json_says_why_a_prompt_failed(ask, chatpool_server):
    chatpool_server.set_script({"bad": Error(400, "no such thing", code="invalid_value")})
    ended = ask("--lines", "--json", stdin="good\nbad\n")
    good, bad = (json.loads(line) for line in ended.lines)
    assert ended.code == 1
    assert good["ok"]
    assert "error" not in good
    assert not bad["ok"]
    assert (bad["error"]["type"], bad["error"]["status_code"], bad["error"]["code"]) == (
        "BadRequestError",
        400,
        "invalid_value",
    )


def test_a_failed_line_leaves_its_place_empty_and_is_counted(ask, chatpool_server):
    chatpool_server.set_script({"two": Error(400, "not this one")})
    ended = ask("--lines", stdin="one\ntwo\nthree\n")
    assert ended.code == 1
    assert ended.lines == ["one", "", "three"]
    assert ended.err.startswith("chatpool: 1 of 3 failed (1 x BadRequestError); the first was prompt 2: ")
    assert "not this one" in ended.err


def test_a_first_line_that_fails_leaves_its_place_empty_too(ask, chatpool_server):
    chatpool_server.set_script({"one": Error(400)})
    assert ask("--lines", stdin="one\ntwo\n").lines == ["", "two"]


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Error(400), 1),
        (Error(422), 1),
        (Error(401), 3),
        (Error(402), 3),
        (Error(403), 3),
        (Error(404, "no such model", code="model_not_found"), 3),
        (Error(429, "no credit", type="insufficient_quota", code="insufficient_quota"), 3),
    ],
)
def test_the_exit_code_tells_a_failed_prompt_from_a_hopeless_run(ask, chatpool_server, step, code):
    chatpool_server.set_script(step)
    ended = ask("ping")
    assert ended.code == code
    assert ended.out == ""
    assert_one_line(ended.err)


def test_a_refused_key_ends_a_run_after_at_most_one_request_per_worker(ask, chatpool_server):
    chatpool_server.set_script(Error(401))
    ended = ask("--lines", "--max-workers", "4", stdin="\n".join("abcdefghijklmnopqrstuvwxyz"))
    assert ended.code == 3
    assert len(chatpool_server.requests) <= 4
    assert "26 of 26 failed (26 x AuthenticationError)" in ended.err


def test_a_server_that_asks_for_a_day_off_ends_the_run(ask, chatpool_server):
    chatpool_server.set_script(RateLimited(86400))
    assert ask("--lines", "--max-workers", "1", stdin="one\ntwo\nthree\n").code == 3


def test_an_unreachable_server_is_fatal(run, instant_waits):
    ended = run("ask", "--model", "m", "--base-url", f"http://127.0.0.1:{closed_port()}/v1", "ping")
    assert ended.code == 3
    assert_one_line(ended.err)
    assert "connection refused" in ended.err


def test_failures_that_pass_are_not_seen(ask, chatpool_server):
    chatpool_server.enqueue(Error(503), RateLimited(1))
    assert ask("ping") == (0, "ping\n", "")


def test_answers_of_any_script_are_printed(ask, chatpool_server):
    chatpool_server.set_script(Answer("Grüße, 世界"))
    assert ask("ping").out == "Grüße, 世界\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ping"], "pass --model NAME"),
        (["--model", "m", "ping"], "OPENAI_API_KEY"),
        (
            ["--model", "m", "--base-url", "http://127.0.0.1:1", "--timeout", "-1", "ping"],
            "timeout must be more than 0",
        ),
        (["--model", "m", "--base-url", "http://127.0.0.1:1", "--max-workers", "0", "ping"], "max_workers must be"),
        (["--model", "m", "--base-url", "127.0.0.1:1", "ping"], "base_url"),
        (["--model", "m", "--base-url", "http://127.0.0.1:1", "--lines", "ping"], "do not pass PROMPT as well"),
        (["--model", "m", "--base-url", "http://127.0.0.1:1"], "no prompt was given"),
        (["--model", "m", "--base-url", "http://127.0.0.1:1", "--lines"], "no prompt was given"),
        (["--local", "--model", "m", "ping"], "leave out --base-url and --model"),
        (["--local", "--max-workers", "0", "ping"], "parallel must be"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(run, arguments, message):
    ended = run("ask", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert_one_line(ended.err)


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["ask", "--unknown"], ["ask", "--timeout", "soon", "ping"], ["local"]]
)
def test_wrong_usage_exits_with_2(run, arguments):
    ended = run(*arguments)
    assert ended.code == 2
    assert "usage: chatpool" in ended.err


def test_text_that_is_not_utf8_is_refused(ask):
    ended = ask(stdin=b"\xff\xfe\x00")
    assert ended.code == 2
    assert "not UTF-8" in ended.err


def test_the_key_is_never_shown(run, chatpool_server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chatpool_server.set_script(Error(401, f"Incorrect API key provided: {KEY}"))
    ended = run("ask", "--json", "--model", "m", "--base-url", chatpool_server.base_url, "ping")
    assert chatpool_server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert ended.code == 3
    assert KEY not in ended.out + ended.err


def test_the_version_is_shown(run):
    assert run("--version") == (0, f"chatpool {chatpool.__version__}\n", "")
    assert run("ask", "--version") == (0, f"chatpool {chatpool.__version__}\n", "")


def test_an_error_of_ours_is_one_line_as_well(ask, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("at\nhome")

    monkeypatch.setattr(sys.modules["chatpool.cli.ask"].ChatPool, "imap", broken)
    ended = ask("ping")
    assert ended.code == 3
    assert ended.err.splitlines()[0] == "chatpool: ZeroDivisionError: at home"
    assert "Traceback" not in ended.err


def assert_one_line(text):
    assert text.startswith("chatpool: ")
    assert text.count("\n") == 1


def test_stream_prints_the_answer_as_it_is_written(ask, chatpool_server):
    chatpool_server.set_script(Stream(["Once", " upon", " a time"]))
    assert ask("--stream", "Tell", "me.") == (0, "Once upon a time\n", "")
    assert chatpool_server.requests[0].body["stream"] is True


def test_a_stream_that_breaks_off_keeps_what_was_printed(ask, chatpool_server):
    chatpool_server.set_script(Stream(["Once", " upon"], end="cut"))
    ended = ask("--stream", "Tell me.")
    assert (ended.code, ended.out) == (1, "Once upon\n")
    assert "TruncatedStreamError" in ended.err


@pytest.mark.parametrize(("step", "code"), [(Error(400), 1), (Error(401), 3)])
def test_a_stream_that_cannot_be_had_ends_with_the_usual_code(ask, chatpool_server, step, code):
    chatpool_server.set_script(step)
    ended = ask("--stream", "Tell me.")
    assert (ended.code, ended.out) == (code, "")
    assert "Error" in ended.err


@pytest.mark.parametrize("option", ["--lines", "--json"])
def test_stream_is_for_one_answer_to_a_reader(ask, chatpool_server, option):
    ended = ask("--stream", option, stdin="one\ntwo\n")
    assert ended.code == 2
    assert option in ended.err
    assert not chatpool_server.requests


def test_each_object_is_json_by_rfc_8259_on_one_line(ask, chatpool_server):
    chatpool_server.set_script(
        {
            "one": Answer(status=400, body=b'{"error": {"message": "m", "code": NaN}}'),
            "two": Answer("a\u2028b\u0085c"),
        }
    )

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    first, second = ask("--lines", "--json", stdin="one\ntwo\n").lines
    assert json.loads(first, parse_constant=refuse)["error"]["code"] is None
    assert json.loads(second, parse_constant=refuse)["text"] == "a\u2028b\u0085c"
