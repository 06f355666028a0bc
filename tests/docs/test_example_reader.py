"""The reader of examples sees every block, and tells a page that shows something else than it prints."""

from __future__ import annotations

from typing import Any, Callable, List

import pytest

from chatpool.testing import FakeServer

pytestmark = pytest.mark.docs

Read = Callable[[str], List[Any]]
RunPage = Callable[[str, str], int]


def fenced(*blocks: tuple[str, str]) -> str:
    return "\n\n".join(f"```{language}\n{text}\n```" for language, text in blocks)


def test_blocks_come_with_their_line_and_their_output(read: Read) -> None:
    first, second = read("# Title\n\n" + fenced(("python", "a = 1"), ("python", "print(a)"), ("output", "1")))
    assert (first.line, first.source, first.shown) == (4, "a = 1\n", None)
    assert (second.line, second.source, second.shown) == (8, "print(a)\n", "1\n")


def test_blocks_for_reading_are_no_examples(read: Read) -> None:
    assert read(fenced(("console", "$ make docs"), ("text", "words"), ("{note}", "words"))) == []


@pytest.mark.parametrize(
    "text",
    [
        fenced(("pyton", "a = 1")),
        fenced(("", "a = 1")),
        fenced(("{code-block} python", "a = 1")),
        fenced(("console", "$ ls"), ("output", "a")),
        "```python\na = 1\n",
    ],
    ids=["misspelt", "without a language", "directive", "output of nothing", "not closed"],
)
def test_a_block_that_would_be_skipped_is_an_error(read: Read, text: str) -> None:
    with pytest.raises(ValueError, match=r"line \d+|not closed"):
        read(text)


def test_a_page_s_blocks_share_one_namespace(run_page: RunPage) -> None:
    assert run_page("page.md", fenced(("python", "a = 1"), ("python", "assert a == 1"))) == 2


def test_an_example_that_raises_fails_its_page(run_page: RunPage) -> None:
    with pytest.raises(ZeroDivisionError):
        run_page("page.md", fenced(("python", "1 / 0")))


@pytest.mark.parametrize(
    "blocks",
    [
        [("python", "print('a')"), ("output", "b")],
        [("python", "print('a')")],
        [("python", "a = 1"), ("output", "1")],
        [("python", "import sys; print('a', file=sys.stderr)")],
        [("python", "# program.py\nprint('a')"), ("output", "b")],
    ],
    ids=["another output", "not shown", "shown and not printed", "stderr counts", "a program's"],
)
def test_output_that_differs_from_the_page_fails_it(run_page: RunPage, blocks: list[tuple[str, str]]) -> None:
    with pytest.raises(AssertionError, match="does not show what its example prints"):
        run_page("page.md", fenced(*blocks))


def test_dots_in_an_output_stand_for_anything(run_page: RunPage) -> None:
    assert run_page("page.md", fenced(("python", "print(12, 'ms')"), ("output", "... ms"))) == 1


def test_of_a_progress_bar_the_last_state_counts(run_page: RunPage) -> None:
    page = fenced(("python", r"print('1/2\r2/2')"), ("output", "2/2"))
    assert run_page("page.md", page) == 1


def test_log_lines_count_as_printed(run_page: RunPage) -> None:
    source = "import logging\nlogging.basicConfig()\nlogging.getLogger('chatpool').warning('lost')"
    assert run_page("page.md", fenced(("python", source), ("output", "WARNING:chatpool:lost"))) == 1


def test_a_file_of_tests_is_run_by_pytest(run_page: RunPage) -> None:
    assert run_page("page.md", fenced(("python", "# test_one.py\ndef test_one():\n    assert True"))) == 1
    with pytest.raises(AssertionError, match=r"test_two\.py"):
        run_page("page.md", fenced(("python", "# test_two.py\ndef test_two():\n    assert False")))


def test_commands_are_run_and_their_output_compared(run_page: RunPage) -> None:
    assert run_page("page.md", fenced(("console", "$ chatpool ask ping\npong"))) == 1
    with pytest.raises(AssertionError, match="does not show what its example prints"):
        run_page("page.md", fenced(("console", "$ chatpool ask ping\nnothing")))


def test_examples_reach_the_server_of_the_environment(run_page: RunPage, example_server: FakeServer) -> None:
    source = "import chatpool\nprint(chatpool.map(['ping'], model='any')[0])"
    run_page("page.md", fenced(("python", source), ("output", "pong")))
    assert [request.prompt for request in example_server.requests] == ["ping"]
