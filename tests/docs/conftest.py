"""Runs the examples of documentation pages, as a reader would from top to bottom."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

import chatpool
from chatpool.clock import install_clock
from chatpool.testing import FakeServer, InstantClock
from chatpool.testing.model import chat_completion

sys.path.insert(0, str(Path(__file__).parent))

from page_examples import Example, check_output, read_examples

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]

# What the model of the examples knows; everything else it repeats.
ANSWERS = {
    "ping": "pong",
    "pong": "ping",
    "What is the capital of France?": "Paris.",
    "What is the capital of Italy?": "Rome.",
    "What is the capital of Japan?": "Tokyo.",
    "And of Italy?": "Rome.",
    "Great phone, poor battery.": "mixed",
    "Broke after a day.": "negative",
    "Works, and looks good.": "positive",
    "Ada Lovelace was born in London in 1815.": '{"name": "Ada Lovelace", "born": 1815, "town": "London"}',
    "Alan Turing, born 1912.": '```json\n{"name": "Alan Turing", "born": 1912, "town": null}\n```',
    "Grace Hopper.": '{"name": "Grace Hopper", "born": "unknown", "town": null}',
    "21 degrees": "It is 21 degrees in Rome.",
    "9 degrees": "It is 9 degrees in Oslo.",
}

# What it calls a tool for, where it has tools.
TOOL_CALLS = {
    "How warm is it in Rome?": ("temperature", '{"city": "Rome"}'),
    "How warm is it in Oslo?": ("temperature", '{"city": "Oslo"}'),
}

# Examples of time limits: there the time that passes is what the page is about.
IN_REAL_TIME = frozenset({"tutorial/09-time-limits.md", "howto/web-view.md", "explanation/time-limits.md"})


class Terminal(io.StringIO):
    """Takes what an example prints; its encoding makes tqdm draw the bar that a reader sees."""

    encoding = "utf-8"


@contextlib.contextmanager
def plain_logging() -> Iterator[None]:
    """Logging as in a fresh interpreter, so that ``logging.basicConfig`` does what a reader sees it do."""
    loggers = [logging.root, logging.getLogger("chatpool")]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.handlers = []
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.handlers = handlers
            logger.setLevel(level)


class PageRunner:
    """Runs the examples of pages against one server.

    Args:
        folder: the current directory, for files that examples read and write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # One for all of a page: what a page has told logging to write to stays in use.
        self._printed = Terminal()

    def run(self, name: str, text: str) -> int:
        """Run all examples of the page; returns how many there were.

        Raises:
            AssertionError: an example printed something else than its page shows, or its tests failed.
            Exception: whatever an example raised.
        """
        namespace: Dict[str, Any] = {"__name__": "__main__"}
        examples = read_examples(text)
        try:
            for example in examples:
                if example.is_shell:
                    self._run_commands(example)
                elif example.file is not None:
                    self._run_file(example, example.file)
                else:
                    self._run_here(example, name, namespace)
            self._run_tests([example for example in examples if example.is_test])
        finally:
            _close(namespace)
        return len(examples)

    def _run_here(self, example: Example, page: str, namespace: Dict[str, Any]) -> None:
        self._printed.seek(0)
        self._printed.truncate()
        # The empty lines before it make tracebacks name the line of the page.
        # Without this file's own __future__ imports, as a reader's file is.
        code = compile("\n" * (example.line - 1) + example.source, page, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(self._printed), contextlib.redirect_stderr(self._printed):
            exec(code, namespace)  # noqa: S102 - our own documentation
        check_output(example, self._printed.getvalue())

    def _run_file(self, example: Example, name: str) -> None:
        (self._folder / name).write_text(example.source, encoding="utf-8")
        if name != "conftest.py" and not example.is_test:
            ended = self._run_process([sys.executable, name])
            check_output(example, ended.stdout + ended.stderr)

    def _run_tests(self, examples: List[Example]) -> None:
        if examples:
            ended = self._run_process([sys.executable, *_PYTEST, *(str(example.file) for example in examples)])
            count = sum(len(re.findall(r"^def test_", example.source, re.MULTILINE)) for example in examples)
            assert f"{count} passed" in ended.stdout, ended.stdout

    def _run_commands(self, example: Example) -> None:
        alias = f'chatpool() {{ "{sys.executable}" -m chatpool.cli "$@"; }}\n'
        ended = self._run_process(["sh", "-e", "-c", alias + example.source])
        check_output(example, ended.stdout + ended.stderr)

    def _run_process(self, command: List[str]) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        ended = subprocess.run(
            command, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, f"{command} failed\n{ended.stdout}{ended.stderr}"
        return ended


def _close(namespace: Dict[str, Any]) -> None:
    for value in list(namespace.values()):
        if isinstance(value, chatpool.ChatPool):
            value.abort()
        elif isinstance(value, FakeServer):
            value.close()


def answer(body: Any) -> Any:
    """What the model of the examples says: what it knows, else what it was asked."""
    if "file" in body:
        return None  # a sound: what is heard is in it
    asked = body.get("prompt") or body.get("input") or body["messages"][-1]["content"]
    if isinstance(asked, list) and "content" in asked[-1]:  # the messages of a response
        asked = asked[-1]["content"]
    if isinstance(asked, list):  # the parts of a message
        asked = " ".join(part["text"] for part in asked if part["type"] in ("text", "input_text"))
    if asked in TOOL_CALLS and body.get("tools"):
        name, arguments = TOOL_CALLS[asked]
        call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
        return chat_completion(None, finish_reason="tool_calls", tool_calls=[call])
    return ANSWERS.get(asked, asked)


@pytest.fixture
def example_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeServer]:
    """The server that the environment variables name, in place of a real one."""
    with FakeServer(reply=answer) as server:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # for limits that are shared
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-examples")
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.origin)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-of-the-examples")
        yield server


@pytest.fixture
def run_page(
    example_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], int]]:
    """``run_page(name, text)`` runs the examples of a page and returns how many there were."""
    monkeypatch.chdir(tmp_path)
    undo = []

    def run(name: str, text: str) -> int:
        if name not in IN_REAL_TIME:
            # Answers from loopback come within the grace, so that no limit is taken for a back-off.
            undo.append(install_clock(InstantClock(grace=0.2)))
        with plain_logging():
            return PageRunner(tmp_path).run(name, text)

    yield run
    # What a page left open is its own fault, and not that of the test in which it would be found.
    gc.collect()
    for clock in reversed(undo):
        install_clock(clock)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``page`` runs once per page of the documentation."""
    if "page" in metafunc.fixturenames:
        pages = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
        assert pages, f"no pages in {DOCS}"
        metafunc.parametrize("page", pages, ids=[path.relative_to(DOCS).as_posix() for path in pages])


@pytest.fixture
def read() -> Callable[[str], List[Example]]:
    """The examples of a page's text."""
    return read_examples


@pytest.fixture
def docs() -> Path:
    """The folder of the documentation."""
    return DOCS
