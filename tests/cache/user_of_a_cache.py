"""A program: it uses a cache without end, until it is killed.

    python user_of_a_cache.py PATH NAME

It prints a line for each answer, once that is kept: the digest and the answer are made of NAME and the number on it.
"""

from __future__ import annotations

import hashlib
import itertools
import sys

from chatpool._cache import Store


def answer_of(digest: bytes) -> bytes:
    return b'{"answer":"%s"}' % digest.hex().encode() * 20


def digest_of(name: str, number: int) -> bytes:
    return hashlib.sha256(f"{name} {number}".encode()).digest()


def main() -> None:
    path, name = sys.argv[1:]
    store = Store(path)
    for number in itertools.count():
        digest = digest_of(name, number)
        store.keep([(digest, b"{}", answer_of(digest))], float(number + 1))
        print(number, flush=True)


if __name__ == "__main__":
    main()
