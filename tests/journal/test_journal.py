"""The journal: what is in it after any end of the process, and who may use it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chatpool
from chatpool._journal import (
    FAILED,
    OK,
    RENAMED,
    RESTORED,
    RETRY,
    SET_ASIDE,
    Journal,
    SharedAppender,
    count_states,
    decode_record,
    decode_value,
    key_of,
    read_journal,
    read_runs,
)
from chatpool.errors import ConfigurationError, JournalBusyError

ROOT = Path(chatpool.__file__).parents[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.journal"


def names(journal):
    return [decode_record(line).custom_id for _, line in journal.lines()]


def test_what_was_appended_is_found_again(path, record, hash_of_body):
    with Journal(path) as journal:
        journal.append(record("a", value={"n": 1}))
        journal.append(record("b", FAILED, error={"class": "BadRequestError", "message": "no"}))
    with Journal(path) as journal:
        assert journal.state(key_of("a"), hash_of_body()) == OK
        assert journal.state(key_of("b"), hash_of_body()) == FAILED
        assert journal.state(key_of("c"), hash_of_body()) is None
        assert decode_value(journal.read(key_of("a"), hash_of_body()).value) == {"n": 1}
        assert journal.read(key_of("b"), hash_of_body()).error["message"] == "no"
        assert names(journal) == ["a", "b"]


def test_a_changed_body_is_another_request(path, record, hash_of_body):
    with Journal(path) as journal:
        journal.append(record("a", body="old"))
        assert journal.state(key_of("a"), hash_of_body("old")) == OK
        assert journal.state(key_of("a"), hash_of_body("new")) is None
        assert journal.read(key_of("a"), hash_of_body("new")) is None


def test_the_last_record_of_a_row_wins(path, record, hash_of_body):
    for reopened in (False, True):
        with Journal(path) as journal:
            if not reopened:
                journal.append(record("a", RETRY))
                journal.append(record("b"))
                journal.append(record("a", OK, value=2))
                assert journal.overwritten == 1
            assert journal.state(key_of("a"), hash_of_body()) == OK
            assert names(journal) == ["b", "a"]


def test_a_record_is_on_the_file_when_append_returns(path, record):
    with Journal(path) as journal:
        for number in range(3):
            journal.append(record(f"row {number}"))
            assert path.read_bytes().count(b"\n") == 2 + number


def test_it_is_synced_within_about_a_second(path, record, monkeypatch):
    synced = threading.Event()
    monkeypatch.setattr("chatpool._journal.append_only._data_sync", lambda descriptor: synced.set())
    with Journal(path) as journal:
        journal.append(record("a"))
        assert synced.wait(5)


def test_what_could_not_be_synced_is_said_at_the_next_record(path, record, monkeypatch):
    tried = threading.Event()

    def fail(descriptor):
        tried.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("chatpool._journal.append_only._data_sync", fail)
    monkeypatch.setattr("chatpool._journal.append_only._SYNC_SECONDS", 0.0)
    journal = Journal(path)
    journal.append(record("a"))
    assert tried.wait(5)
    with pytest.raises(OSError, match="run.journal: Input/output error"):
        for number in range(1000):
            journal.append(record(f"row {number}"))
    monkeypatch.undo()
    journal.close()


# -- ends at any moment ---------------------------------------------------------------------------------------------


@pytest.fixture
def written(path, record):
    """The bytes of a journal with three records, and where the last two lines begin."""
    with Journal(path) as journal:
        for name, value in (("a", "x"), ("b", {"text": "ü\n", "n": None}), ("c", [1, 2])):
            journal.append(record(name, value=value))
    return path.read_bytes()


@pytest.mark.slow
def test_cut_at_every_byte_of_the_last_lines_it_has_the_whole_records_before(path, written, record, caplog):
    ends = [index + 1 for index, byte in enumerate(written) if byte == ord("\n")]
    for cut in range(ends[1], len(written)):
        path.write_bytes(written[:cut])
        whole = [name for name, end in zip("abc", ends[1:]) if end <= cut]
        with Journal(path) as journal:
            assert names(journal) == whole
            journal.append(record("d"))
        with Journal(path) as journal:
            assert names(journal) == [*whole, "d"]
    assert "was not finished" in caplog.text


def test_cut_inside_its_first_line_it_starts_anew(path, written, record):
    for cut in range(written.index(b"\n") + 1):
        path.write_bytes(written[:cut])
        with Journal(path) as journal:
            assert journal.is_empty
            journal.append(record("d"))
        with Journal(path) as journal:
            assert names(journal) == ["d"]


@pytest.mark.parametrize("tail", [b"\0" * 600, b"\0" * 50 + b"\n", b'{"crc":"00000000"}\n', b"garbage\n\nmore"])
def test_garbage_at_the_end_as_a_power_cut_leaves_it_is_removed(path, written, record, tail):
    path.write_bytes(written + tail)
    with Journal(path) as journal:
        assert names(journal) == ["a", "b", "c"]
    assert path.read_bytes() == written


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_record_is_taken_for_missing_and_no_other(path, written, caplog, data):
    caplog.set_level(logging.ERROR)
    start = written.index(b"\n") + 1
    place = data.draw(st.integers(start, len(written) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (written[place], ord("\n"))))
    if written[place] == ord("\n"):
        return  # two lines become one: both are damaged
    path.write_bytes(written[:place] + bytes([byte]) + written[place + 1 :])
    damaged = written[start:place].count(b"\n")
    with Journal(path) as journal:
        # One that is written in other digits is the same record.
        assert names(journal) in ([name for index, name in enumerate("abc") if index != damaged], ["a", "b", "c"])


def test_what_is_out_of_date_is_dropped_when_there_is_much_of_it(path, record, monkeypatch):
    monkeypatch.setattr("chatpool._journal.journal._MIN_COMPACTED_BYTES", 0)
    with Journal(path) as journal:
        for number in range(10):
            journal.append(record("a", RETRY, value=number))
        journal.append(record("b"))
    before = path.stat().st_size
    with Journal(path) as journal:
        assert path.stat().st_size < before / 3
        assert [(decode_record(line).custom_id, decode_record(line).value) for _, line in journal.lines()] == [
            ("a", b"9"),
            ("b", b"null"),
        ]
        journal.append(record("c"))
    with Journal(path) as journal:
        assert names(journal) == ["a", "b", "c"]


# -- who may use it -------------------------------------------------------------------------------------------------


def test_a_second_user_is_refused(path):
    with Journal(path), pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}"):
        Journal(path)
    Journal(path).close()


def test_a_second_process_is_refused_until_the_first_is_dead(path):
    program = (
        f"from chatpool._journal import Journal\nheld = Journal({str(path)!r})\nprint('have it', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "have it\n"
        with pytest.raises(JournalBusyError, match=f"in use by process {other.pid}") as busy:
            Journal(path)
        assert (busy.value.path, busy.value.pid) == (str(path), other.pid)
        assert busy.value.host == socket.gethostname()
        other.kill()
        other.wait()
    Journal(path).close()


def test_no_lock_file_stays_behind(path, tmp_path, record):
    with Journal(path) as journal:
        journal.append(record("a"))
    assert [each.name for each in tmp_path.iterdir()] == ["run.journal"]


def test_a_journal_that_nothing_was_written_to_leaves_no_file(path, tmp_path):
    Journal(path).close()
    with pytest.raises(ConfigurationError), Journal(path):
        raise ConfigurationError("a line of the input cannot be used")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_journal_that_was_there_before_stays(path, tmp_path):
    path.write_bytes(Journal.HEADER)
    Journal(path).close()
    assert [each.name for each in tmp_path.iterdir()] == ["run.journal"]


def test_a_journal_that_only_other_processes_have_written_to_stays(path, record):
    with Journal(path) as journal, contextlib.closing(journal.tail()):
        other = SharedAppender(str(path))
        other.append(record("a"))
        other.close()
    assert path.exists()


def test_one_that_is_dropped_gives_its_lock_back(path, record):
    journal = Journal(path)
    journal.append(record("a"))
    journal._reader.close()
    journal._file._closing.set()
    thread = journal._file._sync_thread
    if thread is not None:
        thread.join()
    del journal
    with Journal(path) as journal:
        assert names(journal) == ["a"]


@pytest.mark.parametrize("content", [b'{"prompt": "x"}\n', b"a,b\n1,2\n", b"{}", b"\0\0\0"])
def test_a_file_of_somebody_else_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not a journal"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_to_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot write .*nowhere.*: No such file"):
        Journal(tmp_path / "nowhere" / "run.journal")


def test_claims_are_known_once(path, record):
    with Journal(path) as journal:
        journal.append(record("a"))
        assert [journal.seen(key_of("a")), journal.register(key_of("a")), journal.register(key_of("a"))] == [
            False,
            True,
            False,
        ]
        assert journal.seen(key_of("a"))
        journal.append(record("a", value=2))
        assert journal.seen(key_of("a"))


def test_many_threads_append_at_once(path, record, hash_of_body):
    with Journal(path) as journal:

        def work(part):
            for number in range(200):
                journal.append(record(f"{part}-{number}"))
                assert journal.state(key_of(f"{part}-{number}"), hash_of_body()) == OK

        threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Journal(path) as journal:
        assert len(set(names(journal))) == 1600


def test_the_rows_of_each_state_are_counted_by_their_last_records(path, record):
    with Journal(path) as journal:
        journal.begin_run({}, 1.0)
        for name, state in (("a", RETRY), ("b", FAILED), ("c", OK), ("a", OK), ("d", RETRY), ("e", OK), ("f", OK)):
            journal.append(record(name, state))
        for name, mark in (("c", SET_ASIDE), ("e", SET_ASIDE), ("e", RESTORED), ("b", SET_ASIDE), ("f", RENAMED)):
            journal.mark(key_of(name), mark)
        journal.append(record("b", FAILED))  # counts again
    assert count_states(path) == {OK: 2, FAILED: 1, RETRY: 1}
    last = [each.state for each, is_last in read_journal(path) if is_last]
    assert count_states(path) == {state: last.count(state) for state in (OK, FAILED, RETRY)}


def test_lines_that_are_no_records_are_in_no_count(path, record):
    with Journal(path) as journal:
        journal.append(record("a"))
        journal.append(record("b"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"id":"a"', b'"id":"x"') + b'{"crc":"')
    assert count_states(path) == {OK: 1, FAILED: 0, RETRY: 0}


# -- runs -----------------------------------------------------------------------------------------------------------


def test_runs_and_their_options_are_found_again_and_are_no_outcomes(path, record):
    with Journal(path) as journal:
        journal.begin_run({"model": "m", "text": "ü\u2028\ud800"}, 1000.25)
        assert journal.is_empty
        journal.append(record("a"))
        journal.begin_run({"model": "n"}, 2000.0)
        journal.append(record("b"))
        assert names(journal) == ["a", "b"]
        assert journal.overwritten == 0
    assert [(at, options["model"]) for at, options in read_runs(path)] == [(1000.25, "m"), (2000.0, "n")]
    assert [each.custom_id for each, _ in read_journal(path)] == ["a", "b"]


def test_a_journal_in_which_a_run_has_only_begun_is_empty(path, record, caplog):
    with Journal(path) as journal:
        journal.begin_run({}, 1.0)
    with Journal(path) as journal:
        assert (journal.is_empty, journal.was_empty, journal.unseen()) == (True, True, [])
        journal.append(record("a"))
        assert not journal.is_empty
    with Journal(path) as journal:
        assert not journal.was_empty
    assert not caplog.records


def test_runs_survive_that_outdated_records_are_dropped(path, record, monkeypatch):
    monkeypatch.setattr("chatpool._journal.journal._MIN_COMPACTED_BYTES", 0)
    with Journal(path) as journal:
        for number in range(10):
            journal.begin_run({"number": number}, number)
            journal.append(record("a", RETRY, value="x" * 500))
    Journal(path).close()
    assert len(path.read_bytes().splitlines()) == 1 + 10 + 1
    assert [options["number"] for _, options in read_runs(path)] == list(range(10))


def test_a_journal_without_runs_has_none_and_damaged_ones_are_left_out(path, record):
    with Journal(path) as journal:
        journal.append(record("a"))
    assert read_runs(path) == []
    with Journal(path) as journal:
        journal.begin_run({"a": 1}, 1.0)
        journal.begin_run({"a": 2}, 2.0)
    path.write_bytes(path.read_bytes().replace(b'{"a":1}', b'{"a":7}'))
    assert read_runs(path) == [(2.0, {"a": 2})]
