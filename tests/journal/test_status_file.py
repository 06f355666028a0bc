"""The status of a run beside its journal: whole at any moment, gone at the end, and never written where it may not."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import threading

import pytest

from chatpool._journal import Journal, StatusFile, is_locked, read_status

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and modes of Unix")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.journal"
    path.write_bytes(Journal.HEADER)
    return path


class Facts:
    """Facts that tell when the first of them have been written: when the next are asked for."""

    def __init__(self):
        self.count = 0
        self.are_written = threading.Event()

    def __call__(self):
        self.count += 1
        if self.count > 1:
            self.are_written.set()
        return {"rows": self.count}

    def wait(self):
        assert self.are_written.wait(60)


def status_of(path):
    return path.with_name(f"{path.name}.status")


def test_the_status_is_there_while_the_run_lasts(path):
    facts = Facts()
    with StatusFile(str(path), facts):
        facts.wait()
        assert read_status(str(path))["rows"] >= 1
    assert read_status(str(path)) is None
    assert [each.name for each in path.parent.iterdir()] == ["run.journal"]


@posix
def test_it_is_open_to_no_more_people_than_the_journal(path):
    path.chmod(0o600)
    facts = Facts()
    with StatusFile(str(path), facts):
        facts.wait()
        assert stat.S_IMODE(status_of(path).stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_what_is_no_status_is_left_alone(path, tmp_path, plant, caplog):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    plant(victim, status_of(path))
    with caplog.at_level(logging.WARNING), StatusFile(str(path), Facts()):
        pass
    assert victim.read_text() == "precious"
    assert status_of(path).exists()
    assert "cannot be watched" in caplog.text


@posix
def test_a_link_in_the_place_of_the_new_copy_is_not_followed(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, f"{status_of(path)}.new")
    facts = Facts()
    with StatusFile(str(path), facts):
        facts.wait()
        assert read_status(str(path)) is not None
    assert victim.read_text() == "precious"


@posix
def test_a_pipe_in_its_place_holds_nobody_up(path):
    os.mkfifo(status_of(path))
    os.mkfifo(f"{path}.lock")
    with StatusFile(str(path), Facts()):
        assert read_status(str(path)) is None
    assert is_locked(str(path)) in (None, False)


def test_the_status_of_a_killed_run_is_replaced(path):
    status_of(path).write_text(json.dumps({"chatpool_status": 1, "rows": -1}))
    facts = Facts()
    with StatusFile(str(path), facts):
        facts.wait()
        assert read_status(str(path))["rows"] >= 1


def test_a_status_that_cannot_be_written_ends_no_run(path, monkeypatch, caplog):
    is_tried = threading.Event()

    def refuse(*arguments):
        is_tried.set()
        raise OSError("No space left on device")

    monkeypatch.setattr("chatpool._files._create_file", refuse)
    with caplog.at_level(logging.DEBUG, "chatpool"), StatusFile(str(path), Facts()):
        assert is_tried.wait(60)
    assert "is not written" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"rows": 1}', "[" * 100_000])
@pytest.mark.usefixtures("no_collection")
def test_what_is_damaged_is_no_status(path, text):
    status_of(path).write_text(text)
    assert read_status(str(path)) is None


def test_the_lock_can_be_looked_at_without_taking_it_away(path):
    assert is_locked(str(path)) is False
    with Journal(path):
        assert is_locked(str(path)) is True
    assert is_locked(str(path)) is False
    assert [each.name for each in path.parent.iterdir()] == ["run.journal"]
