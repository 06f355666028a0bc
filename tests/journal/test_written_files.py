"""Files in folders that others may write to, private ones, links, and disks that take less than they are given."""

from __future__ import annotations

import errno
import os
import stat
import sys

import pytest

from chatpool._files import atomic_replace
from chatpool._journal import AppendOnly, Journal, decode_record
from chatpool.errors import ConfigurationError

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions and links as POSIX has them")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.journal"


@pytest.fixture
def victim(tmp_path):
    """A file of the user's that nobody may change."""
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


@pytest.fixture
def umask():
    """Sets the process' umask, to the end of the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture
def made_by_another(monkeypatch):
    """``made_by_another(path)``: the link belongs to somebody else, who does not own the folder either."""
    lstat = os.lstat

    def change(link):
        def pretend(path, **options):
            found = lstat(path, **options)
            return os.stat_result((*found[:4], 4321, *found[5:])) if str(path) == str(link) else found

        monkeypatch.setattr(os, "lstat", pretend)

    return change


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# -- links ----------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_link_in_the_place_of_the_lock_file_is_refused_and_not_written_to(path, victim, plant):
    plant(victim, f"{path}.lock")
    with pytest.raises(ConfigurationError, match=r"run\.journal\.lock is a link, or no plain file: remove it"):
        Journal(path)
    assert victim.read_text() == "precious"
    assert os.path.lexists(f"{path}.lock")


@posix
def test_a_pipe_in_the_place_of_the_lock_file_holds_nobody_up(path):
    os.mkfifo(f"{path}.lock")
    with pytest.raises(ConfigurationError, match="no plain file"):
        Journal(path)


def test_a_lock_file_that_a_killed_run_has_left_is_taken_over(path, tmp_path):
    (tmp_path / "run.journal.lock").write_text("process 1 on nowhere, which was longer than what comes next")
    with Journal(path), pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()} on [^,]*: wait"):
        Journal(path)
    assert not (tmp_path / "run.journal.lock").exists()


@posix
def test_two_names_of_a_journal_are_one_journal(path, tmp_path):
    other = tmp_path / "other.journal"
    other.symlink_to(path)
    with Journal(path), pytest.raises(ConfigurationError, match=r"other\.journal is in use"):
        Journal(other)


@posix
@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_link_in_the_place_of_the_new_copy_is_taken_away_and_not_written_to(path, victim, plant):
    path.write_text("old")
    plant(victim, f"{path}.new")
    with atomic_replace(str(path)) as file:
        file.write(b"new")
    assert (path.read_text(), victim.read_text()) == ("new", "precious")
    assert not path.is_symlink()


@posix
def test_a_link_of_the_users_own_stays_one_and_its_target_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "real", tmp_path / "out"
    link.symlink_to(target)
    for content in (b"first", b"second"):
        with atomic_replace(str(link)) as file:
            file.write(content)
        assert (link.is_symlink(), target.read_bytes()) == (True, content)
    assert [each.name for each in (tmp_path / "disk").iterdir()] == ["real"]


@posix
@pytest.mark.parametrize(
    "write", [AppendOnly, lambda path: atomic_replace(path).__enter__()], ids=["appended", "replaced"]
)
def test_a_link_that_somebody_else_has_put_there_is_refused(path, victim, made_by_another, write):
    path.symlink_to(victim)
    made_by_another(path)
    with pytest.raises(OSError, match="a link that another user has made"):
        write(str(path))
    assert victim.read_text() == "precious"


@posix
def test_a_journal_behind_a_link_of_somebody_else_is_a_configuration_error(path, victim, made_by_another):
    path.symlink_to(victim)
    made_by_another(path)
    with pytest.raises(ConfigurationError, match="cannot write .*a link that another user has made"):
        Journal(path)


# -- who may read them ----------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666])
def test_the_new_copy_of_a_file_has_its_mode_before_it_has_content(path, umask, mode):
    umask(0o022)
    path.write_text("old")
    path.chmod(mode)
    with atomic_replace(str(path)):
        assert mode_of(f"{path}.new") == mode
    assert mode_of(path) == mode


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_what_was_not_there_before_gets_the_mode_that_the_umask_leaves(path, umask, mask, mode):
    umask(mask)
    with atomic_replace(str(path)):
        assert mode_of(f"{path}.new") == mode
    path.unlink()
    with Journal(path):
        assert (mode_of(path), mode_of(f"{path}.lock")) == (mode, mode)


@posix
def test_the_lock_file_is_open_to_no_more_people_than_what_it_locks(path):
    path.write_bytes(Journal.HEADER)
    path.chmod(0o600)
    with Journal(path):
        assert mode_of(f"{path}.lock") == 0o600


def test_a_copy_that_could_not_be_finished_leaves_nothing_behind(path, tmp_path):
    path.write_text("old")
    with pytest.raises(OSError, match=r"cannot write .*run\.journal: No space left"), atomic_replace(str(path)) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("run.journal", "old")]


# -- writes that take less ------------------------------------------------------------------------------------------


def test_records_are_whole_where_a_write_takes_only_a_part(path, record):
    with Journal(path) as journal:
        journal._file._write = lambda descriptor, data, size: os.write(descriptor, data[: size // 3 + 1])
        for number in range(20):
            journal.append(record(f"row {number}"))
    with Journal(path) as journal:
        assert [decode_record(line).custom_id for _, line in journal.lines()] == [
            f"row {number}" for number in range(20)
        ]


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_write_that_takes_nothing_is_an_error_and_no_endless_loop(path, is_shared):
    file = AppendOnly(str(path), shared=is_shared)
    file._write = lambda descriptor, data, size: 0
    with pytest.raises(OSError, match="only 0 of 4 bytes can be written at once"):
        file.append(b"line")
    file.close()


def test_a_write_that_fails_half_way_leaves_the_records_before(path, record):
    def half(descriptor, data, size):
        if len(data) < len(line):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, data[: size // 2])

    with Journal(path) as journal:
        journal.append(record("a"))
        line = path.read_bytes().splitlines(keepends=True)[1]
        write, journal._file._write = journal._file._write, half
        with pytest.raises(OSError, match="cannot write .*No space left"):
            journal.append(record("b"))
        journal._file._write = write
        journal.append(record("c"))
        assert [decode_record(line).custom_id for _, line in journal.lines()] == ["a", "c"]


def test_where_two_files_are_replaced_the_message_names_the_one_that_failed(tmp_path):
    answers, errors = str(tmp_path / "answers"), str(tmp_path / "errors")
    with pytest.raises(OSError) as caught, atomic_replace(answers), atomic_replace(errors):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value).count("cannot write") == 1
    assert f"cannot write {errors}: No space left on device" in str(caught.value)


def test_a_disk_that_is_full_from_the_start_is_said_once(path, monkeypatch):
    def fail(descriptor, data, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("chatpool._journal.append_only._gil_holding_write", lambda: fail)
    with pytest.raises(ConfigurationError) as caught:
        Journal(path)
    assert str(caught.value).count("cannot write") == 1
