"""Looking at a journal without using it: no lock, nothing repaired, also while a run writes to it."""

from __future__ import annotations

from typing import Iterator, Set, Tuple

from .journal import Journal
from .record import ASIDE, GONE, MARKS, Record, decode
from .table import DigestTable

__all__ = ["is_journal", "read_journal"]


def is_journal(path: str) -> bool:
    """Whether the file is a journal."""
    with open(path, "rb") as file:
        return file.read(len(Journal.HEADER)) == Journal.HEADER


def read_journal(path: str) -> Iterator[Tuple[Record, bool]]:
    """Every record in a journal, and whether it is the last one of its row and is not set aside.

    Raises:
        OSError: the file cannot be read.
    """
    last = DigestTable()
    aside: Set[int] = set()
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is None:
                continue
            if line.prefix.state not in MARKS:
                last[line.prefix.key] = line.start
            if line.prefix.state in (ASIDE, GONE):
                aside.add(line.prefix.key)
            elif aside:
                aside.discard(line.prefix.key)
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is not None and line.prefix.state not in MARKS:
                key = line.prefix.key
                yield decode(line.data), last.get(key) == line.start and key not in aside
