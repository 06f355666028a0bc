"""Damaged journals: what is whole is found, whatever stands before or after it, and nothing untyped is raised."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from chatpool._journal import FAILED, OK, RETRY, Journal, decode_record
from chatpool.errors import ChatPoolError

SEED = int(os.environ.get("CHATPOOL_FUZZ_SEED", "1"))
ROWS = 30


def flip_bits(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def hole(data, rng):
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 600) :]


def garbage(data, rng):
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.randint(1, 2000)) + data[start:]


def zeros(data, rng):
    """A block that never reached the disk."""
    start = rng.randrange(len(data))
    size = min(rng.choice((64, 512, 4096)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def with_lines(change):
    def damage(data, rng):
        lines = data.splitlines(keepends=True)
        change(lines, rng)
        return b"".join(lines)

    damage.__name__ = change.__name__
    return damage


@with_lines
def doubled_lines(lines, rng):
    for _ in range(rng.randint(1, 5)):
        lines.insert(rng.randint(1, len(lines)), rng.choice(lines[1:]))


@with_lines
def swapped_lines(lines, rng):
    for _ in range(rng.randint(1, 5)):
        one, other = rng.sample(range(1, len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]


@with_lines
def lines_of_somebody_else(lines, rng):
    strange = [b"\n", b"\r\n", b"{}\n", b"null\n", b'{"crc":"00000000"}\n', b'{"a":' * 5000 + b"\n", b"9" * 5000]
    for _ in range(rng.randint(1, 5)):
        lines.insert(rng.randint(1, len(lines)), rng.choice(strange))


@with_lines
def ends_as_windows_writes_them(lines, rng):
    first = rng.randrange(1, len(lines))
    lines[first:] = [line[:-1] + b"\r\n" for line in lines[first:]]


DAMAGES = [
    flip_bits,
    cut,
    hole,
    garbage,
    zeros,
    doubled_lines,
    swapped_lines,
    lines_of_somebody_else,
    ends_as_windows_writes_them,
]


@pytest.fixture
def written(tmp_path, record):
    """The bytes of a journal in which every record says something else, some of them of one row."""
    path = tmp_path / "written"
    with Journal(path) as journal:
        for number in range(ROWS):
            value = {"text": f"{number} ü\n" * (number % 7), "n": number}
            journal.append(record(f"row {number % 25}", (OK, OK, FAILED, RETRY)[number % 4], value=value))
    return path.read_bytes()


def reopened(path):
    """The lines of every record in the journal, by the name of its row."""
    with Journal(path) as journal:
        return {decode_record(line).custom_id: line for _, line in journal.lines()}


@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_whole_is_found_and_nothing_else(damage, count, written, record, tmp_path, record_property):
    path, counted = tmp_path / "damaged", Counter()
    head, *records = written.splitlines(keepends=True)
    values = [decode_record(line) for line in records]
    for number in range(count):
        rng = random.Random(f"{SEED} {damage.__name__} {number}")
        data = damage(written, rng)
        path.write_bytes(data)
        try:
            found = reopened(path)
        except ChatPoolError:
            assert not data.startswith(head)
            assert path.read_bytes() == data
            counted["refused, as its first line was damaged"] += 1
            continue
        whole = {}  # the last of each row
        for line in data.splitlines(keepends=True) if data.startswith(head) else []:
            if line in records:
                whole[decode_record(line).custom_id] = line
        assert {name: found.get(name) for name in whole} == whole, f"damage {number} of the seed {SEED}"
        assert all(decode_record(line) in values for line in found.values())
        counted["records found"] += len(found)
        counted["rows lost to the damage"] += 25 - len(found)
        with Journal(path) as journal:
            journal.append(record("one more"))
        assert reopened(path).items() >= found.items()
        counted["journals that went on"] += 1
    record_property("counted", f"journals, {damage.__name__} (seed {SEED}): {count} damaged, {dict(counted)}")
