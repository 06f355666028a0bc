"""``--config FILE``: options by their long names, with the command line before them."""

from __future__ import annotations

import sys

import pytest

from chatpool.testing import Error

if sys.version_info < (3, 11):
    pytest.importorskip("tomli")


@pytest.fixture
def config(tmp_path):
    """``config(text)`` writes a file of options and returns its path."""

    def write(text):
        path = tmp_path / "options.toml"
        path.write_text(text)
        return path

    return write


def test_its_options_are_those_of_the_command_line(run, config, chatpool_server, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("one\n")
    path = config(
        f"""
        model = "m"
        base-url = "{chatpool_server.base_url}"
        output = "{(tmp_path / "out.csv").as_posix()}"
        max-workers = 3
        rpm = 600
        prices = "1,2"
        quiet = true
        raw = true
        lines = true  # of ask
        header = ["X-Team: search"]
        [param]
        temperature = 0.5
        stop = ["a"]
        response_format = {{type = "json_object"}}
        """
    )
    assert run("run", source, "--config", path) == (0, "", "")
    request = chatpool_server.requests[0]
    assert (request.body["model"], request.body["temperature"], request.body["stop"]) == ("m", 0.5, ["a"])
    assert request.body["response_format"] == {"type": "json_object"}
    assert request.headers["X-Team"] == "search"
    assert (tmp_path / "out.csv").exists()


def test_the_command_line_goes_before_it(run, config, chatpool_server):
    path = config(
        f'model = "file"\nbase-url = "{chatpool_server.base_url}"\nquiet = true\n'
        '[param]\nseed = 1\ntemperature = 0\n[header]\nX-Team = "file"\nX-Other = "file"\n'
    )
    ended = run("ask", f"--config={path}", "--model", "line", "--param", "seed=2", "--header", "X-Team:line", "ping")
    assert ended.code == 0
    request = chatpool_server.requests[0]
    assert (request.body["model"], request.body["seed"], request.body["temperature"]) == ("line", 2, 0)
    assert (request.headers["X-Team"], request.headers["X-Other"]) == ("line", "file")


def test_it_is_never_read_unless_it_is_named(ask, config, monkeypatch):
    path = config("this is no TOML")
    for name in ("chatpool.toml", ".chatpool.toml"):
        path.with_name(name).write_text("nor is this")
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    assert ask("ping") == (0, "ping\n", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('api_key = "sk-secret"', "api_key may not stand in a file of options"),
        ('api-key = "sk-secret"', "read from OPENAI_API_KEY"),
        ('header = {Authorization = "Bearer sk-secret"}', "Authorization carries a key"),
        ('header = ["api-key: sk-secret"]', "api-key carries a key"),
        ("max_workers = 2", "no option 'max_workers'; did you mean max-workers?"),
        ("temperatur = 2", "no option 'temperatur'"),
        ('config = "other.toml"', "no option 'config'"),
        ("rpm = 0", "rpm: must be a number of requests, 1 or more, got '0'"),
        ("rpm = true", "rpm must be a text or a number, got True"),
        ("rpm = [1]", "rpm must be a text or a number"),
        ('quiet = "yes"', "quiet must be true or false, got 'yes'"),
        ('verbose = "much"', "verbose must be true, or a number"),
        ("param = 1", "param must be a table of names and values"),
        ('param = {model = "x"}', "use --model"),
        ("param = {date = 2026-01-01}", "JSON has no form for"),
        ("no toml", "is not TOML"),
    ],
)
def test_what_cannot_be_is_named_with_its_file(ask, config, chatpool_server, text, words):
    path = config(text)
    ended = ask("--config", path, "ping")
    assert ended.code == 2
    assert words in ended.err
    assert str(path) in ended.err
    assert "sk-secret" not in ended.err
    assert ended.err.count("\n") == 1
    assert chatpool_server.requests == []


def test_a_choice_is_checked(run, config, tmp_path):
    ended = run("run", "in.txt", "-o", tmp_path / "x.jsonl", "--config", config('format = "cvs"'))
    assert (ended.code, "must be one of batch, jsonl, csv" in ended.err) == (2, True)


def test_options_that_take_a_value_or_none_take_true(run, config, chatpool_server, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("one\n")
    path = config(f'retry-failed = true\nmodel = "m"\nbase-url = "{chatpool_server.base_url}"\nverbose = true\n')
    chatpool_server.enqueue(Error(400))
    files = [source, "-o", tmp_path / "out.jsonl"]
    run("run", *files, "--model", "m", "--base-url", chatpool_server.base_url)
    ended = run("run", *files, "--config", path)
    assert (ended.code, len(chatpool_server.requests)) == (0, 2)  # a failed row runs again


def test_a_file_that_is_not_there_is_exit_code_2(ask, tmp_path):
    ended = ask("--config", tmp_path / "none.toml", "ping")
    assert (ended.code, "none.toml cannot be read: No such file" in ended.err) == (2, True)


def test_without_a_reader_of_toml_it_says_what_to_install(ask, config, monkeypatch):
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    ended = ask("--config", config("rpm = 1"), "ping")
    assert (ended.code, "pip install 'chatpool[toml]'" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("in_file", "on_line", "shown"),
    [
        ("quiet = true", "-v", "retries"),
        ("quiet = true", "-vv", "attempts"),
        ("verbose = 2", "-v", "retries"),
        ("verbose = 2", "-q", "nothing"),
        ("quiet = true\nverbose = false", None, "nothing"),
        ("verbose = 1\nquiet = false", None, "retries"),
    ],
)
def test_messages_are_as_the_command_line_says_or_else_the_file(
    run, config, chatpool_server, instant_waits, in_file, on_line, shown
):
    chatpool_server.set_script([Error(503)])
    options = ["--base-url", chatpool_server.base_url, *([] if on_line is None else [on_line])]
    ended = run("ask", "--config", config(in_file), *options, "ping")
    assert ended.code == 0
    assert ("next attempt in" in ended.err, "is sent" in ended.err) == (shown != "nothing", shown == "attempts")


def test_quiet_and_verbose_exclude_each_other_in_a_file(run, config):
    ended = run("ask", "--config", config("quiet = true\nverbose = 1"), "ping")
    assert (ended.code, "quiet and verbose exclude each other" in ended.err) == (2, True)
