"""Looking at a journal without using it: no lock, nothing repaired, also while a run writes to it."""

from __future__ import annotations

from typing import Iterator, Tuple

from .journal import Journal
from .record import Record, decode
from .table import DigestTable

__all__ = ["is_journal", "read_journal"]


def is_journal(path: str) -> bool:
    """Whether the file is a journal."""
    with open(path, "rb") as file:
        return file.read(len(Journal.HEADER)) == Journal.HEADER


def read_journal(path: str) -> Iterator[Tuple[Record, bool]]:
    """Every record in a journal, and whether it is the last one of its row.

    Raises:
        OSError: the file cannot be read.
    """
    last = DigestTable()
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is not None:
                last[line.prefix.key] = line.start
    with open(path, "rb", buffering=1 << 20) as file:
        for line in Journal.scan(file):
            if line.prefix is not None:
                yield decode(line.data), last.get(line.prefix.key) == line.start
