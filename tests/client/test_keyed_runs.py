"""Journals that know an item by its key instead of its place."""

from __future__ import annotations

import numpy
import pytest

from chatpool import ConfigurationError
from chatpool.testing import Error

ROWS = [{"id": 7, "text": "a"}, {"id": 8, "text": "b"}, {"id": 9, "text": "c"}]


def text_of(row):
    return row["text"]


def id_of(row):
    return row["id"]


@pytest.fixture
def keyed(tmp_path):
    """Keywords of a run that keeps what it gets by the rows' numbers."""
    return {"prompt": text_of, "key": id_of, "journal": tmp_path / "run.journal", "progress": False}


def test_what_is_left_of_an_input_is_not_sent_again(serve, keyed):
    server, pool = serve()
    assert pool.map(ROWS, **keyed).texts == ["a", "b", "c"]
    assert pool.map([ROWS[2], ROWS[0]], **keyed).texts == ["c", "a"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("method", ["imap", "as_completed"])
def test_lazy_runs_have_it_too(serve, keyed, method):
    server, pool = serve()
    for rows in (ROWS, ROWS[1:]):
        outcomes = list(getattr(pool, method)(rows, **keyed))
        assert sorted(outcome.value.text for outcome in outcomes) == [row["text"] for row in rows]
    assert len(server.requests) == 3


def test_a_changed_item_is_sent_under_its_old_key_and_a_new_one_beside_it(serve, keyed):
    server, pool = serve()
    pool.map(ROWS, **keyed)
    changed = [{"id": 8, "text": "other"}, {"id": 10, "text": "new"}, ROWS[0]]
    assert pool.map(changed, **keyed).texts == ["other", "new", "a"]
    assert [request.prompt for request in server.requests][3:] in (["other", "new"], ["new", "other"])


def test_texts_and_numbers_are_keys(serve, keyed):
    server, pool = serve()
    assert pool.map(["x", 5], **{**keyed, "prompt": str, "key": lambda item: item}).texts == ["x", "5"]
    assert pool.map([5, "x"], **{**keyed, "prompt": str, "key": lambda item: item}).texts == ["5", "x"]
    assert len(server.requests) == 2


def test_the_same_key_twice_fails_with_both_places_and_is_not_sent(serve, keyed):
    server, pool = serve()
    results = pool.map([*ROWS, {"id": 8, "text": "again"}], **keyed)
    assert results.texts == ["a", "b", "c", None]
    assert isinstance(results.errors[3], ConfigurationError)
    assert str(results.errors[3]) == "item 3: key= returns '8' for it and for item 1; keys are unique in a run"
    assert "again" not in [request.prompt for request in server.requests]
    assert pool.map(ROWS, **keyed).texts == ["a", "b", "c"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("key", [1.5, None, True, ("a", 1)])
def test_another_value_is_the_error_of_its_item(serve, keyed, key):
    server, pool = serve()
    results = pool.map(ROWS, **{**keyed, "key": lambda row: key if row["id"] == 8 else row["id"]})
    assert results.texts == ["a", None, "c"]
    assert "item 1: key= must return a str or an int, got" in str(results.errors[1])
    assert len(server.requests) == 2


def test_numbers_of_numpy_are_keys_as_well(serve, keyed):
    server, pool = serve()
    assert pool.map(ROWS, **{**keyed, "key": lambda row: numpy.int64(row["id"])}).texts == ["a", "b", "c"]
    assert pool.map(ROWS, **keyed).texts == ["a", "b", "c"]
    assert len(server.requests) == 3


def test_a_key_that_raises_is_the_error_of_its_item(serve, keyed):
    _, pool = serve()
    results = pool.map([*ROWS, {"text": "d"}], **keyed)
    assert results.texts == ["a", "b", "c", None]
    assert "item 3: 'id'" in str(results.errors[3])


def test_failures_go_on_by_their_keys_in_retry_and_in_another_run(serve, keyed):
    server, pool = serve(retry=0)
    server.set_script({"b": Error(503), "c": Error(503)})
    results = pool.map(ROWS, **keyed)
    assert results.texts == ["a", None, None]
    server.set_script({"c": Error(503)})
    assert pool.retry(results).texts == ["a", "b", None]
    server.set_script(None)
    sent = len(server.requests)
    assert pool.map([ROWS[2], ROWS[1]], **keyed).texts == ["c", "b"]
    assert [request.prompt for request in server.requests[sent:]] == ["c"]


def test_identical_requests_have_records_of_their_own(serve, keyed):
    server, pool = serve()
    rows = [{"id": number, "text": "same"} for number in range(4)]
    assert pool.map(rows, dedupe=True, **keyed).texts == ["same"] * 4
    assert pool.map(rows[::-1], **keyed).texts == ["same"] * 4
    assert len(server.requests) == 1


@pytest.mark.parametrize("begins_with_keys", [False, True])
def test_a_journal_is_with_keys_or_without(serve, keyed, begins_with_keys):
    server, pool = serve()
    unkeyed = {name: value for name, value in keyed.items() if name != "key"}
    first, second = (keyed, unkeyed) if begins_with_keys else (unkeyed, keyed)
    pool.map(ROWS, **first)
    with pytest.raises(ConfigurationError, match="was written with key=" if begins_with_keys else "without key="):
        pool.map(ROWS, **second)
    assert pool.map(ROWS, **first).texts == ["a", "b", "c"]  # its lock is free again
    assert len(server.requests) == 3


def test_it_needs_a_journal_and_a_function(serve, keyed):
    server, pool = serve()
    with pytest.raises(TypeError, match="pass journal= as well"):
        pool.map(ROWS, prompt=text_of, key=id_of)
    with pytest.raises(TypeError, match="key must be a function of an item"):
        pool.map(ROWS, **{**keyed, "key": "id"})
    with pytest.raises(TypeError, match="key"):
        pool.chat("a", key=id_of)
    assert not server.requests
