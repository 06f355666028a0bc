"""Records for the tests of the journal."""

from __future__ import annotations

import pytest

from chatpool._journal import OK, Record, encode_value, key_of
from chatpool.types import Attempt


@pytest.fixture
def record():
    """``record(name, state=OK, body="", **changes)`` makes a record of a row of that name."""

    def make(name, state=OK, body="", value=None, **changes):
        hash_ = f"{key_of(body):032x}"
        attempts = (Attempt("ok", 200, None, 0.5, "req_1"),)
        made = Record(key_of(name), state, hash_, name, 0, 1.0, 0.5, attempts, value=encode_value(value))
        return made._replace(**changes)

    return make


@pytest.fixture
def hash_of_body():
    """The hash that ``record`` gives to a body."""
    return lambda body="": f"{key_of(body):032x}"
