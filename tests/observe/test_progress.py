"""The bar on a terminal, and silence elsewhere."""

from __future__ import annotations

import io

import pytest

from chatpool.events import Event
from chatpool.observe.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def event(kind):
    return Event(kind, call_id=1, attempt=1, time=0.0)


def test_it_is_silent_where_nobody_looks(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert progress_bar(None, 3) is None


def test_it_shows_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = progress_bar(None, 3)
    bar(event("succeeded"))
    bar.close()
    assert "1/3" in terminal.getvalue()


@pytest.mark.parametrize("off", [False, {"disable": True}])
def test_it_can_be_switched_off(off):
    assert progress_bar(off, 3) is None


def test_tqdms_options_are_taken():
    shown = io.StringIO()
    bar = progress_bar({"file": shown, "desc": "translating"}, 2)
    bar(event("succeeded"))
    bar.close()
    assert "translating" in shown.getvalue()


def test_failures_and_retries_stand_behind_the_bar():
    shown = io.StringIO()
    bar = progress_bar({"file": shown, "mininterval": 0}, 3)
    for kind in ("retrying", "retrying", "failed", "succeeded"):
        bar(event(kind))
    bar.close()
    last = shown.getvalue().split("\r")[-1]
    assert "2/3" in last
    assert "failed=1" in last
    assert "retries=2" in last


def test_so_does_what_was_asked_again():
    terminal = io.StringIO()
    bar = progress_bar({"file": terminal, "mininterval": 0}, 1)
    for kind in ("reasking", "reasking", "succeeded"):
        bar(Event(kind, call_id=1, attempt=1, time=0.0))
    bar.close()
    assert "reasks=2" in terminal.getvalue()


def test_anything_else_is_a_type_error_that_names_the_parameter():
    with pytest.raises(TypeError, match="progress must be None, True, False or a dict"):
        progress_bar(7, 3)
