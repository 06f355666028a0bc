"""The bar: its thread, the width of the terminal, and lines of the log."""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import signal
import threading
import warnings

import pytest
from tqdm import tqdm

from chatpool._observe import bar as bars
from chatpool._observe.bar import LiveBar, Ticker

EVERYTHING = {
    "reason": "server asks to wait 4 s",
    "failed": "3 failed",
    "retried": "12 retried",
    "asked again": "2 asked again",
    "cost": "$0.12",
}


class Written:
    """Stands for a terminal on which tqdm and a handler of the log write."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    @property
    def line(self):
        return self.text.split("\r")[-1].strip("\n")


def make_bar(terminal, **options):
    return LiveBar({"file": terminal, "total": 300, "unit": "call", **options})


def drawn(columns, state, count=12, **options):
    terminal = Written()
    bar = make_bar(terminal, ncols=columns, **options)
    bar._bar._time = lambda: bar._bar.start_t + 1  # so that the rate has always as many digits
    bar.advance(count)
    bar.draw(state)
    line = terminal.line
    bar.close({})
    return line.rstrip()


# -- width ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [8, 20, 30, 40, 50, 60, 70, 80, 100, 120, 200])
def test_the_line_is_never_wider_than_the_terminal_and_the_count_is_in_it(columns):
    line = drawn(columns, EVERYTHING)
    assert len(line) <= columns
    assert "12/300" in line


def test_with_room_enough_everything_is_there_and_the_graphics_fill_it():
    line = drawn(160, EVERYTHING)
    assert all(text in line for text in EVERYTHING.values())
    assert len(line) == 160


def test_the_least_important_goes_first():
    kept = [frozenset(name for name, text in EVERYTHING.items() if text in drawn(w, EVERYTHING)) for w in range(1, 160)]
    assert all(narrower <= wider for narrower, wider in zip(kept, kept[1:]))
    gone = [name for wider, narrower in zip(kept[::-1], kept[-2::-1]) for name in sorted(wider - narrower)]
    assert gone == ["asked again", "cost", "retried", "failed", "reason"]


def test_the_graphics_go_before_any_text():
    with_graphics = next(width for width in range(1, 160) if drawn(width, EVERYTHING).count("|") == 2)
    assert all(text in drawn(with_graphics - 1, EVERYTHING) for text in EVERYTHING.values())


def test_the_reason_is_cut_before_it_goes():
    assert drawn(27, {"reason": "server asks to wait 4 s"}) == "12/300 [server asks to...]"


@pytest.mark.parametrize(("desc", "columns"), [("translating", 70), ("日本語", 64)])
def test_a_description_stands_in_front(desc, columns):
    assert drawn(columns, {"failed": "1 failed"}, desc=desc).startswith(f"{desc}: ")


def test_without_a_total_the_items_are_counted():
    line = drawn(60, {"reason": "server down, probing"}, total=None)
    assert line.startswith("12call [")
    assert "server down, probing" in line


def test_a_form_of_the_users_own_is_kept():
    line = drawn(60, {"failed": "1 failed"}, bar_format="so far {n_fmt}{postfix}")
    assert line == "so far 12, 1 failed"


@pytest.mark.parametrize("size", [(0, 0), (-1, -1)])
def test_on_a_terminal_without_a_size_there_is_a_bar_of_usual_width(monkeypatch, handled, size):
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: size)
    terminal = Written()
    bar = make_bar(terminal)
    bar.draw({})
    drawn_line = terminal.line
    handled(Handler(terminal)).warning("a retry")
    bar.close({})
    assert "0/300" in drawn_line
    assert len(drawn_line) == 79
    assert "\r" + " " * 79 + "\rLOG a retry\n" in terminal.text


def test_the_width_is_followed(monkeypatch):
    terminal, width = Written(), [50]
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (width[0], 24))
    bar = make_bar(terminal)
    bar.draw(EVERYTHING)
    narrow = terminal.line
    width[0] = 120
    bar.draw(EVERYTHING)
    wide = terminal.line
    bar.close({})
    assert len(narrow) <= 50
    assert "12 retried" not in narrow
    assert "12 retried" in wide


def test_a_rate_of_long_ago_is_not_shown():
    terminal = Written()
    bar = make_bar(terminal, ncols=100)
    bar.advance(50)
    bar.draw({})
    bar._bar._ema_dn, bar._bar._ema_dt = lambda: 150.0, lambda: 1.0
    bar.draw({})
    assert "150.00call/s" in terminal.line
    bar._bar.start_t -= 100
    bar._bar.last_print_t -= 100
    bar.draw({})
    late = terminal.line
    bar.close({})
    assert "50/300" in late
    assert "150.00call/s" not in late


# -- counting and drawing ----------------------------------------------------------------------------------------------


def test_items_of_before_do_not_count_for_the_rate():
    terminal = Written()
    bar = make_bar(terminal)
    bar.skip(200)
    bar.advance(1)
    bar._bar.start_t -= 10
    bar.close({})
    assert "201/300" in terminal.line
    assert "10.0" in terminal.line  # seconds per call, not 20 calls a second


def test_a_reason_that_is_gone_is_wiped_off():
    terminal = Written()
    bar = make_bar(terminal, ncols=80)
    bar.draw({"reason": "server down, probing"})
    assert "probing" in terminal.line
    bar.draw({})
    bar.close({})
    assert "probing" not in terminal.text.split("\r")[-1]


def test_nothing_is_drawn_after_the_end():
    terminal = Written()
    bar = make_bar(terminal)
    bar.close({"failed": "1 failed"})
    before = terminal.text
    bar.draw({"reason": "server down, probing"})
    bar.close({})
    assert terminal.text == before
    assert "1 failed" in before


def test_a_bar_that_is_switched_off_by_tqdm_is_silent():
    terminal = io.StringIO()
    bar = make_bar(terminal, disable=None)  # tqdm's word for "not on a terminal": it is none
    bar.skip(1)
    bar.advance(1)
    bar.draw({"failed": "1 failed"})
    bar.close({})
    assert terminal.getvalue() == ""
    assert bar.state_seconds > 0


def test_a_terminal_that_takes_no_text_does_not_keep_a_run_from_ending(monkeypatch):
    monkeypatch.setattr(bars, "_WAIT_FOR_THREAD_SECONDS", 0.01)
    entered, go_on = threading.Event(), threading.Event()

    class Stopped(Written):
        def write(self, text):
            super().write(text)
            if "stuck" in text:
                entered.set()
                go_on.wait(30)

    terminal = Stopped()
    bar = make_bar(terminal)
    drawing = threading.Thread(target=bar.draw, args=({"reason": "stuck"},))
    drawing.start()
    assert entered.wait(30)
    bar.close({})
    assert drawing.is_alive()  # it was not waited for
    go_on.set()
    drawing.join()


class Gone(Written):
    """Stands for a terminal that is gone after its first line."""

    def __init__(self, error):
        super().__init__()
        self.error = None
        self._later = error

    def write(self, text):
        if self.error is not None:
            raise self.error
        super().write(text)
        if "\r" in text:
            self.error = self._later


TERMINAL_ERRORS = [BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.ENOSPC, "full"), ValueError("odd"), TypeError()]


@pytest.mark.parametrize("error", TERMINAL_ERRORS, ids=repr)
def test_a_terminal_that_is_gone_harms_no_thread_that_draws_logs_or_closes(error, handled):
    terminal, log = Gone(error), Written()
    bar = make_bar(terminal, mininterval=0)
    logger = handled(Handler(log))
    bar.advance(1)
    bar.draw({"failed": "1 failed"})
    bar.draw({"failed": "2 failed"})
    logger.warning("a retry")
    bar.close({})
    assert terminal.error is not None
    assert log.text == "LOG a retry\n"
    other, drawn_by_it = Written(), []  # tqdm's lock is free for other bars

    def draw():
        own = make_bar(other)
        own.close({})
        drawn_by_it.append(other.text)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    thread.join(30)
    assert drawn_by_it


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none", "closed"])
def test_without_a_stream_there_is_no_bar(monkeypatch, stream):
    if stream is not None:
        stream.close()
    monkeypatch.setattr("sys.stderr", stream)
    bar = LiveBar({"total": 3})
    bar.skip(1)
    bar.advance(1)
    bar.draw({"failed": "1 failed"})
    with bar.hidden():
        pass
    bar.close({})


def test_tqdm_hides_the_bar_for_what_the_user_writes():
    terminal = Written()
    bar = make_bar(terminal)
    tqdm.write("a line of the user's", file=terminal)
    assert "\ra line of the user's\n" in terminal.text
    bar.close({})


# -- the log -------------------------------------------------------------------------------------------------------


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
    bar = make_bar(terminal)
    bar.advance(1)

    def meanwhile():  # another thread's call ends, and the bar's thread draws, while the line is written
        bar.advance(1)
        other = threading.Thread(target=bar.draw, args=({"failed": "1 failed"},))
        other.start()
        other.join()

    logger = handled(Handler(terminal, meanwhile))
    logger.warning("a retry")
    before, _, after = terminal.text.partition("LOG a retry\n")
    assert before.endswith("\r")
    assert after.startswith("\r")
    assert "2/300" in after
    bar.close({})
    assert logger.filters == []
    logger.warning("behind it")
    assert terminal.text.count("LOG behind it\n") == 1


def test_a_line_of_the_log_stands_above_all_bars(handled):
    terminal = Written()
    upper, lower = make_bar(terminal, desc="upper"), make_bar(terminal, desc="lower")
    logger = handled(Handler(terminal))
    logger.warning("a retry")
    before, line, after = terminal.text.partition("LOG a retry\n")
    assert line
    assert before.count("upper") == before.count("lower") == 1
    assert "upper" in after
    assert "lower" in after
    for bar in (upper, lower):
        bar.close({})
    assert terminal.text.count(line) == 1


def test_a_bar_that_was_dropped_holds_up_no_line_and_no_filter_of_the_users(handled):
    terminal = Written()
    bar = make_bar(terminal)
    logger, seen = handled(Handler(terminal)), []

    def users_own(record):
        seen.append(record.getMessage())
        return True

    logger.addFilter(users_own)
    try:
        del bar
        gc.collect()
        assert logger.filters == [users_own]
        logger.warning("a line")
    finally:
        logger.removeFilter(users_own)
    assert "LOG a line\n" in terminal.text
    assert seen == ["a line"]


# -- the thread ----------------------------------------------------------------------------------------------------


class Ticked:
    """Counts ticks; ``act`` runs in each."""

    def __init__(self, act=lambda: None):
        self.ticked = threading.Event()
        self._act = act
        self.ticker = Ticker(self.tick, 0.001)
        self.thread = self.ticker._thread

    def tick(self):
        self.ticked.set()
        self._act()


def test_it_ticks_by_itself_until_it_is_closed():
    ticked = Ticked()
    assert ticked.ticked.wait(30)
    ticked.ticker.close()
    ticked.ticker.close()
    ticked.thread.join(30)
    assert not ticked.thread.is_alive()


def test_its_thread_ends_with_the_object():
    ticked = Ticked()
    thread = ticked.thread
    assert thread.daemon
    del ticked
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_its_thread_ends_at_the_first_error():
    def fail():
        raise ValueError("I/O operation on closed file")

    ticked = Ticked(fail)
    ticked.thread.join(30)
    assert not ticked.thread.is_alive()
    ticked.ticker.at_exit()


def test_at_exit_no_thread_is_left_drawing():
    ticked = Ticked()
    assert ticked.ticked.wait(30)
    bars._at_exit()
    assert not ticked.thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_leaves_the_bar_to_its_parent():
    terminal = io.StringIO()
    bar = make_bar(terminal)
    entered, go_on = threading.Event(), threading.Event()

    def hold():  # a thread that draws, holding every lock there is, while the process forks
        with bar._lock, bar._bar.get_lock():
            entered.set()
            go_on.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
    if child == 0:
        signal.alarm(30)  # it would hang for ever otherwise
        written = terminal.getvalue()
        bar.draw({"reason": "x"})
        bar.close({})
        own = make_bar(terminal, leave=False)  # tqdm can be used there
        own.close({})
        os._exit(0 if terminal.getvalue().startswith(written) and not bar._bar.n else 1)
    _, status = os.waitpid(child, 0)
    go_on.set()
    thread.join()
    bar.close({})
    assert status == 0
