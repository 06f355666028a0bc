"""The map from digests to numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatpool._journal.digest_table import DigestTable

KEYS = st.one_of(st.integers(1, 2**64 - 1), st.integers(1, 40), st.integers(2**64 - 40, 2**64 - 1))


@given(st.lists(st.tuples(KEYS, st.integers(0, 2**64 - 1))))
def test_it_maps_as_a_dict_does(pairs):
    table, known = DigestTable(), {}
    for key, value in pairs:
        table[key] = value
        known[key] = value
    assert len(table) == len(known)
    assert all(table.get(key) == value and key in table for key, value in known.items())
    assert all((key in table) == (key in known) for key in range(1, 50))


def test_many_entries_take_little_more_than_their_16_bytes():
    table = DigestTable()
    for number in range(1, 100_001):
        table[number * 0x9E3779B97F4A7C15 % 2**64] = number
    size = sum(len(part.keys) * 16 for part in table._parts)
    assert size < 24 * 100_000
    assert table.get(5 * 0x9E3779B97F4A7C15 % 2**64) == 5
