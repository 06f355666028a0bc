"""A map from 64-bit digests to 64-bit numbers in little memory: about 20 bytes an entry, a dict needs 150."""

from __future__ import annotations

from array import array
from typing import Iterator, List, Tuple

__all__ = ["DigestTable"]

_PARTS = 256  # each grows by itself, so that growing never needs twice the memory
_SHIFT = 64 - 8
_START = 8
_FULLEST = 0.85
_GROWTH = 1.18


class _Part:
    """One open-addressed table; 0 is no key."""

    __slots__ = ("keys", "room", "values")

    def __init__(self, size: int) -> None:
        self.keys = array("Q", bytes(8 * size))
        self.values = array("Q", bytes(8 * size))
        self.room = int(size * _FULLEST)

    def place(self, key: int) -> int:
        """Where ``key`` is, or where it would go."""
        keys = self.keys
        size = len(keys)
        place = key % size
        while True:
            found = keys[place]
            if found == key or not found:
                return place
            place += 1
            if place == size:
                place = 0


class DigestTable:
    """Maps keys other than 0 to numbers; both have 64 bits."""

    def __init__(self) -> None:
        self._parts: List[_Part] = [_Part(_START) for _ in range(_PARTS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> int:
        """The key's number, 0 without one."""
        part = self._parts[key >> _SHIFT]
        return part.values[part.place(key)]

    def __contains__(self, key: int) -> bool:
        part = self._parts[key >> _SHIFT]
        return part.keys[part.place(key)] == key

    def items(self) -> Iterator[Tuple[int, int]]:
        """Every key with its number, in any order."""
        for part in self._parts:
            for key, value in zip(part.keys, part.values):
                if key:
                    yield key, value

    def __setitem__(self, key: int, value: int) -> None:
        self.change(key, 0, value)

    def change(self, key: int, kept: int, value: int) -> int:
        """Keep those bits of the key's number that are set in ``kept``, and set those of ``value``.

        Returns:
            The number before, 0 without one.
        """
        part = self._parts[key >> _SHIFT]
        keys = part.keys
        place = key % len(keys)
        if keys[place] != key:
            place = part.place(key) if keys[place] else place
            if keys[place] != key:
                part, place = self._added(part, key, place)
        before = part.values[place]
        part.values[place] = before & kept | value
        return before

    def _added(self, part: _Part, key: int, place: int) -> Tuple[_Part, int]:
        """Put a new key there; where it is then."""
        if not part.room:
            part = self._parts[key >> _SHIFT] = _grown(part)
            place = part.place(key)
        part.keys[place] = key
        part.room -= 1
        self._count += 1
        return part, place


def _grown(old: _Part) -> _Part:
    new = _Part(int(len(old.keys) * _GROWTH) + 1)
    for key, value in zip(old.keys, old.values):
        if key:
            place = new.place(key)
            new.keys[place], new.values[place] = key, value
            new.room -= 1
    return new
