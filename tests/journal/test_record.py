"""One outcome as one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import errors
from chatpool._journal import FAILED, OK, RETRY, Record, decode_record, encode_value, error_facts, error_of, one_line
from chatpool._journal.record import encode_record, prefix_of
from chatpool.errors import APIError, ChatPoolError
from chatpool.prices import Charge
from chatpool.types import Attempt, Usage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ATTEMPTS = st.builds(
    Attempt,
    st.text(),
    st.none() | st.integers(100, 599),
    st.none() | st.just(0.25),
    st.just(1.5),
    st.none() | st.text(),
    st.none() | st.text(),
    st.sampled_from([0, 0, 1, 12]),
)
CHARGES = st.builds(Charge, usage=st.builds(Usage, cost=st.none() | st.just(0.25)))
RECORDS = st.builds(
    Record,
    key=st.integers(1, 2**64 - 1),
    state=st.sampled_from([OK, FAILED, RETRY]),
    hash=st.just("0123456789abcdef" * 2),
    custom_id=st.none() | st.text(),
    row=st.integers(0, 2**40),
    at=st.just(1234.5),
    elapsed=st.just(0.125),
    attempts=st.lists(ATTEMPTS, max_size=3).map(tuple),
    error=st.none() | st.just({"class": "X", "message": ',"value":{'}) | st.just({"class": "X", "value": 1}),
    meta=st.none() | st.just({"k": ',"value":'}) | st.just({"a": 1, "value": {"value": [2, {"b": 1, "value": 3}]}}),
    value=JSON.map(encode_value),
    usage=st.none() | st.builds(Usage, cost=st.none() | st.floats(0, 1e6)),
    model=st.none() | st.text() | st.just(',"value":'),
    charges=st.lists(CHARGES, max_size=2).map(tuple),
)


@given(st.dictionaries(st.text(), JSON), st.sampled_from([None, 2, "\r\n"]), st.booleans())
def test_an_answer_is_kept_as_it_came_on_one_line(answer, indent, ascii_only):
    text = json.dumps(answer, indent=indent, ensure_ascii=ascii_only)
    raw = text.encode("utf-8", "surrogatepass")
    line = one_line(raw)
    if line is None:
        assert any("\ud800" <= mark <= "\udfff" for mark in text)
        return
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == answer


@pytest.mark.parametrize(
    "raw",
    [b"[1]", b" {}", b"\xef\xbb\xbf{}", '{"a":"b"}'.encode("utf-16"), b'{"a":"\xff"}', '{"a":1}'.encode("utf-16-le")],
)
def test_an_answer_in_another_form_has_to_be_written_anew(raw):
    assert one_line(raw) is None


@given(RECORDS)
def test_a_record_is_one_line_and_comes_back(record):
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert decode_record(line) == record
    assert prefix_of(line) == (record.key, record.state, record.hash)
    assert json.loads(line)["value"] == json.loads(record.value)


def test_a_record_that_an_older_version_has_written_with_fewer_counts_is_read():
    record = Record(1, OK, "0" * 32, None, 0, 1.5, 0.5, (), usage=Usage(5, 6, 11, 2))
    older = encode_record(record).replace(b',"reasoning_tokens":0,"cost":null', b"")
    assert b"reasoning" not in older
    assert decode_record(older) == record


@given(JSON)
def test_values_come_back(value):
    assert json.loads(encode_value(value)) == value


def test_half_a_surrogate_pair_from_a_server_is_kept():
    assert json.loads(encode_value("\ud83d")) == "\ud83d"


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_errors_come_back_with_their_facts(name):
    cls = getattr(errors, name)
    made = cls("what happened", attempts=2)
    if isinstance(made, APIError):
        made.status_code, made.code, made.retry_after, made.body = 418, "teapot", 1.5, {"error": {"message": "short"}}
    again = error_of(json.loads(json.dumps(error_facts(made))), 2)
    assert type(again) is cls
    assert vars(again) == vars(made)
    assert again.message == "what happened"


@pytest.mark.parametrize("name", ["NoSuchError", "Any", None])
def test_an_error_of_an_unknown_class_is_a_plain_one(name):
    assert type(error_of({"class": name, "message": "m"}, 1)) is ChatPoolError
