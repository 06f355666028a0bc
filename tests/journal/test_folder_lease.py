"""The lease of a shard's folder: one writer over all hosts, and one that comes back late spoils nothing."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import chatpool
from chatpool import JournalBusyError, JournalLostError
from chatpool._journal import FolderLease, Journal, folder_lease, is_leased, newest_journal, read_journal

ROOT = Path(chatpool.__file__).parents[1]
PROGRAM = """
import sys
from chatpool._journal import Journal, FolderLease
from chatpool._journal.record import OK, Record, key_of
lease = FolderLease(sys.argv[1])
lease.acquire()
with Journal(lease.path(".journal"), lease=lease) as journal:
    journal.append(Record(key_of("a"), OK, "0" * 32, "a", 0, 1.0, 0.5, ()))
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "00000")


@pytest.fixture
def other_hosts(monkeypatch):
    """Every lease is that of another machine, and one that is silent is watched for a tenth of a second only."""
    numbers = itertools.count()
    monkeypatch.setattr(folder_lease, "_machine_of", lambda descriptor: f"machine {next(numbers)}")
    monkeypatch.setattr(folder_lease, "_WATCH_SECONDS", 0.1)
    monkeypatch.setattr(folder_lease, "_POLL_SECONDS", 0.01)


@contextlib.contextmanager
def other_process(folder):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def silent_for(lease, seconds):
    """Let the latest beat of a lease be so many seconds ago."""
    at = time.time() - seconds
    os.utime(lease.path(".journal.lock"), (at, at))


def write(lease, record, *names):
    with Journal(lease.path(".journal"), lease=lease) as journal:
        for name in names:
            journal.append(record(name))


def names_in(folder):
    return [record.custom_id for record, is_last in read_journal(newest_journal(folder)) if is_last]


# -- one holder ----------------------------------------------------------------------------------------------------


def test_the_next_holder_goes_on_with_the_journal_in_files_of_its_own(folder, record):
    with FolderLease(folder) as first:
        write(first, record, "a")
    with FolderLease(folder) as second:
        write(second, record, "b")
    assert (first.generation, second.generation) == (1, 2)
    assert names_in(folder) == ["a", "b"]
    assert sorted(os.listdir(folder)) == ["2.journal", "2.journal.lock"]


def test_a_second_holder_is_refused_and_told_who_the_first_is(folder):
    with FolderLease(folder), pytest.raises(JournalBusyError, match=f"in use by process {os.getpid()} on") as busy:
        FolderLease(folder).acquire()
    assert (busy.value.path, busy.value.pid, busy.value.host) == (folder, os.getpid(), os.uname().nodename)
    assert os.listdir(folder) == ["1.journal.lock"]


def test_one_of_many_that_come_at_once_gets_it(folder):
    held, refused, barrier = [], [], threading.Barrier(8)

    def take():
        lease = FolderLease(folder)
        barrier.wait()
        try:
            lease.acquire()
        except JournalBusyError:
            refused.append(lease)
        else:
            held.append(lease)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
    held[0].release()


def test_a_process_that_was_killed_is_followed_at_once(folder, record):
    with other_process(folder) as process:
        with pytest.raises(JournalBusyError, match=f"process {process.pid}"):
            FolderLease(folder).acquire()
        assert is_leased(folder)
        process.kill()
        process.wait()
        assert not is_leased(folder)
        with FolderLease(folder) as lease:
            write(lease, record, "b")
    assert names_in(folder) == ["a", "b"]


def test_whether_somebody_has_it_is_seen_without_a_change(folder):
    assert not is_leased(folder)
    assert not os.path.exists(folder)
    with FolderLease(folder) as lease:
        before = os.stat(lease.path(".journal.lock")).st_mtime_ns
        assert is_leased(folder)
        assert os.stat(lease.path(".journal.lock")).st_mtime_ns == before
    assert not is_leased(folder)


# -- other hosts, whose locks are not seen -------------------------------------------------------------------------


@pytest.mark.usefixtures("other_hosts")
def test_a_holder_on_another_host_is_left_alone_for_a_minute(folder):
    with FolderLease(folder) as lease:
        silent_for(lease, 50)
        with pytest.raises(JournalBusyError):
            FolderLease(folder).acquire()
        assert is_leased(folder)


@pytest.mark.usefixtures("other_hosts")
@pytest.mark.parametrize("seconds", [70, -3600], ids=["silent", "with a clock that is an hour fast"])
def test_a_holder_that_stays_silent_is_followed_and_learns_of_it(folder, record, seconds):
    first = FolderLease(folder)
    first.acquire()
    write(first, record, "a")
    silent_for(first, seconds)
    with FolderLease(folder) as second:
        with pytest.raises(JournalLostError, match=f"taken over by process {os.getpid()}") as lost:
            first.check(at_once=True)
        assert (lost.value.path, lost.value.pid, lost.value.host) == (folder, os.getpid(), os.uname().nodename)
        first.release()
        second.check(at_once=True)
        assert names_in(folder) == ["a"]


@pytest.mark.usefixtures("other_hosts")
def test_a_holder_that_beats_while_it_is_watched_is_left_alone(folder, monkeypatch):
    with FolderLease(folder) as lease:
        silent_for(lease, 70)  # the whole cluster was asleep
        monkeypatch.setattr(folder_lease.time, "sleep", lambda seconds: lease.check(at_once=True))
        with pytest.raises(JournalBusyError):
            FolderLease(folder).acquire()


@pytest.mark.usefixtures("other_hosts")
def test_what_a_holder_writes_after_it_was_followed_is_not_read(folder, record):
    first = FolderLease(folder)
    first.acquire()
    journal = Journal(first.path(".journal"), lease=first)
    journal.append(record("a"))
    silent_for(first, 70)
    with FolderLease(folder) as second:
        journal.append(record("late"))  # as it is not yet aware
        write(second, record, "b")
        assert names_in(folder) == ["a", "b"]
        journal.close()
        first.release()
        assert names_in(folder) == ["a", "b"]
        assert sorted(os.listdir(folder)) == ["2.journal", "2.journal.lock"]


@pytest.mark.usefixtures("other_hosts")
def test_a_holder_that_was_stopped_writes_no_further_record(folder, record, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(folder_lease, "_now", lambda: now)
    first = FolderLease(folder)
    first.acquire()
    with Journal(first.path(".journal"), lease=first) as journal:
        journal.append(record("a"))
        silent_for(first, 70)
        now += 70
        monkeypatch.setattr(folder_lease, "_WATCH_SECONDS", 0)
        with FolderLease(folder), pytest.raises(JournalLostError):
            journal.append(record("late"))
    first.release()


def test_a_stopped_process_of_this_machine_is_followed_and_loses_its_lease(folder, record, monkeypatch):
    monkeypatch.setattr(folder_lease, "_WATCH_SECONDS", 0.1)
    with other_process(folder) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(JournalBusyError):  # for a minute
            FolderLease(folder).acquire()
        at = time.time() - 70
        os.utime(os.path.join(folder, "1.journal.lock"), (at, at))
        with FolderLease(folder) as lease:
            write(lease, record, "b")
            process.send_signal(signal.SIGCONT)
            process.communicate("end\n", timeout=60)
            assert process.returncode == 0
        assert names_in(folder) == ["a", "b"]


@pytest.mark.usefixtures("other_hosts")
def test_the_holder_is_told_by_its_own_beat(folder, monkeypatch):
    monkeypatch.setattr(folder_lease, "_BEAT_SECONDS", 0.05)
    told = threading.Event()
    first = FolderLease(folder)
    first.on_lost = told.set
    first.acquire()
    Path(folder, "2.journal.lock").touch()
    assert told.wait(60)
    with pytest.raises(JournalLostError, match="taken over by another process"):
        first.check()
    first.release()


def test_a_beat_shows_that_the_holder_lives(folder, monkeypatch):
    monkeypatch.setattr(folder_lease, "_BEAT_SECONDS", 0.05)
    with FolderLease(folder) as lease:
        path = lease.path(".journal.lock")
        begun = json.loads(Path(path).read_text())["beat"]
        silent_for(lease, 1000)
        ends_at = time.monotonic() + 60
        while time.time() - os.stat(path).st_mtime > 900 and time.monotonic() < ends_at:
            time.sleep(0.01)
        assert time.time() - os.stat(path).st_mtime < 900
        assert json.loads(Path(path).read_text())["beat"] > begun


# -- what goes wrong on the way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"host": 1}', b"\xff" * 600, b"process 1 on host"])
def test_a_lease_that_names_nobody_is_one_of_another_host(folder, content, monkeypatch):
    monkeypatch.setattr(folder_lease, "_WATCH_SECONDS", 0.1)
    os.makedirs(folder)
    path = Path(folder, "7.journal.lock")
    path.write_bytes(content)
    with pytest.raises(JournalBusyError, match="another process"):
        FolderLease(folder).acquire()
    os.utime(path, (0, 0))
    with FolderLease(folder) as lease:
        assert lease.generation == 8


def test_a_name_that_a_terminal_might_obey_is_shown_as_an_escape(folder):
    os.makedirs(folder)
    facts = {"host": "\x1b[31mred", "pid": 1, "machine": "m", "beat": 1, "is_released": False}
    Path(folder, "1.journal.lock").write_text(json.dumps(facts))
    with pytest.raises(JournalBusyError) as busy:
        FolderLease(folder).acquire()
    assert "\x1b" not in str(busy.value)
    assert "\x1b" not in busy.value.host


@pytest.mark.usefixtures("other_hosts")
def test_a_claim_of_long_ago_does_not_count(folder):
    with FolderLease(folder):
        pass
    with FolderLease(folder) as lease:
        assert lease.generation == 2
        slow = FolderLease(folder)
        assert not slow._claim(1)  # it has seen an empty folder, and was stopped
        assert os.listdir(folder) == ["2.journal.lock"]
        lease.check(at_once=True)


@pytest.mark.usefixtures("other_hosts")
def test_a_holder_that_could_not_begin_leaves_the_journal_to_the_next(folder, record, monkeypatch):
    first = FolderLease(folder)
    first.acquire()
    journal = Journal(first.path(".journal"), lease=first)
    journal.append(record("a"))
    silent_for(first, 70)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(folder_lease.shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="No space left"):
            FolderLease(folder).acquire()
    with FolderLease(folder) as third:
        journal.append(record("late"))
        write(third, record, "b")
    assert third.generation == 3
    assert names_in(folder) == ["a", "b"]
    journal.close()
    first.release()


def test_without_locks_a_dead_holder_is_followed_after_a_minute(folder, monkeypatch):
    def no_locks(*arguments, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lease, "lock_file", no_locks)
    monkeypatch.setattr(folder_lease, "_WATCH_SECONDS", 0.1)
    with other_process(folder) as process:
        process.kill()
        process.wait()
    with pytest.raises(JournalBusyError, match=f"process {process.pid}"):
        FolderLease(folder).acquire()
    at = time.time() - 70
    os.utime(os.path.join(folder, "1.journal.lock"), (at, at))
    with FolderLease(folder):
        assert names_in(folder) == ["a"]


def test_a_beat_that_cannot_be_written_is_an_error_only_when_the_lease_is_in_doubt(folder, record, monkeypatch):
    def cut_off(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    now = time.monotonic()
    monkeypatch.setattr(folder_lease, "_now", lambda: now)
    with FolderLease(folder) as lease, Journal(lease.path(".journal"), lease=lease) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(folder_lease, "_write", cut_off)
            journal.append(record("a"))
            now += 50
            with pytest.raises(OSError, match="Input/output error"):
                journal.append(record("b"))
        journal.append(record("c"))
    assert names_in(folder) == ["a", "c"]
