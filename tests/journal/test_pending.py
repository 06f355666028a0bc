"""Rows that are made in the background: the journal knows where, until they have ended."""

from __future__ import annotations

import pytest

from chatpool._journal import (
    FAILED,
    OK,
    RETRY,
    SET_ASIDE,
    Journal,
    Record,
    SharedAppender,
    count_states,
    key_of,
    pending_mark,
    read_journal,
)

KEY, HASH = key_of("row 1"), "7" * 32
FACTS = {"id": "resp_1", "endpoint": "https://a.test/v1"}


def record(state, key=KEY, value=b"null"):
    return Record(key, state, HASH, None, 1, 0.0, 0.0, (), value=value)


def mark(facts=FACTS, key=KEY):
    return pending_mark(key, HASH, 1, 0.0, facts)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.journal")


def test_it_is_known_at_once_and_after_any_end(path):
    with Journal(path) as journal:
        assert journal.pending(KEY, HASH) is None
        journal.note_pending(mark())
        assert journal.pending(KEY, HASH) == FACTS
    with Journal(path) as journal:
        assert journal.pending(KEY, HASH) == FACTS
        assert journal.pending(KEY, "8" * 32) is None  # another request
        assert (journal.is_empty, journal.has(KEY), list(journal.lines())) == (True, False, [])


def test_the_last_one_counts(path):
    with Journal(path) as journal:
        journal.note_pending(mark())
        journal.note_pending(mark({"id": "resp_2"}))
        assert journal.pending(KEY, HASH) == {"id": "resp_2"}
    with Journal(path) as journal:
        assert journal.pending(KEY, HASH) == {"id": "resp_2"}


@pytest.mark.parametrize(("state", "facts"), [(OK, None), (FAILED, None), (RETRY, FACTS)])
def test_it_is_known_until_the_row_has_ended_for_good(path, state, facts):
    with Journal(path) as journal:
        journal.note_pending(mark())
        journal.append(record(state))
        assert journal.pending(KEY, HASH) == facts
    with Journal(path) as journal:
        assert journal.pending(KEY, HASH) == facts
        assert journal.state(KEY, HASH) == state


def test_an_answer_that_was_not_accepted_is_not_fetched_again(path):
    with Journal(path) as journal:
        journal.note_pending(mark())
        journal.append(record(RETRY, value=b'{"id":"resp_1"}'))
        assert journal.pending(KEY, HASH) is None
    with Journal(path) as journal:
        assert journal.pending(KEY, HASH) is None


def test_it_is_no_outcome_and_no_mark_of_another_kind_to_a_reader(path):
    with Journal(path) as journal:
        journal.append(record(RETRY))
        journal.mark(KEY, SET_ASIDE)
        journal.note_pending(mark())
        journal.note_pending(mark(key=key_of("row 2")))
    assert [counts for _, counts in read_journal(path)] == [False]
    assert count_states(path) == {OK: 0, FAILED: 0, RETRY: 0}


def test_it_survives_when_stale_records_are_dropped(path):
    with Journal(path) as journal:
        journal.note_pending(mark())
        journal.note_pending(mark(key=key_of("row 2")))
        for _ in range(3):
            journal.append(record(OK, key_of("row 3"), b'"' + b"x" * (1 << 20) + b'"'))
        journal.append(record(OK, key_of("row 2")))
    with Journal(path) as journal:  # it is compacted now
        assert journal.pending(KEY, HASH) == FACTS
        assert journal.pending(key_of("row 2"), HASH) is None
        assert journal.state(key_of("row 3"), HASH) == OK
    with open(path, "rb") as file:
        assert len(file.read()) < 1.1 * (1 << 20)


def test_other_processes_may_write_it(path):
    with Journal(path) as journal:
        with_other = SharedAppender(path)
        start, _ = with_other.append(mark())
        with_other.close()
        journal.index_record(KEY, mark().state, start)
        assert journal.pending(KEY, HASH) == FACTS


@pytest.mark.parametrize("facts", [None, [1], "resp_1"])
def test_what_is_no_object_says_nothing(path, facts):
    with Journal(path) as journal:
        journal.note_pending(mark(facts))
        assert journal.pending(KEY, HASH) is None
