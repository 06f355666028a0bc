"""A journal that several processes write to."""

from __future__ import annotations

import os
import threading

import pytest

from chatpool._journal import OK, Record, SharedAppender
from chatpool._journal.append_only import AppendOnly, Tail


def record(number):
    value = b'{"text":"%s"}' % (b"x" * number)
    return Record(number, OK, "0" * 32, f"row {number}", number, at=1.0, elapsed=0.5, attempts=(), value=value)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b'{"chatpool_journal":1}\n')
    return str(path)


@pytest.fixture
def tail(path):
    tail = Tail(path)
    yield tail
    tail.close()


def test_where_a_record_was_written_it_is_found(path, tail):
    several = SharedAppender(path), SharedAppender(path)
    places = [(number, several[number % 2].append(record(number))) for number in range(1, 20)]
    for number, (start, length) in places:
        assert tail.at(start, length).prefix.key == number
    for one in several:
        one.close()


def test_also_with_many_threads(path, tail):
    appender, places = SharedAppender(path), {}

    def write(first):
        for number in range(first, first + 50):
            places[number] = appender.append(record(number))

    threads = [threading.Thread(target=write, args=(first,)) for first in (1, 101, 201, 301)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    appender.close()
    assert len(places) == 200
    assert all(tail.at(*place).prefix.key == number for number, place in places.items())


def test_what_is_damaged_or_not_there_is_no_record(path, tail):
    appender = SharedAppender(path)
    start, length = appender.append(record(5))
    appender.close()
    assert tail.at(start + 1, length - 1) is None
    assert tail.at(start, length - 1) is None
    assert tail.at(start + 1000, length) is None
    with open(path, "r+b") as file:
        file.seek(start + length // 2)
        file.write(b"\0\0")
    assert tail.at(start, length) is None


def test_all_records_from_a_place_on_are_found_beside_what_is_no_record(path, tail):
    appender = SharedAppender(path)
    appender.append(record(1))
    begin = tail.end()
    appender.append(record(2))
    with open(path, "ab") as file:
        file.write(b'\n{"crc":"half a rec')
    appender.append(record(3))
    with open(path, "ab") as file:
        file.write(b'\n{"crc":"not finished')
    assert [found.prefix.key for found in tail.since(begin)] == [2, 3]
    assert [found.prefix.key for found in tail.since(0)] == [1, 2, 3]
    appender.close()


class TestShortWrites:
    """A write that takes less than it was given, as at a limit of sizes or on a file system over a network."""

    def shortened(self, monkeypatch, *sizes):
        """Have the writes take so many bytes, one after the other, and then all."""
        left = list(sizes)

        def write(descriptor, data, size):
            return os.write(descriptor, data[: left.pop(0)] if left else data)

        monkeypatch.setattr("chatpool._journal.append_only._gil_holding_write", lambda: write)

    def test_a_record_is_written_once_more_whole(self, path, tail, monkeypatch):
        self.shortened(monkeypatch, 10, 0, 40)
        appender = SharedAppender(path)
        places = [appender.append(record(number)) for number in (1, 2)]
        appender.close()
        assert [tail.at(*place).prefix.key for place in places] == [1, 2]
        assert [found.prefix.key for found in tail.since(0)] == [1, 2]

    def test_after_some_tries_it_is_an_error(self, path, monkeypatch):
        self.shortened(monkeypatch, *[10] * 20)
        appender = SharedAppender(path)
        with pytest.raises(OSError, match="cannot write .*only 10 of"):
            appender.append(record(1))
        appender.close()

    def test_a_file_of_ones_own_is_filled_up(self, tmp_path, monkeypatch):
        self.shortened(monkeypatch, 3, 3)
        file = AppendOnly(str(tmp_path / "own"))
        file.append(b"0123456789")
        assert file.size == 10
        file.close()
        assert (tmp_path / "own").read_bytes() == b"0123456789"
