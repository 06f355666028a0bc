"""Messages of errors: those of one kind read alike."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import chatpool

PACKAGE = Path(chatpool.__file__).parent

# About the form of a line in a file, which the message quotes elsewhere, or about what a file holds.
WITHOUT_GOT = ("a line that is a list", "a list must be", "it must be a JSON file", "it must be an object")


def text_of(node):
    """What a message says, with ``{}`` for its values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{}"
    return " ".join(map(text_of, ast.iter_child_nodes(node)))


def messages():
    """(file and line, message) of each error that the package raises."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text_of(node.exc.args[0])


def test_there_are_messages_to_look_at():
    assert sum(" must be " in message for _, message in messages()) > 80


def test_what_must_be_something_else_says_what_it_is():
    """``X must be ..., got ...``: which parameter, what would be right, and what was passed."""
    stray = {
        place: message
        for place, message in messages()
        if " must be " in message and ", got " not in message and not any(words in message for words in WITHOUT_GOT)
    }
    assert stray == {}


def test_nothing_else_introduces_what_was_passed():
    other = re.compile(r"; got |\bbut got\b|, not \{\}$|\(got ")
    assert {place: message for place, message in messages() if other.search(message)} == {}


def test_an_unknown_keyword_is_told_in_pythons_words():
    other = re.compile(r"unknown keyword|has no keyword|no such keyword")
    assert {place: message for place, message in messages() if other.search(message)} == {}


def test_a_missing_package_is_told_with_what_installs_it():
    told = [message for _, message in messages() if "pip install" in message]
    assert len(told) >= 5
    assert [
        message for message in told if not re.search(r"needs [\w{}]+: pip install|to read it, pip install", message)
    ] == []
