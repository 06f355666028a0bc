"""The bar on a terminal, and silence elsewhere."""

from __future__ import annotations

import gc
import io
import logging
import threading

import pytest

from chatpool._observe.progress import RowProgress, progress_bar
from chatpool.events import Event


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


class Written:
    """Stands for a terminal on which tqdm and a handler of the log write."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


class Handler(logging.Handler):
    """Writes lines to the terminal."""

    def __init__(self, terminal, meanwhile=lambda: None):
        super().__init__()
        self._terminal = terminal
        self._meanwhile = meanwhile

    def emit(self, record):
        self._meanwhile()
        self._terminal.write(f"LOG {record.getMessage()}\n")


@pytest.fixture
def handled():
    """``handled(handler)`` adds it to the library's log for the test."""
    logger, added = logging.getLogger("chatpool"), []

    def add(handler):
        logger.addHandler(handler)
        added.append(handler)
        return logger

    yield add
    for handler in added:
        logger.removeHandler(handler)


def test_a_line_of_the_log_stands_on_a_line_of_its_own(handled):
    terminal = Written()
    bar = progress_bar({"file": terminal, "total": 3, "mininterval": 0}, 3)
    bar(event("succeeded"))

    def meanwhile():  # another thread's call ends while the line is written
        other = threading.Thread(target=bar, args=(event("failed"),))
        other.start()
        other.join()

    logger = handled(Handler(terminal, meanwhile))
    logger.warning("a retry")
    before, _, after = terminal.text.partition("LOG a retry\n")
    assert before.endswith("\r")
    assert after.startswith("\r")
    assert "2/3" in after
    bar.close()
    assert logger.filters == []
    logger.warning("behind it")
    assert terminal.text.count("LOG behind it\n") == 1


def test_a_bar_that_was_dropped_holds_up_no_line(handled):
    terminal = Written()
    bar = progress_bar({"file": terminal}, 3)
    bar.open()
    logger = handled(Handler(terminal))
    del bar
    gc.collect()
    logger.warning("a line")
    assert "LOG a line\n" in terminal.text
    assert logger.filters == []


def test_rows_make_room_too(handled):
    terminal = Written()
    progress = RowProgress({"file": terminal, "mininterval": 0}, 3)
    handled(Handler(terminal)).warning("a warning")
    assert terminal.text.partition("LOG")[0].endswith("\r")
    progress.add(1)
    progress.close()
    assert "1/3" in terminal.text
