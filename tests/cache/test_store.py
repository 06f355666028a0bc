"""Entries of a cache: kept, found, of what age, and how many of them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._cache import Store

PROGRAM = Path(__file__).with_name("user_of_a_cache.py")
HOUR = 3600.0


@pytest.fixture
def make(tmp_path):
    """A function that makes a store; all are closed with the test."""
    stores = []

    def store(name="a.db", **options):
        stores.append(Store(str(tmp_path / name), **options))
        return stores[-1]

    yield store
    for each in stores:
        each.close()


def keep(store, digest, answer=b'"x"', now=1.0, facts=b"{}"):
    store.keep([(digest, facts, answer)], now)


def found(store, digest, now=1.0):
    entry = store.find([digest], now)
    return None if entry is None else entry.answer


def test_what_was_kept_is_found_by_another_store(make):
    keep(make(), b"a", b"1", now=5.0, facts=b'{"path":"/p"}')
    assert make().find([b"a"], 6.0) == (b"1", b'{"path":"/p"}', 5.0)
    assert make().find([b"b"], 6.0) is None


def test_the_first_digest_that_has_an_answer_counts(make):
    store = make()
    keep(store, b"second", b"2")
    keep(store, b"third", b"3")
    assert store.find([b"first", b"second", b"third"], 1.0).answer == b"2"


def test_an_answer_takes_the_place_of_an_older_one(make):
    store = make()
    keep(store, b"a", b"1")
    keep(store, b"a", b"2", now=2.0)
    assert found(store, b"a") == b"2"
    assert store.stats().answers == 1


def test_the_digest_is_not_in_the_file(make, tmp_path):
    store = make()
    keep(store, b"a digest that somebody may try")
    store.close()
    assert b"somebody may try" not in (tmp_path / "a.db").read_bytes()


@given(entries=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.binary(max_size=9000)), max_size=12))
def test_what_is_found_is_what_was_kept_last(entries):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(os.path.join(folder, "a.db"))
        kept = {}
        for digest, answer in entries:
            keep(store, digest, answer)
            kept[digest] = answer
            if len(answer) % 3 == 0:
                store.close()
        assert {digest: found(store, digest) for digest in kept} == kept
        assert sorted(entry.answer for entry in store.entries()) == sorted(kept.values())
        store.close()


class TestAge:
    def test_an_old_answer_does_not_count(self, make):
        keep(make(), b"a", now=100.0)
        assert found(make(max_age=50), b"a", now=149.0) is not None
        assert found(make(max_age=50), b"a", now=150.0) is None
        assert found(make(), b"a", now=1e9) is not None

    def test_writing_removes_some_of_the_old_ones(self, make):
        store = make(max_age=10)
        for number in range(40):
            keep(store, b"%d" % number, now=1.0)
        keep(store, b"new", now=100.0)
        assert store.stats().answers == 40 + 1 - 16
        for number in range(3):
            keep(store, b"new %d" % number, now=100.0)
        assert store.stats().answers == 4


class TestSize:
    def test_the_file_stays_below_the_limit(self, make, tmp_path):
        store = make(max_bytes=400_000)
        for number in range(200):
            keep(store, b"%d" % number, b"x" * 10_000, now=float(number))
            assert store.stats().bytes <= 400_000
        assert found(store, b"199") is not None
        assert 20 < store.stats().answers < 40
        store.close()
        assert (tmp_path / "a.db").stat().st_size <= 450_000

    def test_those_go_that_were_not_used_for_longest(self, make):
        store = make(max_bytes=400_000)
        for number in range(20):
            keep(store, b"%d" % number, b"x" * 10_000, now=float(number))
        assert found(store, b"0", now=2 * HOUR) is not None
        for number in range(20, 40):
            keep(store, b"%d" % number, b"x" * 10_000, now=2 * HOUR)
        assert found(store, b"0") is not None
        assert found(store, b"1") is None

    def test_a_use_is_noted_at_the_end_too(self, make):
        store = make()
        keep(store, b"a", now=1.0)
        found(store, b"a", now=5 * HOUR)
        store.close()
        with sqlite3.connect(store.path) as connection:
            assert connection.execute("SELECT used FROM answers").fetchall() == [(5 * HOUR,)]
        connection.close()

    def test_an_answer_that_is_too_large_removes_no_others(self, make):
        store = make(max_bytes=200_000)
        keep(store, b"a")
        keep(store, b"large", b"x" * 60_000)
        assert found(store, b"large") is None
        assert found(store, b"a") is not None

    def test_no_write_removes_without_bound(self, make):
        store = make()
        store.keep([(b"%d" % number, b"{}", b"x" * 5000) for number in range(1000)], 1.0)
        small = make(max_bytes=100_000)
        keep(small, b"one", now=2.0)
        assert 0 < 1001 - small.stats().answers <= 256
        for number in range(5):
            keep(small, b"more %d" % number, now=2.0)
        assert small.stats().bytes <= 100_000


class TestClear:
    def test_all_of_them_or_those_that_are_older(self, make, tmp_path):
        store = make()
        for number in range(50):
            keep(store, b"%d" % number, b"x" * 10_000, now=float(number))
        assert store.clear(before=10.0) == 10
        assert found(store, b"9") is None
        assert found(store, b"10") is not None
        assert store.clear() == 40
        store.close()
        assert (tmp_path / "a.db").stat().st_size < 100_000


class TestSeveralAtATime:
    def test_threads_with_one_store_and_stores_of_their_own(self, make):
        shared = make()
        stores = [shared, shared, make(), make()]
        problems = []

        def work(store, name):
            try:
                for number in range(60):
                    keep(store, f"{name} {number}".encode(), f"{name}/{number}".encode())
                    assert found(store, f"{name} {number}".encode()) == f"{name}/{number}".encode()
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(store, name)) for name, store in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert shared.stats().answers == 240

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
    def test_processes_that_are_killed_lose_nothing_that_was_kept(self, make):
        sys.path.insert(0, str(PROGRAM.parent))
        try:
            from user_of_a_cache import answer_of, digest_of
        finally:
            sys.path.pop(0)
        store = make()
        for turn in range(4):
            names = [f"{turn}.{number}" for number in range(3)]
            arguments = [sys.executable, str(PROGRAM), store.path]
            processes = [subprocess.Popen([*arguments, name], stdout=subprocess.PIPE, text=True) for name in names]
            kept = {}
            for name, process in zip(names, processes):
                for _ in range(10 + 7 * turn):
                    kept[name] = int(process.stdout.readline())
            for name, process in zip(names, processes):
                process.kill()
                rest = process.stdout.read().splitlines()
                kept[name] = max([kept[name], *(int(line) for line in rest if line.isdigit())])
                process.wait()
                process.stdout.close()
            for name, last in kept.items():
                for number in range(last):
                    digest = digest_of(name, number)
                    assert found(store, digest) == answer_of(digest)
        assert not list(Path(store.path).parent.glob("*.damaged*"))
