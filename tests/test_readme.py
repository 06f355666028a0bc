"""What the README promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import chatpool
from chatpool.cli.parser import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_are_on_the_first_screen():
    first_screen = README.splitlines()[:24]
    assert any(line.startswith("$ make demo") for line in first_screen)
    assert any(line.startswith("$ make test") for line in first_screen)


def test_the_example_runs(chatpool_server, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OPENAI_BASE_URL", chatpool_server.base_url)
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    (example,) = blocks("python")
    exec(example, {})  # noqa: S102 - our own text
    assert capsys.readouterr().out.splitlines() == ["ping", "All 10 succeeded.", "0 one", "1 two"]


@pytest.mark.parametrize(
    "line", [line for block in blocks("console") for line in block.splitlines() if "chatpool " in line]
)
def test_the_commands_are_spelled_as_the_command_line_has_them(line):
    for command in re.findall(r"chatpool ((?:ask|local)[^<&#]*)", line):
        words = [word.strip('"') for word in command.split()]
        assert build_parser().parse_args(words).run


def test_the_changelog_knows_this_version():
    assert f"## [{chatpool.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
