"""Modules that are told apart by their names when a finalizer or a signal handler calls."""

from __future__ import annotations

import importlib.util

import pytest

from chatpool import _reentrancy


@pytest.mark.parametrize("prefix", _reentrancy._CALLERS)
def test_modules_that_call_as_a_user_does_exist(prefix):
    assert importlib.util.find_spec(prefix.rstrip(".")) is not None
