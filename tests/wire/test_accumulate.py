"""Texts and objects that come in pieces, wherever they were cut."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from chatpool._wire.accumulate import ObjectAccumulator, TextAccumulator

FACE = "\U0001f600"
HALVES = "\ud83d", "\ude00"


def shown(*pieces):
    """What each piece completes, and the whole text."""
    text = TextAccumulator()
    return [text.add(piece) for piece in pieces], str(text)


def test_a_pair_of_surrogates_cut_in_two_is_one_character():
    assert shown("a" + HALVES[0], HALVES[1] + "b") == (["a", FACE + "b"], f"a{FACE}b")


def test_empty_pieces_may_come_between_its_halves():
    assert shown(HALVES[0], "", HALVES[1]) == (["", "", FACE], FACE)


def test_one_after_another():
    first, second = HALVES
    assert shown(first, second + first, second) == (["", FACE, FACE], FACE + FACE)


def test_half_a_pair_without_the_other_is_left_as_it_is():
    assert shown("a" + HALVES[0], "b") == (["a", HALVES[0] + "b"], f"a{HALVES[0]}b")
    assert shown("a", HALVES[1]) == (["a", HALVES[1]], f"a{HALVES[1]}")
    assert shown(HALVES[0])[1] == HALVES[0]


@given(st.text(st.sampled_from(["a", "\xe9", "\u20ac", FACE, "\U0010ffff"])), st.lists(st.integers(0, 40), max_size=5))
def test_wherever_a_text_is_cut_its_pieces_make_it(text, cuts):
    units = text.encode("utf-16-le")
    places = sorted({min(2 * cut, len(units)) for cut in cuts} | {0, len(units)})
    pieces = [
        units[start:end].decode("utf-16-le", "surrogatepass") for start, end in zip(places, places[1:])
    ]  # as json.loads gives them
    parts, whole = shown(*pieces)
    assert whole == "".join(parts) == text
    assert all(part[-1] < "\ud800" or part[-1] > "\udbff" for part in parts if part)


def test_every_text_of_an_object_is_mended():
    accumulator = ObjectAccumulator()
    for half in HALVES:
        accumulator.add("reasoning", half)
        accumulator.add("audio", {"transcript": half})
    assert accumulator.value() == {"audio": {"transcript": FACE}, "reasoning": FACE}
    json.dumps(accumulator.value(), ensure_ascii=False).encode()
