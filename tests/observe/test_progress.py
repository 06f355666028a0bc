"""Progress of runs: a bar for people who look, lines for those who read a log, and silence elsewhere."""

from __future__ import annotations

import gc
import io
import logging
import subprocess
import sys
import threading

import pytest

from chatpool import BadRequestError, Budget, ChatPool
from chatpool._observe import progress as progress_module
from chatpool._observe.progress import RunProgress, run_progress
from chatpool._values import Waiting
from chatpool.events import Event
from chatpool.prices import Bill, prices_of
from chatpool.testing import Delay, Error, FakeServer, RateLimited
from chatpool.types import Usage


class Terminal(io.StringIO):
    def isatty(self):
        return True


class NoTicker:
    """Stands for the thread: the test ticks."""

    def __init__(self, tick):
        pass

    def close(self):
        pass


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setattr(progress_module, "Ticker", NoTicker)


@pytest.fixture
def said():
    return []


def event(kind, **fields):
    return Event(kind, call_id=1, attempt=1, time=0.0, **fields)


def nothing():
    return Waiting()


def last(shown):
    return shown.getvalue().split("\r")[-1]


# -- where it is shown -----------------------------------------------------------------------------------------------


def test_it_is_silent_where_nobody_looks(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert run_progress(None, 3) is None


def test_it_shows_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = run_progress(None, 3)
    progress.open(nothing)
    progress.advance(1)
    progress.close()
    assert "1/3" in terminal.getvalue()


@pytest.mark.parametrize("off", [False, {"disable": True}])
def test_it_can_be_switched_off(off, said):
    assert run_progress(off, 3, say=said.append) is None


def test_tqdms_options_are_taken():
    shown = io.StringIO()
    progress = run_progress({"file": shown, "desc": "translating"}, 2)
    progress.open(nothing)
    progress.close()
    assert "translating" in shown.getvalue()


def test_anything_else_is_a_type_error_that_names_the_parameter():
    with pytest.raises(TypeError, match="progress must be None, True, False or a dict"):
        run_progress(7, 3)


def test_where_the_log_takes_lines_a_run_writes_one_a_minute(monkeypatch, by_hand, fake_clock, caplog):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level(logging.INFO, "chatpool")
    progress = run_progress(None, 10)
    progress.open(nothing)
    progress.advance(3)
    fake_clock.advance(60)
    progress.tick()
    assert caplog.messages == ["3 of 10 calls, 0.1 calls/s, about 2 min left"]


# -- what the bar says -----------------------------------------------------------------------------------------------


def test_failures_retries_and_cost_stand_behind_the_bar():
    shown = io.StringIO()
    progress = run_progress({"file": shown}, 3, prices=prices_of((1.0, 1.0)))
    progress.open(nothing)
    for kind in ("retrying", "retrying", "reasking"):
        progress(event(kind))
    progress(event("succeeded", usage=Usage(1_000_000, 0, 1_000_000), model="m"))
    progress.advance(1, 1)
    progress.close()
    assert "2/3" in last(shown)
    assert "1 failed, 2 retried, 1 asked again, $1.00" in last(shown)


def test_the_bar_of_a_run_whose_iterator_is_dropped_is_closed_at_once(chatpool_pool, chatpool_server):
    closed = threading.Event()

    class Shown(io.StringIO):
        def write(self, text):
            if text == "\n":
                closed.set()
            return super().write(text)

    chatpool_server.set_script(Delay(0.02))
    gc.collect()
    gc.disable()  # which would close it, some time
    try:
        for _ in chatpool_pool.imap(["a"] * 100, progress={"file": Shown()}):
            break
        assert closed.wait(30)
    finally:
        gc.enable()


EXITS_WITH_AN_OPEN_BAR = """
from chatpool import ChatPool
from chatpool.testing import FakeServer

server = FakeServer()
replies = ChatPool("m", base_url=server.base_url).imap(["a", "b", "c"], progress=True)
print(next(replies).ok)
"""


def test_a_bar_that_is_open_when_the_program_ends_is_left_as_it_stands():
    program = [sys.executable, "-c", EXITS_WITH_AN_OPEN_BAR]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "True\n"
    assert "Exception ignored" not in ended.stderr
    assert ended.stderr.endswith("\n")


def test_where_a_run_is_stopped_the_bar_stays(chatpool_pool, chatpool_server):
    shown = io.StringIO()
    chatpool_server.set_script({"b": Error(400)})
    with pytest.raises(BadRequestError):
        chatpool_pool.map(["a", "b"] + ["c"] * 500, on_error="raise", progress={"file": shown})
    assert "1 failed" in last(shown)
    assert "502/502" not in last(shown)


def test_what_other_processes_repeat_and_ask_again_counts():
    progress = RunProgress({"file": io.StringIO()}, 3)
    progress(event("retrying"))
    progress.elsewhere.update(retried=4, reasked=2)
    assert progress.state() == {"retried": "5 retried", "asked again": "2 asked again"}


def test_why_the_run_waits_is_drawn_while_no_item_ends_and_gone_when_it_is_over(by_hand):
    shown, reason = io.StringIO(), ["server asks to wait 4 s"]
    progress = run_progress({"file": shown, "ncols": 90}, 30)
    progress.open(lambda: Waiting(reason[0], 3))
    progress._state_at -= 1
    progress.tick()
    assert "server asks to wait 4 s" in last(shown)
    reason[0] = None
    progress._state_at -= 1
    progress.tick()
    assert "server" not in last(shown)
    progress.close()


def test_the_bars_own_thread_draws_the_reason():
    drawn = threading.Event()

    class Shown(io.StringIO):
        def write(self, text):
            if "server down, probing" in text:
                drawn.set()
            return super().write(text)

    progress = run_progress({"file": Shown()}, 30)
    progress.open(lambda: Waiting("server down, probing"))
    assert drawn.wait(30)
    progress.close()


def test_calls_in_flight_are_told_once_none_has_ended_for_a_while(by_hand):
    progress = run_progress({"file": io.StringIO()}, 30)
    progress.open(lambda: Waiting(None, 16))
    assert progress.state() == {}
    progress._moved_at -= 10
    assert progress.state() == {"reason": "16 in flight"}
    progress.advance(1)
    assert progress.state() == {}
    progress.close()


def test_at_the_end_nothing_is_waited_for():
    shown = io.StringIO()
    progress = run_progress({"file": shown}, 2)
    progress.open(lambda: Waiting("server down, probing"))
    progress.advance(0, 2)
    progress.close()
    assert "2 failed" in last(shown)
    assert "server" not in last(shown)


# -- lines -----------------------------------------------------------------------------------------------------------


def rows(total, said=None, **options):
    progress = RunProgress(None, total, "row", say=None if said is None else said.append, **options)
    progress.open(nothing)
    return progress


def test_a_line_a_minute_where_nobody_looks(by_hand, fake_clock, said):
    progress = rows(1000, said)
    for number in range(240):
        fake_clock.advance(0.5)
        progress.advance(*((1, 0) if number % 60 else (0, 1)))
        progress.tick()
    assert said == [
        "120 of 1,000 rows, 2.0 rows/s, 2 failed, about 7 min left",
        "240 of 1,000 rows, 2.0 rows/s, 4 failed, about 6 min left",
    ]


def test_a_line_comes_although_no_row_ends_and_says_why(by_hand, fake_clock, said):
    progress = RunProgress(None, 10, "row", say=said.append)
    progress.open(lambda: Waiting("server down, probing", 1))
    fake_clock.advance(61)
    progress.tick()
    progress.tick()
    assert said == ["0 of 10 rows, 0.0 rows/s; server down, probing"]


def test_rows_done_before_do_not_count_for_the_rate(by_hand, fake_clock, said):
    progress = rows(100, said)
    progress.skip(50)
    fake_clock.advance(10)
    progress.advance(1)
    assert progress.line() == "51 of 100 rows, 0.1 rows/s, about 8 min left"


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "40 s"), (1, "2 min"), (100, "2 h 45 min")])
def test_the_time_left_is_for_people(by_hand, fake_clock, seconds, shown):
    progress = rows(100)
    fake_clock.advance(seconds)
    progress.advance(1)
    assert progress.line().endswith(f"about {shown} left")


def test_the_cost_so_far_is_shown(by_hand, fake_clock):
    bill = Bill(prices_of((2.0, 8.0)))
    progress = rows(None, bill=bill)
    fake_clock.advance(1)
    bill.add(Usage(1_000_000, 500_000, 1_500_000))
    progress.advance(1)
    assert progress.line() == "1 rows, 1.0 rows/s, $6.00"


# -- of a pool's runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def shown():
    return io.StringIO()


def test_every_item_counts_also_one_that_is_not_sent(shown):
    server = FakeServer(lambda request: Error(400) if request.prompt == "bad" else None)
    with server, ChatPool("m", base_url=server.base_url) as pool:
        pool.map(["a", "bad", 7], progress={"file": shown}, on_error="return")
    assert "3/3" in last(shown)
    assert "2 failed" in last(shown)


def test_so_does_one_that_the_journal_has(shown, tmp_path):
    with FakeServer() as server, ChatPool("m", base_url=server.base_url) as pool:
        pool.map(["a", "b"], journal=tmp_path / "j", progress=False)
        pool.map(["a", "b", "c"], journal=tmp_path / "j", progress={"file": shown})
        assert len(server.requests) == 3
    assert "3/3" in last(shown)


def test_the_bar_of_embeddings_has_retries_and_cost(shown):
    with FakeServer(script=[RateLimited(0.01)]) as server:
        budget = Budget(cost=100, prices={"e": 1000.0})
        with ChatPool("e", base_url=server.base_url, budget=budget) as pool:
            pool.embed(["a", "b"], progress={"file": shown})
    assert "2/2" in last(shown)
    assert "1 retried, $" in last(shown)


def test_the_bar_of_streams_counts_their_ends(shown):
    with FakeServer() as server, ChatPool("m", base_url=server.base_url) as pool:
        list(pool.stream_many(["one two three", "four five"], progress={"file": shown}))
    assert "2/2" in last(shown)


def test_a_run_that_waits_as_told_says_so():
    said = threading.Event()

    class Shown(io.StringIO):
        def write(self, text):
            if "server asks to wait" in text:
                said.set()
            return super().write(text)

    with FakeServer(script=[RateLimited(20)] * 50) as server, ChatPool("m", base_url=server.base_url) as pool:
        outcomes = pool.as_completed(["a"] * 20, progress={"file": Shown()})
        reader = threading.Thread(target=lambda: list(outcomes))
        reader.start()
        assert said.wait(30)
        assert "server asks to wait" in pool.stats().waits_for
        assert "server asks to wait" in pool.stats().lines[server.base_url, "m"].waits_for
        pool.shutdown(cancel_futures=True)
        reader.join(30)


def test_a_run_that_is_over_leaves_no_thread(shown):
    with FakeServer() as server, ChatPool("m", base_url=server.base_url) as pool:
        pool.map(["a"], progress={"file": shown})
        iterator = pool.imap(["a", "b"], progress={"file": shown})
        next(iterator)
        iterator.close()
    for thread in threading.enumerate():
        if thread.name == "chatpool-progress":
            thread.join(30)
            assert not thread.is_alive()
