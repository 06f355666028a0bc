"""The README: its example runs, its commands exist, its links lead somewhere."""

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


def test_the_two_commands_the_example_and_the_picture_are_on_the_first_screen():
    first_screen = README.splitlines()[:32]
    for start in ("$ make demo", "$ make test", "```python", "![A run in a terminal"):
        assert any(line.startswith(start) for line in first_screen), start


def test_the_example_prints_what_stands_below_it(capsys):
    (example,), (output,) = blocks("python"), blocks("output")
    exec(example, {})  # noqa: S102 - our own text
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)", README))))
def test_links_lead_to_files_of_the_project(target):
    assert (ROOT / target).is_file()


@pytest.mark.parametrize(
    "line", [line for block in blocks("console") for line in block.splitlines() if "chatpool " in line]
)
def test_the_commands_are_spelled_as_the_command_line_has_them(line):
    for command in re.findall(r"chatpool ([^<&#]*)", line):
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
        assert build_parser().parse_args(words).run


def test_the_figures_are_those_of_the_benchmarks():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| \| chatpool \| openai client in threads \|\n.*?\n\n", README, re.DOTALL)
    figures = re.findall(r"\| ([\d.,]+)(?: ms| x)? (?=\|)", table)
    assert len(figures) == 12
    known = set(re.findall(r"(?<![\d.,])\d[\d.,]*\d|\d", results))
    assert set(figures) <= known


def test_the_changelog_knows_this_version():
    assert f"## [{chatpool.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
