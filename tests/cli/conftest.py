"""Runs the command line in this process, against a FakeServer."""

from __future__ import annotations

import io
import sys
from typing import NamedTuple

import pytest

from chatpool.cli import main


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


@pytest.fixture
def run(monkeypatch, capsys):
    """``run(*arguments, stdin="")`` -> the exit code and what was printed."""

    def command(*arguments, stdin=b""):
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as wrong_usage:
            code = wrong_usage.code
        return Ended(code, *capsys.readouterr())

    return command


@pytest.fixture
def ask(run, chatpool_server, instant_waits):
    """``ask(*arguments, stdin="")`` runs ``chatpool ask`` against the test's server; its waits are instant."""

    def command(*arguments, stdin=""):
        return run("ask", "--model", "m", "--base-url", chatpool_server.base_url, *arguments, stdin=stdin)

    return command
