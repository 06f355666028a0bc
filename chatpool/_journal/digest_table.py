"""Map from 64-bit digests to 64-bit numbers in little memory: about 20 bytes an entry, where a dict needs 150."""

from __future__ import annotations

from array import array
from typing import Iterator, List, Tuple

__all__ = ["DigestTable"]

_PART_COUNT = 256  # each part grows by itself, so that growing never needs twice the memory
_PART_SHIFT_BITS = 64 - 8
_INITIAL_SLOTS = 8
_MAX_LOAD_RATIO = 0.85
_GROWTH_RATIO = 1.18


class DigestTable:
    """Maps keys other than 0 to numbers; both have 64 bits."""

    def __init__(self) -> None:
        self._parts: List[_Part] = [_Part(_INITIAL_SLOTS) for _ in range(_PART_COUNT)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> int:
        """Return the key's number, 0 without one."""
        part = self._parts[key >> _PART_SHIFT_BITS]
        return part.values[part.slot_of(key)]

    def __contains__(self, key: int) -> bool:
        part = self._parts[key >> _PART_SHIFT_BITS]
        return part.keys[part.slot_of(key)] == key

    def items(self) -> Iterator[Tuple[int, int]]:
        """Yield every key with its number, in any order."""
        for part in self._parts:
            for key, value in zip(part.keys, part.values):
                if key:
                    yield key, value

    def __setitem__(self, key: int, value: int) -> None:
        self.update(key, 0, value)

    def update(self, key: int, kept_bits: int, value: int) -> int:
        """Keep those bits of the key's number that are set in ``kept_bits``, and set those of ``value``.

        Returns:
            The number before, 0 without one.
        """
        part = self._parts[key >> _PART_SHIFT_BITS]
        keys = part.keys
        slot = key % len(keys)
        if keys[slot] != key:
            slot = part.slot_of(key) if keys[slot] else slot
            if keys[slot] != key:
                part, slot = self._insert(part, key, slot)
        before = part.values[slot]
        part.values[slot] = before & kept_bits | value
        return before

    def _insert(self, part: _Part, key: int, slot: int) -> Tuple[_Part, int]:
        """Put a new key into the slot; return where it is, as the part may have to grow."""
        if not part.free_slots:
            part = self._parts[key >> _PART_SHIFT_BITS] = _grown(part)
            slot = part.slot_of(key)
        part.keys[slot] = key
        part.free_slots -= 1
        self._count += 1
        return part, slot


class _Part:
    """One open-addressed table; 0 is no key."""

    __slots__ = ("free_slots", "keys", "values")

    def __init__(self, size: int) -> None:
        self.keys = array("Q", bytes(8 * size))
        self.values = array("Q", bytes(8 * size))
        self.free_slots = int(size * _MAX_LOAD_RATIO)

    def slot_of(self, key: int) -> int:
        """Return the slot of ``key``, or the one that it would go into."""
        keys = self.keys
        size = len(keys)
        slot = key % size
        while True:
            stored = keys[slot]
            if stored == key or not stored:
                return slot
            slot += 1
            if slot == size:
                slot = 0


def _grown(old: _Part) -> _Part:
    new = _Part(int(len(old.keys) * _GROWTH_RATIO) + 1)
    for key, value in zip(old.keys, old.values):
        if key:
            slot = new.slot_of(key)
            new.keys[slot], new.values[slot] = key, value
            new.free_slots -= 1
    return new
