"""Reads the examples of a documentation page.

The rules for a page's fenced blocks:

- ``python``: run, in order, in one namespace per page. What it prints has to be shown: by an ``output`` block
  right after it, compared as doctest does with ELLIPSIS. Log lines and progress bars count as printed.
- A ``python`` block whose first line is ``# name.py`` is a file of that name: ``conftest.py`` is only written,
  ``test_*.py`` is run by pytest at the end of the page, any other one as a program.
- ``console``: for reading, unless ``chatpool ask`` is in it: then its commands (``$ ...``) are run in a shell, and
  the other lines are what they print.
- ``text`` is for reading. Any other language is an error, so that nothing is skipped in silence.
"""

from __future__ import annotations

import doctest
import re
from typing import List, NamedTuple, Optional

__all__ = ["Block", "Example", "check_output", "read_blocks", "read_examples"]

COMMAND = "chatpool ask"

_FENCE = re.compile(r"(?P<ticks>`{3,})(?P<info>[^`]*)$")
_FILE = re.compile(r"# (?P<name>\w+\.py)$")


class Block(NamedTuple):
    """One fenced block: its language, the line its text starts on (from 1), and the text."""

    language: str
    line: int
    text: str


class Example(NamedTuple):
    """Code, or commands of a shell, with the output that the page shows for it, None when it shows none."""

    line: int
    source: str
    shown: Optional[str]
    is_shell: bool = False

    @property
    def file(self) -> Optional[str]:
        """The name of the file that it is, None for code to be run in place."""
        match = _FILE.match(self.source.split("\n", 1)[0])
        return match["name"] if match else None

    @property
    def is_test(self) -> bool:
        """Whether it is a file for pytest."""
        return (self.file or "").startswith("test_")


def read_blocks(text: str) -> List[Block]:
    """All fenced blocks of a page.

    Raises:
        ValueError: a block is not closed.
    """
    blocks: List[Block] = []
    opened: Optional[re.Match[str]] = None
    body: List[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line.strip())
        if opened is None:
            opened, body = fence, []
        elif fence and not fence["info"].strip() and len(fence["ticks"]) >= len(opened["ticks"]):
            blocks.append(Block(opened["info"].strip(), number - len(body), "\n".join(body) + "\n"))
            opened = None
        else:
            body.append(line)
    if opened is not None:
        raise ValueError(f"a block of {opened['info']!r} is not closed")
    return blocks


def read_examples(text: str) -> List[Example]:
    """The examples of a page, in order.

    Raises:
        ValueError: a block's language is unknown, or an ``output`` block follows no ``python`` block.
    """
    examples: List[Example] = []
    previous = ""
    for block in read_blocks(text):
        if block.language == "python":
            examples.append(Example(block.line, block.text, None))
        elif block.language == "output":
            if previous != "python":
                raise ValueError(f"line {block.line}: an output block must follow a python block")
            examples[-1] = examples[-1]._replace(shown=block.text)
        elif re.match(r"\{(code|code-block|sourcecode|literalinclude|doctest)\}", block.language):
            raise ValueError(f"line {block.line}: write code as a plain ```python block, so that it is run")
        elif block.language == "console" and COMMAND in block.text:
            examples.append(read_commands(block))
        elif block.language not in ("console", "text") and not block.language.startswith("{"):
            raise ValueError(f"line {block.line}: unknown language {block.language!r}")
        previous = block.language
    return examples


def read_commands(block: Block) -> Example:
    """The commands of a ``console`` block, and what it shows of their output."""
    lines = block.text.splitlines(keepends=True)
    commands = "".join(line[2:] for line in lines if line.startswith("$ "))
    return Example(block.line, commands, "".join(line for line in lines if not line.startswith("$ ")), is_shell=True)


def check_output(example: Example, printed: str) -> None:
    """Compare what an example printed with what its page shows.

    Raises:
        AssertionError: they differ.
    """
    got = "\n".join(_seen(line) for line in printed.split("\n"))
    wanted = example.shown or ""
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS
    if not checker.check_output(wanted, got, flags):
        difference = checker.output_difference(doctest.Example(example.source, wanted), got, flags)
        raise AssertionError(f"line {example.line}: the page does not show what its example prints\n{difference}")


def _seen(line: str) -> str:
    """What a terminal shows in the end of a line in which a progress bar returned to the start."""
    return line.rstrip("\r").rpartition("\r")[2].rstrip()
