"""Options that several commands share: what each does to the requests, and what is said of a wrong value."""

from __future__ import annotations

import logging
import os

import pytest

from chatpool.testing import EachCall, Error, Stall


@pytest.fixture
def batch(run, chatpool_server, tmp_path, instant_waits):
    """``batch(*arguments)`` runs three prompts."""
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\nthree\n")

    def command(*arguments):
        server = ("--model", "m", "--base-url", chatpool_server.base_url)
        return run("run", source, "-o", tmp_path / "out.jsonl", *server, *arguments)

    return command


@pytest.mark.parametrize("command", ["ask", "batch"])
def test_params_are_fields_of_each_request(request, chatpool_server, command):
    words = ("ping",) if command == "ask" else ()
    params = ("temperature=0", "user=me", 'stop=["a"]', "seed=1", "seed=2", "note=NaN")
    options = [word for param in params for word in ("--param", param)]
    assert request.getfixturevalue(command)(*options, *words).code == 0
    body = chatpool_server.requests[0].body
    assert {name: body[name] for name in ("temperature", "user", "stop", "seed", "note")} == {
        "temperature": 0,
        "user": "me",
        "stop": ["a"],
        "seed": 2,
        "note": "NaN",
    }


def test_a_row_that_has_the_field_keeps_its_own(run, chatpool_server, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a", "temperature": 1}\n{"prompt": "b"}\n')
    options = ("--model", "m", "--base-url", chatpool_server.base_url, "--param", "temperature=0")
    assert run("run", source, "-o", tmp_path / "out.jsonl", *options).code == 0
    assert {request.prompt: request.body["temperature"] for request in chatpool_server.requests} == {"a": 1, "b": 0}


def test_headers_go_with_each_request(ask, chatpool_server):
    assert ask("--header", "X-Team: search", "--header", "X-Trace:a:b", "ping").code == 0
    headers = chatpool_server.requests[0].headers
    assert (headers["X-Team"], headers["X-Trace"]) == ("search", "a:b")


@pytest.mark.slow
def test_processes_and_embeddings_have_params_and_headers_too(run, chatpool_server, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("one\n")
    options = (
        "--model",
        "m",
        "--base-url",
        chatpool_server.base_url,
        "--header",
        "X-Team:a",
        "--param",
        "dimensions=4",
    )
    more = ("--url", "/v1/embeddings", "--processes", "2", "--rpm", "600")
    assert run("run", source, "-o", tmp_path / "out.jsonl", *options, *more).code == 0
    request = chatpool_server.requests[0]
    assert (request.path, request.headers["X-Team"]) == ("/v1/embeddings", "a")
    assert request.body["dimensions"] == 4


@pytest.mark.parametrize("name", ["Authorization", "api-key", "X-Api-Key", "X-Auth-Token", "Cookie", "X-Secret"])
def test_a_key_is_taken_from_no_command_line(ask, chatpool_server, name):
    ended = ask("--header", f"{name}: sk-secret", "ping")
    assert ended.code == 2
    assert "read from OPENAI_API_KEY" in ended.err
    assert "sk-secret" not in ended.err
    assert chatpool_server.requests == []


@pytest.mark.parametrize("option", ["--api-key", "--openai-key", "--OPENAI_API_KEY", "--api-token", "--auth-token"])
def test_an_option_for_a_key_is_refused_with_what_to_do(ask, option):
    ended = ask(option, "sk-secret", "ping")
    assert (ended.code, "read from OPENAI_API_KEY" in ended.err, "sk-secret" in ended.err) == (2, True, False)


@pytest.mark.parametrize("command", ["ask", "batch"])
def test_retries_are_counted(request, chatpool_server, command):
    chatpool_server.set_script(EachCall(Error(503), Error(503)))
    words = ("ping",) if command == "ask" else ()
    assert request.getfixturevalue(command)("--retries", "1", *words).code != 0
    chatpool_server.set_script(EachCall(Error(503), Error(503)))
    assert request.getfixturevalue(command)("--retries", "2", *words).code == 0


def test_a_rate_is_kept(batch, chatpool_server, instant_waits):
    started = instant_waits.now()
    assert batch("--rpm", "2").code == 0
    assert instant_waits.now() - started > 25
    assert len(chatpool_server.requests) == 3


def test_a_rate_is_kept_together_with_others_of_the_same_scope(ask, instant_waits, tmp_path):
    scope = f"test-{tmp_path.name}-{os.getpid()}"
    started = instant_waits.now()
    assert ask("--rpm", "2", "--scope", scope, "ping").code == 0
    assert instant_waits.now() - started < 5
    assert ask("--rpm", "2", "--scope", scope, "pong").code == 0
    assert instant_waits.now() - started > 25


def test_a_run_that_has_used_up_its_day_says_when_and_how_to_go_on(batch, chatpool_server, tmp_path):
    scope = f"test-{tmp_path.name}-{os.getpid()}"
    ended = batch("--rpd", "2", "--tpd", "100000", "--scope", scope)
    assert ended.code == 3
    assert "DayLimitError" in ended.err
    assert "Limits(requests_per_day=2, tokens_per_day=100,000) allows; go on in 24 h 5 min, at " in ended.err
    assert "to go on: chatpool run" in ended.err
    assert batch("--rpd", "2", "--scope", scope).code == 3  # another process knows
    assert len(chatpool_server.requests) == 2
    assert batch().code == 0  # what is left, and nothing twice
    assert sorted(request.prompt for request in chatpool_server.requests) == ["one", "three", "two"]


def test_ask_ends_in_the_same_way(ask, tmp_path):
    limits = ("--rpd", "1", "--scope", f"test-{tmp_path.name}-{os.getpid()}")
    assert ask(*limits, "ping").code == 0
    ended = ask(*limits, "pong")
    assert ended.code == 3
    assert "go on in 24 h 5 min" in ended.err


def test_a_run_waits_for_the_day_if_it_is_told_to(batch, chatpool_server, instant_waits, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("rpd = 2\nwait-for-day = true\n")
    started = instant_waits.now()
    assert batch("--config", settings).code == 0
    assert instant_waits.now() - started > 24 * 3600
    assert len(chatpool_server.requests) == 3


def test_a_scope_that_cannot_be_used_is_refused_without_its_password(ask, chatpool_server):
    ended = ask("--rpm", "2", "--scope", "redis://:sk-secret@localhost:port/name", "ping")
    assert ended.code == 2
    assert "scope" in ended.err
    assert "sk-secret" not in ended.err
    assert chatpool_server.requests == []


def test_a_request_of_more_tokens_than_a_minute_has_is_not_sent(ask, chatpool_server):
    ended = ask("--tpm", "100", "--param", "max_tokens=5000", "ping")
    assert ended.code != 0
    assert chatpool_server.requests == []


@pytest.mark.parametrize("budget", [("1tokens",), ("0.000001", "--prices", "1,1"), ("$0.000001", "--price", "1,1")])
def test_a_budget_ends_the_run_as_fatal(batch, ask, chatpool_server, budget):
    ended = batch("--budget", *budget, "--max-workers", "1")
    assert ended.code == 3
    assert "BudgetExceededError" in ended.err
    assert "to go on: chatpool run" in ended.err
    assert ask("--budget", *budget, "--lines", stdin="one\ntwo\n").code == 3
    assert len(chatpool_server.requests) < 5


def test_a_budget_in_dollars_needs_prices(ask, chatpool_server):
    ended = ask("--budget", "5", "ping")
    assert (ended.code, "needs --prices" in ended.err) == (2, True)


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_time_of_a_run_ends_it_with_its_rows_pending(run, chatpool_server, tmp_path, processes):
    chatpool_server.set_script({"two": Stall()})
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\n")
    options = ("--model", "m", "--base-url", chatpool_server.base_url, "--processes", processes)
    ended = run("run", source, "-o", tmp_path / "out.jsonl", *options, "--run-timeout", "3")
    assert ended.code == 3
    assert "the run's time (run_timeout) ran out" in ended.err
    assert " pending" in ended.err
    assert "to go on: chatpool run" in ended.err
    chatpool_server.set_script(None)
    assert run("run", source, "-o", tmp_path / "out.jsonl", *options).code == 0


def test_the_time_of_prompts_ends_them(run, chatpool_server):
    chatpool_server.set_script(Stall())
    ended = run("ask", "--model", "m", "--base-url", chatpool_server.base_url, "--run-timeout", "0.2", "ping")
    assert (ended.code, "run_timeout" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--param", "temperature", "must be NAME=VALUE, for instance temperature=0"),
        ("--param", "=1", "must be NAME=VALUE"),
        ("--param", "model=x", "use --model"),
        ("--param", "stream=true", "--stream"),
        ("--param", "messages=[]", "the prompt comes from"),
        ("--header", "X-Team", "must be NAME:VALUE"),
        ("--rpm", "0", "must be a number of requests, 1 or more, got '0'"),
        ("--rpm", "nan", "must be a number of requests"),
        ("--tpm", "many", "must be a number of tokens, 1 or more"),
        ("--retries", "-1", "must be a whole number of retries, 0 or more"),
        ("--retries", "1.5", "must be a whole number of retries"),
        ("--run-timeout", "0", "more than 0 seconds"),
        ("--budget", "much", "must be dollars, such as 5, or tokens"),
        ("--budget", "-1", "must be dollars"),
        ("--prices", "cheap", "it takes numbers"),
        ("--timeout", "soon", "must be a number of seconds, got 'soon'"),
        ("--max-workers", "2.5", "must be a whole number of calls"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "run"])
def test_a_wrong_value_is_named_with_what_would_be_right(run, tmp_path, command, option, value, words):
    rest = ["ping"] if command == "ask" else [tmp_path / "in.txt", "-o", tmp_path / "out.jsonl"]
    ended = run(command, "--model", "m", "--base-url", "http://127.0.0.1:1/v1", f"{option}={value}", *rest)
    assert ended.code == 2
    assert words in ended.err
    assert f"argument {option}" in ended.err
    assert f"usage: chatpool {command}" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_cannot_be_sent_is_refused(ask, chatpool_server):
    ended = ask("--header", "X-Team:a\nX-Other:b", "ping")
    assert (ended.code, chatpool_server.requests) == (2, [])
    assert "header" in ended.err


def test_quiet_says_nothing_of_what_went_well(batch):
    assert batch("--quiet") == (0, "", "")


def test_quiet_says_what_went_wrong(batch, chatpool_server):
    chatpool_server.set_script({"two": Error(400)})
    ended = batch("-q")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "1 failed (1 x BadRequestError)" in ended.err


@pytest.mark.slow
def test_v_twice_shows_every_attempt(batch, chatpool_server):
    chatpool_server.set_script(EachCall(Error(503)))
    once = batch("-v")
    assert "attempt 1 failed" in once.err
    assert "is sent" not in once.err
    chatpool_server.set_script({"two": Error(400)})
    twice = batch("-vv", "--processes", "2", "--system", "s")
    assert twice.err.count("attempt 1 is sent") == 3  # one line of each
    assert twice.err.count(" succeeded in ") == 2
    assert twice.err.count("; the call has ended") == 1
    assert ": failed (" not in twice.err
    assert "one" not in twice.err.replace("one prompt a line", "")
    assert logging.getLogger("chatpool").level == logging.NOTSET


def test_quiet_and_verbose_exclude_each_other(ask):
    ended = ask("-q", "-v", "ping")
    assert (ended.code, "not allowed with" in ended.err) == (2, True)


def test_check_takes_params_and_headers(run, chatpool_server):
    options = ("--param", "max_completion_tokens=5", "--header", "X-Team:a")
    assert run("check", "--model", "m", "--base-url", chatpool_server.base_url, *options).code == 0
    request = chatpool_server.requests[-1]
    assert (request.body["max_completion_tokens"], request.headers["X-Team"]) == (5, "a")
