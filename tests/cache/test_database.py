"""The file of a cache: for its user alone, set aside when it is damaged, and no obstacle to any call."""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatpool._cache import ForeignDatabase, Store
from chatpool._cache.database import _in_transaction

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.db"


@pytest.fixture
def store(path):
    store = Store(str(path))
    yield store
    store.close()


def keep(store, digest=b"a", answer=b"1"):
    store.keep([(digest, b"{}", answer)], 1.0)


def found(store, digest=b"a"):
    entry = store.find([digest], 1.0)
    return None if entry is None else entry.answer


def aside(path):
    return sorted(each.name for each in path.parent.glob("*.damaged-*") if not each.name.endswith(("-wal", "-shm")))


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@posix_only
class TestModes:
    def test_all_files_are_for_their_user_alone_whatever_the_umask(self, store, path):
        before = os.umask(0)
        try:
            keep(store)
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        finally:
            os.umask(before)
        assert modes == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}

    def test_from_the_first_byte(self, path):
        # What the file is like when SQLite gets it.
        code = (
            "import os, sqlite3, sys\n"
            "from chatpool._cache import Store, database\n"
            "os.umask(0)\n"
            "connect = database._connect\n"
            "def looked(uri):\n"
            "    print(oct(os.stat(sys.argv[1]).st_mode & 0o777), os.stat(sys.argv[1]).st_size)\n"
            "    return connect(uri)\n"
            "database._connect = looked\n"
            "Store(sys.argv[1]).check()\n"
        )
        out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert out.stdout.split() == ["0o600", "0"]

    def test_the_mode_of_a_file_that_is_there_is_its_users(self, store, path):
        keep(store)
        store.close()
        path.chmod(0o640)
        keep(store, b"b")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_a_link_of_the_users_own_is_followed(self, path, tmp_path):
        (tmp_path / "link.db").symlink_to(path)
        linked = Store(str(tmp_path / "link.db"))
        keep(linked)
        linked.close()
        assert path.stat().st_size
        assert (tmp_path / "link.db").is_symlink()

    @pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
    def test_links_beside_it_are_not(self, store, path, tmp_path, caplog, ending):
        victim = tmp_path / "victim"
        victim.write_bytes(b"mine")
        (tmp_path / f"a.db{ending}").symlink_to(victim)
        keep(store)
        assert found(store) is None
        assert victim.read_bytes() == b"mine"
        assert len(warnings_in(caplog)) == 1

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user's file")
    def test_a_file_of_another_user_is_not_used(self, store, path, caplog):
        keep(store)
        store.close()
        os.chown(path, 12345, 12345)
        assert found(store) is None
        assert "belongs to another user" in warnings_in(caplog)[0]

    def test_a_folder_or_a_pipe_is_no_cache(self, tmp_path, caplog):
        os.mkfifo(tmp_path / "pipe.db")
        pipe = Store(str(tmp_path / "pipe.db"))
        keep(pipe)
        assert found(pipe) is None
        assert "no regular file" in warnings_in(caplog)[0]


def damages():
    def cut(data, share):
        return data[: int(len(data) * share)]

    def noise(data, seed, count):
        random_ = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(count):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        return bytes(damaged)

    kinds = {
        "no database": lambda data: b"prompt,answer\n" * 500,
        "zeros": lambda data: bytes(len(data)),
        "a wrong header": lambda data: b"X" + data[1:],
        "a schema of noise": lambda data: data[:100] + b"\xff" * 3900 + data[4000:],
        "a page of noise": lambda data: data[:4096] + os.urandom(4096) + data[8192:],
    }
    kinds.update({f"cut at {share}": lambda data, share=share: cut(data, share) for share in (0.001, 0.02, 0.5, 0.97)})
    kinds.update({f"noise {seed}": lambda data, seed=seed: noise(data, seed, 400) for seed in range(12)})
    return kinds


@pytest.fixture
def quick_switches():
    """Threads take turns at far more moments than they usually do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class TestDamage:
    @pytest.mark.parametrize("kind", damages())
    def test_whatever_it_is_no_call_sees_it_and_no_wrong_answer_comes(self, store, path, kind, caplog):
        for number in range(60):
            keep(store, b"%d" % number, b"answer %d " % number * 100)
        store.close()
        whole = path.read_bytes()
        path.write_bytes(damages()[kind](whole))
        damaged = path.read_bytes()
        for number in range(60):
            assert found(store, b"%d" % number) in (None, b"answer %d " % number * 100)
        keep(store, b"new", b"2")
        assert found(store, b"new") == b"2"
        store.close()
        with sqlite3.connect(path) as connection:
            problems = connection.execute("PRAGMA quick_check").fetchall()
        connection.close()
        if aside(path):  # else the noise is where nothing is read, or a checksum tells
            assert len(aside(path)) == len(warnings_in(caplog)) == 1
            assert (path.parent / aside(path)[0]).read_bytes()[: len(damaged)][:50] == damaged[:50]
            assert problems == [("ok",)]

    @pytest.mark.parametrize("kind", ["no database", "zeros", "a wrong header", "cut at 0.5"])
    def test_a_file_that_is_none_is_set_aside_whole(self, store, path, kind, caplog):
        for number in range(60):
            keep(store, b"%d" % number, b"x" * 1000)
        store.close()
        damaged = damages()[kind](path.read_bytes())
        path.write_bytes(damaged)
        keep(store, b"new", b"2")
        assert found(store, b"new") == b"2"
        (name,) = aside(path)
        assert (path.parent / name).read_bytes() == damaged
        (warning,) = warnings_in(caplog)
        assert "is damaged" in warning
        assert name in warning

    def test_an_answer_whose_bytes_have_changed_is_none(self, store, path):
        keep(store, b"a", b"the answer")
        keep(store, b"b", b"another one")
        store.close()
        path.write_bytes(path.read_bytes().replace(b"the answer", b"the ANSWER"))
        assert found(store, b"a") is None
        assert found(store, b"b") == b"another one"
        assert [entry.answer for entry in store.entries()] == [b"another one"]
        assert not aside(path)
        keep(store, b"a", b"the answer")
        assert found(store, b"a") == b"the answer"

    def test_values_of_other_types_are_none(self, store, path):
        keep(store)
        store.close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE answers SET answer = 5, facts = 'text'")
        connection.close()
        assert found(store) is None
        assert list(store.entries()) == []

    @pytest.mark.parametrize("column", ["made", "used"])
    @pytest.mark.parametrize("value", ["text", b"\0", math.inf, 1e300, -1e300], ids=repr)
    def test_so_are_times_that_are_none(self, path, column, value):
        store = Store(str(path), max_age=3600.0)
        keep(store)
        store.close()
        with sqlite3.connect(path) as connection:
            statement = {"made": "UPDATE answers SET made = ?", "used": "UPDATE answers SET used = ?"}[column]
            connection.execute(statement, (value,))
        connection.close()
        assert found(store) is None
        assert list(store.entries()) == []
        assert store.stats().oldest in (None, 1.0)
        keep(store)
        assert found(store) is not None
        store.close()

    def test_damage_while_it_is_open(self, store, path):
        for number in range(60):
            keep(store, b"%d" % number, b"x" * 1000)
        other = Store(str(path))
        assert found(other, b"1") is not None
        store._database.use(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        with path.open("r+b") as file:
            file.write(b"\xff" * 20_000)
        keep(other, b"new", b"2")
        keep(store, b"newer", b"3")
        for each in (store, other):
            assert found(each, b"newer") == b"3"
        other.close()
        assert len(aside(path)) == 1

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(None, id="no file", marks=pytest.mark.slow),
            pytest.param(b"garbage" * 1000, id="a damaged one"),
            pytest.param(b"", id="an empty one", marks=pytest.mark.slow),
        ],
    )
    def test_those_that_open_it_at_once_lose_nothing(self, tmp_path, content, caplog, quick_switches):
        for turn in range(40):
            path = tmp_path / str(turn) / "a.db"
            path.parent.mkdir()
            if content is not None:
                path.write_bytes(content)
            stores = [Store(str(path)) for _ in range(8)]
            with ThreadPoolExecutor(8) as executor:
                list(executor.map(lambda number: keep(stores[number], b"%d" % number, b"x"), range(8)))  # noqa: B023
            assert [found(stores[0], b"%d" % number) for number in range(8)] == [b"x"] * 8
            assert len(aside(path)) == bool(content)
            for each in stores:
                each.close()
        assert "cannot be used" not in caplog.text

    def test_what_another_process_has_set_aside_meanwhile_is_not_set_aside_again(self, store, path, monkeypatch):
        path.write_bytes(b"garbage" * 1000)
        other, set_aside = Store(str(path)), store._database._set_aside

        def late(error):
            keep(other, b"b", b"2")
            return set_aside(error)

        monkeypatch.setattr(store._database, "_set_aside", late)
        keep(store)
        assert len(aside(path)) == 1
        assert (found(store), found(store, b"b")) == (b"1", b"2")
        other.close()

    def test_a_file_that_was_removed_is_made_anew(self, store, path):
        keep(store)
        path.unlink()
        assert found(store) is None
        keep(store, b"b", b"2")
        assert path.exists()
        assert found(store, b"b") == b"2"

    def test_a_database_of_another_program_is_left_alone(self, path):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE people (name)")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(ForeignDatabase, match="another program"):
            Store(str(path)).check()
        keep(Store(str(path)))
        assert path.read_bytes() == before
        assert not aside(path)

    def test_so_is_one_of_a_later_version(self, store, path):
        keep(store)
        store.close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version=99")
        connection.close()
        with pytest.raises(ForeignDatabase, match="another version of chatpool"):
            Store(str(path)).check()


class TestDisks:
    def test_a_full_disk_keeps_nothing_and_ends_nothing(self, store, caplog):
        keep(store)
        store._database.use(lambda connection: connection.execute("PRAGMA max_page_count=1").fetchall())
        for number in range(5):
            keep(store, b"%d" % number, b"x" * 100_000)
        assert found(store, b"0") is None
        assert found(store) == b"1"
        (warning,) = warnings_in(caplog)
        assert "cannot be written to" in warning
        assert "full" in warning

    def test_one_that_cannot_be_written_is_read(self, store, path, monkeypatch, caplog):
        keep(store)
        store.close()
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        reader = Store(str(path))
        assert found(reader) == b"1"
        keep(reader, b"b")
        assert found(reader, b"b") is None
        assert found(reader) == b"1"
        assert len(warnings_in(caplog)) == 1
        reader.close()

    def test_a_file_that_another_process_has_locked_holds_nobody_up_for_long(self, store, path, monkeypatch):
        monkeypatch.setattr("chatpool._cache.database._BUSY_SECONDS", 0.05)
        keep(store)
        store.close()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        keep(store, b"b")
        assert found(store) == b"1"
        other.execute("ROLLBACK")
        other.close()

    def test_reading_alone_changes_nothing(self, store, path):
        keep(store)
        store.close()
        before = path.read_bytes(), sorted(os.listdir(path.parent))
        reader = Store(str(path), is_read_only=True)
        assert found(reader) == b"1"
        keep(reader, b"b")
        assert found(reader, b"b") is None
        reader.close()
        assert (path.read_bytes(), sorted(os.listdir(path.parent))) == before

    def test_reading_alone_sees_what_a_writer_has_just_kept(self, store, path):
        keep(store)
        reader = Store(str(path), is_read_only=True)
        assert found(reader) == b"1"
        keep(store, b"b", b"2")
        assert found(reader, b"b") == b"2"
        reader.close()

    def test_reading_alone_makes_no_file(self, path, caplog):
        reader = Store(str(path), is_read_only=True)
        assert found(reader) is None
        assert not path.exists()
        assert warnings_in(caplog) == []

    def test_reading_alone_sets_nothing_aside(self, path, caplog):
        path.write_bytes(b"garbage" * 1000)
        assert found(Store(str(path), is_read_only=True)) is None
        assert os.listdir(path.parent) == ["a.db"]


@needs_fork
class TestForks:
    def in_child(self, function):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if function() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def test_parent_and_child_have_connections_of_their_own(self, store, path):
        keep(store)
        connection = store._database._connection

        def child():
            keep(store, b"child", b"2")
            is_another = store._database._connection is not connection
            return is_another and found(store) == b"1"

        assert self.in_child(child) == 0
        keep(store, b"parent", b"3")
        assert found(store, b"child") == b"2"
        assert found(store, b"parent") == b"3"

    def test_no_connection_is_open_while_the_process_forks(self, store):
        keep(store)
        assert self.in_child(lambda: store._database._connection is None) == 0

    def test_a_thread_in_the_middle_of_its_work_is_waited_for(self, store):
        keep(store)
        within, go_on = threading.Event(), threading.Event()

        def slow(connection):
            within.set()
            go_on.wait(10)

        thread = threading.Thread(target=store._database.write, args=(slow,))
        thread.start()
        within.wait()
        threading.Timer(0.05, go_on.set).start()
        assert self.in_child(lambda: found(store) == b"1") == 0
        thread.join()

    def test_a_fork_within_a_transaction_leaves_the_child_without(self, store):
        keep(store)
        codes = []

        def forks(connection):
            codes.append(self.in_child(lambda: found(store) is None))

        store._database.write(forks)
        assert codes == [0]
        assert found(store) == b"1"

    @pytest.mark.slow
    def test_many_forks_of_threads_that_write(self, store, path):
        stop = threading.Event()
        counts = [0, 0]

        def write(number):
            while not stop.is_set():
                keep(store, b"%d %d" % (number, counts[number]), b"x" * 500)
                counts[number] += 1

        threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(20):
                assert self.in_child(lambda number=number: keep(store, b"child %d" % number) is None) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert store.stats().answers == sum(counts) + 20
        assert not aside(path)


def test_ctrl_c_at_any_line_leaves_no_transaction_open(store, path):
    keep(store)
    kept = set()
    for line in itertools.count(1):
        lines = itertools.count(1)

        def interrupt(frame, event, argument, line=line, lines=lines):
            if frame.f_code is _in_transaction.__code__ and event == "line" and next(lines) == line:
                raise KeyboardInterrupt
            return interrupt

        digest = b"%d" % line
        tracer = sys.gettrace()
        sys.settrace(interrupt)
        try:
            keep(store, digest)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracer)
        other = Store(str(path))
        keep(other, digest)
        kept.add(found(store, digest))
        other.close()
    assert kept == {b"1"}
    assert line > 3


def test_it_is_the_same_file_after_a_change_of_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("a.db")
    keep(store)
    store.close()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert found(store) == b"1"
    store.close()


def test_a_copy_of_the_closed_file_is_the_whole_cache(store, path, tmp_path):
    keep(store)
    store.close()
    shutil.copy(path, tmp_path / "copy.db")
    copy = Store(str(tmp_path / "copy.db"))
    assert found(copy) == b"1"
    copy.close()
