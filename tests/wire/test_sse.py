"""Server-sent events by the WHATWG's rules, however the bytes are split."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._wire.sse import BARE, ERROR, EventParser, ServerEvent


def parse(*pieces, **options):
    parser = EventParser(**options)
    return [event for piece in pieces for event in parser.feed(piece)]


def message(data):
    return ServerEvent("message", data)


def split_at(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:])]


def by_the_letter(body):
    """The standard's own algorithm, a line at a time over the whole text."""
    text = body.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)[:-1]
    events, name, data = [], "", ""
    for line in lines:
        if not line:
            if data:
                events.append(ServerEvent(name or "message", data[:-1]))
            name = data = ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
    return events


# The examples of the standard, "9.2.6 Interpreting an event stream", in form.
@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [message("first event"), message("second event"), message(" third event")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [message(""), message("\n")]),
        (b"data:test\n\ndata: test\n\n", [message("test"), message("test")]),
        (b"event: add\ndata: 7\n\nevent: remove\ndata: 8\n\n", [ServerEvent("add", "7"), ServerEvent("remove", "8")]),
    ],
)
def test_the_examples_of_the_standard(body, events):
    assert parse(body) == events


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_lines_end_in_three_ways(end):
    body = end.join([b"event: x", b"data: a", b"data: b", b"", b"data: c", b"", b""])
    assert parse(body) == [ServerEvent("x", "a\nb"), message("c")]


def test_line_ends_may_be_mixed():
    assert parse(b"data: a\r\ndata: b\n\rdata: c\r\n\n") == [message("a\nb"), message("c")]


def test_an_event_is_there_as_soon_as_its_blank_line_begins():
    parser = EventParser()
    assert parser.feed(b"data: a\r\n\r") == [message("a")]
    assert parser.feed(b"\ndata: b\r\n\r\n") == [message("b")]


def test_comments_other_fields_and_empty_events_are_nothing():
    assert parse(b": keep-alive\n\nid: 7\nretry: 10\nfoo: bar\nnothing\n\n\n\nevent: x\n\ndata: a\n\n") == [
        message("a")
    ]


def test_a_name_holds_for_one_event():
    assert parse(b"event: x\ndata: a\n\ndata: b\n\n") == [ServerEvent("x", "a"), message("b")]


def test_a_byte_order_mark_is_dropped_at_the_start_and_kept_elsewhere():
    mark = "\ufeff".encode()
    for pieces in ([mark + b"data: a\n\n"], [mark[:1], mark[1:2], mark[2:] + b"data: a\n\n"]):
        assert parse(*pieces) == [message("a")]
    assert parse(b"data: a\n\n" + mark + b"data: b\n\n") == [message("a")]
    assert parse(b"\xef", b"data: a\n\n") == []


def test_characters_may_be_split_over_reads():
    body = "data: é😀\n\n".encode()
    assert parse(*[body[place : place + 1] for place in range(len(body))]) == [message("é😀")]


def test_bytes_that_are_no_text_are_replaced():
    assert parse(b"data: a\xff\n\n") == [message("a\ufffd")]


def test_what_the_end_cuts_off_is_no_event_but_it_is_told():
    parser = EventParser()
    assert parser.feed(b"data: a\n\ndata: b\n") == [message("a")]
    assert parser.unfinished
    assert parser.end() == [message("b")]
    assert not parser.unfinished


def test_a_first_byte_that_is_no_mark_is_an_event_begun():
    parser = EventParser()
    parser.feed(b"d")
    assert parser.unfinished


@pytest.mark.parametrize("rest", [b"", b"\n", b": a comment", b": one\n: two\n"])
def test_a_comment_at_the_end_is_nothing_unfinished(rest):
    parser = EventParser()
    parser.feed(b"data: a\n\n" + rest)
    assert not parser.unfinished
    assert parser.end() == []


def test_a_huge_event_in_small_pieces_arrives_whole():
    text = "x" * 3_000_000
    body = f"data: {text}\n\n".encode()
    assert parse(*[body[start : start + 1000] for start in range(0, len(body), 1000)]) == [message(text)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_event_that_is_too_long_ends_it_all(size):
    body = b"data: fits\n\ndata: does not fit\n\ndata: fits\n\n"
    parser = EventParser(max_event_bytes=12)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == [message("fits")]
    assert parser.overflowed
    assert not parser.unfinished


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("newlines", [b"", b"\n", b"\n\n\n"])
def test_the_longest_event_is_as_long_as_was_said(is_split, newlines):
    body = newlines + b"data: 12345\n\n"
    pieces = split_at(body, range(len(body))) if is_split else [body]
    assert parse(*pieces, max_event_bytes=11) == [message("12345")]
    assert parse(*pieces, max_event_bytes=10) == []


def test_an_event_that_never_ends_is_not_kept():
    parser = EventParser(max_event_bytes=1000)
    for _ in range(2000):
        parser.feed(b"data: x\n")
    assert parser.overflowed
    assert parser.end() == []


LINES = [b"data: {}\n\n", b"data: a\r\n\r\n", b"data", b"event", b"id", b": ", b":", b" ", b"x", b"\xff", b"\0"]
ENDS = [b"\n", b"\n", b"\r", b"\r\n"]
TEXTS = [text.encode() for text in ("é😀", "\ufeff", "\u2028\x0b\x0c\x1c\x85")]
BITS = st.sampled_from(LINES + ENDS + TEXTS)
BODIES = st.lists(BITS, max_size=40).map(b"".join)
PLACES = st.lists(st.integers(min_value=0, max_value=10**6), max_size=12)


@given(BODIES)
def test_any_bytes_mean_what_the_standard_says(body):
    assert parse(body) == by_the_letter(body)


@given(BODIES, PLACES)
def test_any_split_gives_the_same_events(body, places):
    whole, parts = EventParser(), EventParser()
    events = whole.feed(body)
    assert [event for piece in split_at(body, places) for event in parts.feed(piece)] == events
    assert parts.unfinished == whole.unfinished
    assert parts.end() == whole.end()


@given(BODIES)
def test_a_byte_at_a_time_gives_the_same_events(body):
    assert parse(*split_at(body, range(len(body)))) == parse(body)


@given(BODIES, PLACES, st.integers(min_value=1, max_value=30))
def test_any_split_finds_the_same_event_too_long(body, places, longest):
    assert parse(*split_at(body, places), max_event_bytes=longest) == parse(body, max_event_bytes=longest)


@given(st.lists(st.tuples(st.sampled_from(["message", "error", "x.y"]), st.text(max_size=30)), max_size=8))
def test_what_is_written_is_read(said):
    lines = [
        line
        for name, text in said
        for line in (f"event: {name}", *(f"data: {part}" for part in re.split("\r\n|\n|\r", text)), "")
    ]
    body = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
    expected = [(name, re.sub("\r\n|\r", "\n", text).encode("utf-8", "replace").decode()) for name, text in said]
    assert parse(body) == expected


class TestSigns:
    """Signs of life that are no events."""

    def signs(self, *pieces):
        parser = EventParser()
        for piece in pieces:
            parser.feed(piece)
        return parser.signs

    @pytest.mark.parametrize(
        "piece",
        [b": keep-alive\n\n", b":\n", b":\r\n\r\n", b"event: ping\n\n", b"id: 1\n\n", b"retry: 5\r\n\r\n", b": "],
    )
    def test_a_comment_or_a_block_without_data_is_one(self, piece):
        assert self.signs(piece) > 0
        assert self.signs(b"data: x\n\n", piece) > 0

    @pytest.mark.parametrize("piece", [b"\n", b"\n\n", b"\r\n", b"data: x\n\n", b"data: :", b"data: a\ndata: b:c", b""])
    def test_blank_lines_events_and_their_parts_are_none(self, piece):
        assert self.signs(piece) == self.signs(b"data: x\n\n", piece) == 0

    def test_each_read_that_brings_one_counts_anew(self):
        assert self.signs(b": a\n\n") < self.signs(b": a\n\n", b": b\n\n") < self.signs(b": a\n\n", b": b\n\n", b":c\n")

    def test_a_comment_that_comes_byte_by_byte_does_not_count_for_ever(self):
        assert self.signs(*[b":"], *[b"x"] * 100) == 1


def test_a_field_called_error_is_an_event_of_that_name():
    assert list(EventParser().feed(b'error: {"a": 1}\n\n')) == [ServerEvent(ERROR, '{"a": 1}')]


def test_json_without_a_field_is_an_event_of_a_name_of_its_own():
    assert list(EventParser().feed(b'{"a":\n1}\n\n')) == [ServerEvent(BARE, '{"a":\n1}')]
