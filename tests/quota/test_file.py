"""The state in a file."""

from __future__ import annotations

import os
import random
import stat
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quota_agreement import SECOND, HandClock, operations, play

from chatpool._quota import file
from chatpool._quota.file import FileBackend, locked
from chatpool._quota.gcra import Rates, State, pack, unpack
from chatpool._quota.shared_limit import LocalBackend, Unavailable

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions and links as POSIX has them")

ONE_A_SECOND = Rates.of(60, None, 1.0)


def ask(backend, rates=ONE_A_SECOND, tokens=0.0):
    return backend.reserve(rates, requests=1.0, tokens=tokens, max_wait=1e9, sharer=1.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "limits" / "one.quota"


@pytest.fixture
def backend(path, hand_clock):
    backend = FileBackend(path, hand_clock)
    yield backend
    backend.close()


@pytest.fixture
def another(path, hand_clock):
    """What another process would have."""
    backend = FileBackend(path, hand_clock)
    yield backend
    backend.close()


def test_two_that_have_the_same_file_share_the_limit(backend, another):
    waits = [ask(one).wait for one in (backend, another, backend, another)]
    assert waits == pytest.approx([0, SECOND, 2 * SECOND, 3 * SECOND])


def test_a_pause_is_everybodys(backend, another):
    backend.pause(ONE_A_SECOND, seconds=7.0)
    assert ask(another).wait >= 7.0
    assert another.status(ONE_A_SECOND).paused_for == 7.0


def test_it_outlives_those_who_use_it(path, hand_clock, backend):
    ask(backend)
    backend.close()
    later = FileBackend(path, hand_clock)
    assert ask(later).wait == pytest.approx(SECOND)
    later.close()


def test_it_can_be_used_again_after_closing(backend):
    ask(backend)
    backend.close()
    assert ask(backend).wait == pytest.approx(SECOND)


def test_a_file_that_was_removed_is_made_again_and_what_was_known_holds(path, backend, another):
    ask(backend)
    path.unlink()
    assert ask(backend).wait == pytest.approx(SECOND)
    assert ask(another).wait == pytest.approx(2 * SECOND)


def test_a_file_that_was_not_written_to_the_end_is_begun_anew(path, backend):
    ask(backend)
    path.write_bytes(path.read_bytes()[:-9])
    assert ask(backend).wait == pytest.approx(SECOND)  # it knew


@pytest.mark.parametrize("content", [b"", b"nonsense", b"cpq1" + bytes(200), random.Random(3).randbytes(500)], ids=len)
def test_a_file_with_something_else_in_it_is_begun_anew(path, backend, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert ask(backend).wait == 0
    assert ask(backend).wait == pytest.approx(SECOND)


@posix
def test_only_its_user_can_read_it(path, backend):
    ask(backend)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@posix
def test_a_link_is_not_followed(path, backend, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path.parent.mkdir()
    path.symlink_to(target)
    with pytest.raises(Unavailable, match="cannot be opened"):
        ask(backend)
    assert target.read_bytes() == b"precious"


@posix
def test_a_pipe_in_its_place_is_no_file(path, backend):
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(Unavailable, match="not a plain file"):
        ask(backend)


@posix
def test_another_name_of_a_file_is_not_written_to(path, backend, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path.parent.mkdir()
    os.link(target, path)
    with pytest.raises(Unavailable, match="another name"):
        ask(backend)
    assert target.read_bytes() == b"precious"


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777 | stat.S_ISVTX])
def test_a_folder_that_others_may_write_to_is_not_used(path, backend, mode):
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(Unavailable, match="mode 0700"):
        ask(backend)
    assert not path.exists()


@posix
def test_a_folder_of_another_user_is_not_used(path, backend, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(Unavailable, match="it should be yours"):
        ask(backend)


@posix
def test_a_file_of_another_user_is_not_used(path, backend, monkeypatch):
    uids = iter([os.getuid(), 12345])
    monkeypatch.setattr(os, "getuid", lambda: next(uids))
    with pytest.raises(Unavailable, match="belongs to another user"):
        ask(backend)


def test_a_lock_that_nobody_gives_back_is_not_waited_for_long(path, backend, monkeypatch):
    monkeypatch.setattr(file, "_LOCK_TIMEOUT_SECONDS", 0.02)
    ask(backend)
    descriptor = os.open(path, os.O_RDWR)
    try:
        with locked(descriptor), pytest.raises(Unavailable, match="lock"):
            ask(backend)
    finally:
        os.close(descriptor)
    assert ask(backend).granted


def test_a_folder_that_cannot_be_made_is_said(tmp_path, hand_clock):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be opened"):
        ask(FileBackend(tmp_path / "file" / "one.quota", hand_clock))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_lock_of_its_own(backend):
    ask(backend)
    inherited = backend._minute._descriptor
    backend.after_fork_in_child()
    assert ask(backend).wait == pytest.approx(SECOND)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(inherited) if backend._minute._descriptor != inherited else os.fstat(-1)


def test_names_are_told_apart_and_stay_in_the_folder():
    names = ["../../etc/passwd", "a b", "a_b", "a/b", "ä", "x" * 200, ".", "con", "a\nb"]
    files = [file.file_for(name) for name in names]
    assert len(set(files)) == len(names)
    assert len({file.parent for file in files}) == 1
    assert all(len(file.name) < 120 and file.name.isascii() for file in files)


def test_another_start_of_the_machine_has_another_file(monkeypatch):
    before = file.file_for("name")
    monkeypatch.setattr(file, "_boot_id", lambda: "another")
    assert file.file_for("name") != before


times = st.floats(0, 1e9)
pairs = st.lists(st.lists(times, min_size=2, max_size=2), max_size=70)
states = st.builds(State, times, times, times, times, times, pairs, pairs)


@given(states)
def test_a_state_comes_back_from_its_bytes_as_it_was(state):
    assert unpack(pack(state)) == state


@given(states, st.data())
def test_bytes_that_were_cut_or_changed_are_no_state(state, data):
    packed = pack(state)
    assert unpack(packed[: data.draw(st.integers(0, len(packed) - 1))]) is None
    place = data.draw(st.integers(0, len(packed) - 1))
    changed = packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]
    assert unpack(changed) is None


@given(operations)
def test_the_file_answers_as_memory_does(tmp_path_factory, played):
    clock = HandClock()
    file = FileBackend(tmp_path_factory.mktemp("agreement") / "one.quota", clock)
    assert play(file, clock, played) == play(LocalBackend(clock), clock, played)
    file.close()


def test_a_state_is_whole_where_a_write_takes_only_a_part(path, hand_clock, backend, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    ask(backend)
    monkeypatch.undo()
    assert ask(FileBackend(path, hand_clock)).wait == pytest.approx(SECOND)


def test_a_write_that_takes_nothing_is_a_limit_that_cannot_be_reached(backend, monkeypatch):
    ask(backend)
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    with pytest.raises(Unavailable, match="nothing can be written"):
        ask(backend)
