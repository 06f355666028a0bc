"""Parallel tool calls, told apart by index, id or name, whichever a server sends."""

from __future__ import annotations

import json

import pytest

from chatpool import ToolCallDelta
from chatpool._wire.accumulate import ToolCallAccumulator

ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo"}'
MISSING = object()


def piece(name=None, arguments=None, *, index=MISSING, id=MISSING):  # noqa: A002 - the API's own name for it
    marks = {name: value for name, value in (("index", index), ("id", id)) if value is not MISSING}
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**marks, "type": "function", "function": function}


def joined(*pieces, at_once=False):
    """Name and arguments of each call."""
    calls = ToolCallAccumulator()
    for deltas in [list(pieces)] if at_once else [[each] for each in pieces]:
        calls.add(deltas)
    return [(call["function"].get("name", ""), call["function"].get("arguments", "")) for call in calls.value()]


MARKS = [
    {},
    {"index": 0},
    {"index": None},
    {"index": 0, "id": ""},
    {"index": 0, "id": None},
    {"id": ""},
    {"index": "0", "id": ""},
]


@pytest.mark.parametrize("at_once", [False, True], ids=["one a chunk", "all in a chunk"])
@pytest.mark.parametrize("marks", MARKS)
class TestWithoutMarks:
    """Calls without an index of their own, and without an id."""

    def test_whole_calls_are_told_apart_by_their_arguments(self, marks, at_once):
        pieces = [piece("weather", text, **marks) for text in (ROME, OSLO, ROME)]
        assert joined(*pieces, at_once=at_once) == [("weather", text) for text in (ROME, OSLO, ROME)]

    def test_calls_of_two_functions_are_told_apart_by_their_names(self, marks, at_once):
        pieces = [piece("weather", ROME, **marks), piece("delete_file", OSLO, **marks)]
        assert joined(*pieces, at_once=at_once) == [("weather", ROME), ("delete_file", OSLO)]

    def test_calls_without_arguments_too(self, marks, at_once):
        pieces = [
            piece("a", "", **marks),
            piece("b", "", **marks),
            piece("b", "{}", **marks),
            piece("b", "{}", **marks),
        ]
        assert joined(*pieces, at_once=at_once) == [("a", ""), ("b", "{}"), ("b", "{}")]

    def test_arguments_in_pieces_go_on_with_their_call(self, marks, at_once):
        pieces = [
            piece("weather", "", **marks),
            piece(None, ROME[:5], **marks),
            piece(None, ROME[5:], **marks),
            piece("weather", OSLO[:7], **marks),
            piece(None, OSLO[7:], **marks),
        ]
        assert joined(*pieces, at_once=at_once) == [("weather", ROME), ("weather", OSLO)]

    def test_a_name_that_comes_with_every_piece_makes_no_calls(self, marks, at_once):
        pieces = [piece("weather", part, **marks) for part in ("", ROME[:5], ROME[5:8], ROME[8:], "")]
        assert joined(*pieces, at_once=at_once) == [("weather", ROME)]

    def test_a_nested_object_begins_no_call(self, marks, at_once):
        pieces = [piece("f", part, **marks) for part in ('{"a": ', '{"b": 1}', ', "c": {}', "}")]
        assert joined(*pieces, at_once=at_once) == [("f", '{"a": {"b": 1}, "c": {}}')]

    def test_arguments_may_be_the_object_itself(self, marks, at_once):
        pieces = [piece("weather", json.loads(text), **marks) for text in (ROME, OSLO)]
        assert joined(*pieces, at_once=at_once) == [("weather", ROME), ("weather", OSLO)]


def test_pieces_that_alternate_are_told_apart_by_their_ids():
    pieces = [piece("f", "", id="a"), piece("g", "", id="b"), piece(None, "[", id="a"), piece(None, "{}", id="b")]
    assert joined(*pieces, piece(None, "]", id="a")) == [("f", "[]"), ("g", "{}")]
    pieces = [{**each, "index": 0} for each in pieces]
    assert joined(*pieces, piece(None, "]", id="a", index=0)) == [("f", "[]"), ("g", "{}")]


def test_calls_of_one_id_are_told_apart_by_their_index():
    pieces = [piece("f", ROME[:3], id="f", index=0), piece("f", OSLO[:3], id="f", index=1)]
    rest = [piece(None, ROME[3:], index=0), piece(None, OSLO[3:], index=1)]
    assert joined(*pieces, *rest) == [("f", ROME), ("f", OSLO)]


def test_indices_may_begin_anywhere_and_leave_some_out():
    pieces = [piece("f", "{}", id="a", index=3), piece("g", "[", id="b", index=7), piece(None, "]", index=7)]
    assert joined(*pieces) == [("f", "{}"), ("g", "[]")]


def test_an_id_that_comes_again_is_that_of_the_same_call():
    assert joined(piece("f", ROME[:5], id="a"), piece("f", ROME[5:], id="a"), piece("f", "", id="a")) == [("f", ROME)]


def test_what_is_handed_out_names_a_call_once_and_by_its_place():
    calls = ToolCallAccumulator()
    handed = [calls.add([piece("f", part, index=0, id="")]) for part in (ROME, OSLO[:4], OSLO[4:])]
    assert [delta for deltas in handed for delta in deltas] == [
        ToolCallDelta(0, "", "f", ROME),
        ToolCallDelta(1, "", "f", OSLO[:4]),
        ToolCallDelta(1, "", "", OSLO[4:]),
    ]


def test_arguments_cut_in_a_character_are_mended():
    calls = ToolCallAccumulator()
    calls.add([piece("f", '{"a": "\ud83d', index=0)])
    [delta] = calls.add([piece(None, '\ude00"}', index=0)])
    assert delta.arguments == '\U0001f600"}'
    assert calls.value()[0]["function"]["arguments"] == '{"a": "\U0001f600"}'


@pytest.mark.parametrize("deltas", [None, 3, {}, ["x"], [{}], [{"function": 3}], [{"index": 1.5, "id": 3}]])
def test_nonsense_does_no_harm(deltas):
    calls = ToolCallAccumulator()
    calls.add(deltas)
    json.dumps(calls.value())
