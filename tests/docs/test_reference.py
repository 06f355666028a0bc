"""The reference names everything public, and the pages drawn by hand agree with the code."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Iterator, List, Set, Tuple

import pytest

import chatpool
import chatpool.errors
from chatpool.cli.parser import build_parser

_DIRECTIVE = re.compile(r"^\.\. (currentmodule|auto(?:module|class|function|data))::[ ]+(\S+)", re.MULTILINE)


def documented(folder: Path) -> Set[Tuple[str, str]]:
    """(module, name) of everything that an autodoc directive of the reference documents."""
    found: Set[Tuple[str, str]] = set()
    for page in folder.glob("*.md"):
        module = ""
        text = page.read_text(encoding="utf-8")
        for match in _DIRECTIVE.finditer(text):
            kind, name = match.groups()
            if kind == "currentmodule":
                module = name
            elif kind != "automodule":
                found.add((module, name))
            elif ":no-members:" not in text[match.end() : match.end() + 40]:
                found |= {(name, each) for each in importlib.import_module(name).__all__}
    return found


@pytest.mark.parametrize(
    "module",
    [
        "chatpool",
        "chatpool.errors",
        "chatpool.testing",
        "chatpool.local",
        "chatpool.clock",
        "chatpool.contrib.asgi",
        "chatpool.contrib.otel",
        "chatpool.contrib.prometheus",
    ],
)
def test_everything_public_is_in_the_reference(docs: Path, module: str) -> None:
    known = documented(docs / "reference")
    errors = set(chatpool.errors.__all__) if module == "chatpool" else set()  # they have a page of their own
    missing = [
        name for name in importlib.import_module(module).__all__ if (module, name) not in known and name not in errors
    ]
    assert missing == []


def test_the_reference_documents_nothing_that_does_not_exist(docs: Path) -> None:
    gone = [(module, name) for module, name in documented(docs / "reference") if not _exists(module, name)]
    assert gone == []


def _exists(module: str, name: str) -> bool:
    needed = {"chatpool.contrib.celery": "celery", "chatpool.contrib.dask": "distributed"}.get(module)
    if needed is not None and importlib.util.find_spec(needed) is None:
        return True  # only the environments of tests/deploy and tests/cluster have it
    return hasattr(importlib.import_module(module), name)


def test_every_method_of_the_pool_is_in_the_tables_of_its_page(docs: Path) -> None:
    page = (docs / "reference" / "pool.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\{py:.*)$", page, re.MULTILINE)
    shown = [name for row in rows for name in re.findall(r"\{py:\w+\}`(\w+) <chatpool\.ChatPool\.\1>`", row)]
    assert sorted(shown) == sorted(name for name in dir(chatpool.ChatPool) if not name.startswith("_"))


def test_every_fixture_of_the_plugin_is_described(docs: Path) -> None:
    page = (docs / "reference" / "testing.md").read_text(encoding="utf-8")
    described = re.findall(r"^`(\w+)`$", page, re.MULTILINE)
    assert sorted(described) == sorted(importlib.import_module("chatpool.testing.plugin").__all__)


def test_the_tree_of_errors_is_the_one_of_the_code(docs: Path) -> None:
    page = (docs / "reference" / "errors.md").read_text(encoding="utf-8")
    parents: List[str] = []
    drawn: Set[Tuple[str, str]] = set()
    for margin, name in re.findall(r"^([│ ├└─]*)(\w+Error)\b", page, re.MULTILINE):
        depth = len(margin) // 4
        if depth:
            drawn.add((name, parents[depth - 1]))
        parents[depth:] = [name]
    assert drawn == {(name, _parent(name)) for name in chatpool.errors.__all__ if name.endswith("Error")} - {
        ("ChatPoolError", "Exception")
    }


def _parent(name: str) -> str:
    lines = getattr(chatpool.errors, name).__mro__[1:]
    return str(next(cls.__name__ for cls in lines if not cls.__name__.startswith("_")))


def test_every_command_is_in_the_reference(docs: Path) -> None:
    page = (docs / "reference" / "command-line.md").read_text(encoding="utf-8")
    shown = [words.strip() for words in re.findall(r"^```\{cli\}(.*)$", page, re.MULTILINE)]
    assert shown == ["", *_commands(build_parser())]


def _commands(parser: argparse.ArgumentParser, before: str = "") -> Iterator[str]:
    """The words of every command that does something."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, command in action.choices.items():
                deeper = list(_commands(command, f"{before}{word} "))
                yield from deeper or [f"{before}{word}"]


def test_every_variable_of_the_environment_is_in_its_table(docs: Path) -> None:
    page = (docs / "reference" / "settings.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(chatpool.__file__).parent.rglob("*.py"))
    read = set(re.findall(r'"((?:AZURE_)?OPENAI_[A-Z_]+)"', sources))
    assert {"OPENAI_LOG", "AZURE_OPENAI_ENDPOINT"} <= read
    assert {name for name in read if f"`{name}`" not in page} == set()
