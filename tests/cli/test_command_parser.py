"""What is said of names that are not known, and the help of each command."""

from __future__ import annotations

import pytest

from chatpool.cli.parser import build_parser


@pytest.mark.parametrize(
    ("command_line", "words", "usage"),
    [
        (["rum"], "no command 'rum'; did you mean run?", "usage: chatpool [-h]"),
        (["frobnicate"], "there are ask, run, batch, shards, watch", "usage: chatpool [-h]"),
        (["--verson"], "no option --verson; did you mean --version?", "usage: chatpool [-h]"),
        (["ask", "--modle", "m", "x"], "no option --modle; did you mean --model?", "usage: chatpool ask"),
        (["ask", "--modle=m", "x"], "no option --modle; did you mean --model?", "usage: chatpool ask"),
        (["ask", "--max_workers", "1"], "did you mean --max-workers?", "usage: chatpool ask"),
        (["ask", "--max-work", "1"], "no option --max-work; did you mean --max-workers?", "usage: chatpool ask"),
        (["ask", "-x", "ping"], "no option '-x' here", "usage: chatpool ask"),
        (["run", "a", "b", "-o", "c"], "no place for 'b' here", "usage: chatpool run"),
        (["run", "a"], "required: -o/--output", "usage: chatpool run"),
        (["run", "a", "--ouput", "b"], "no option --ouput; did you mean --output?", "usage: chatpool run"),
        (["local", "serv"], "no command 'serv'; did you mean serve?", "usage: chatpool local"),
        (["local", "serve", "--prot", "1"], "did you mean --port?", "usage: chatpool local serve"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one_and_the_usage_of_its_command(run, command_line, words, usage):
    ended = run(*command_line)
    assert ended.code == 2
    assert words in ended.err
    assert ended.err.startswith(usage)
    assert f"see '{usage[len('usage: ') :].partition(' [')[0]} --help'" in ended.err


def test_escapes_of_an_argument_reach_no_terminal(run):
    ended = run("\x1b[31mask")
    assert (ended.code, "\x1b" in ended.err) == (2, False)


def test_words_of_a_prompt_may_look_like_options_behind_two_dashes(ask):
    assert ask("--", "--what", "is this?").out == "--what is this?\n"


def commands(parser, words=()):
    yield words, parser
    for name, command in parser.commands.items():
        yield from commands(command, (*words, name))


@pytest.mark.parametrize("words", [words for words, _ in commands(build_parser())], ids=" ".join)
def test_the_help_fits_into_80_columns(run, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    ended = run(*words, "--help")
    assert ended.code == 0
    assert max(map(len, ended.lines)) <= 80


@pytest.mark.parametrize("name", ["ask", "run", "check"])
def test_options_stand_in_groups(name):
    parser = build_parser().commands[name]
    ungrouped = [action.option_strings for action in parser._optionals._group_actions]
    assert ungrouped == [["-h", "--help"], ["--version"]]
