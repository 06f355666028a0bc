"""Progress of runs of rows: a bar for people who look, lines for those who read a log."""

from __future__ import annotations

import io

import pytest

from chatpool._observe.progress import RowProgress
from chatpool.clock import install_clock
from chatpool.testing import FakeClock
from chatpool.types import Usage


@pytest.fixture
def clock():
    clock = FakeClock()
    previous = install_clock(clock)
    yield clock
    install_clock(previous)


@pytest.fixture
def said():
    return []


def test_a_line_a_minute_where_nobody_looks(monkeypatch, clock, said):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    progress = RowProgress(None, 1000, say=said.append)
    for number in range(240):
        clock.advance(0.5)
        progress.add(*((1, 0) if number % 60 else (0, 1)))
    assert said == [
        "120 of 1,000 rows, 2.0 rows/s, 2 failed, about 7 min left",
        "240 of 1,000 rows, 2.0 rows/s, 4 failed, about 6 min left",
    ]


def test_rows_done_before_do_not_count_for_the_rate(clock, said):
    progress = RowProgress(False, 100, say=said.append)
    progress.skip(50)
    clock.advance(10)
    progress.add(1)
    assert progress.line() == "51 of 100 rows, 0.1 rows/s, about 8 min left"


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "40 s"), (1, "2 min"), (100, "2 h 45 min")])
def test_the_time_left_is_for_people(clock, seconds, shown):
    progress = RowProgress(False, 100)
    clock.advance(seconds)
    progress.add(1)
    assert progress.line().endswith(f"about {shown} left")


def test_the_cost_so_far_is_shown(clock):
    progress = RowProgress(False, None, prices=(2.0, 8.0))
    clock.advance(1)
    progress.add(1, 0, Usage(1_000_000, 500_000, 1_500_000))
    assert progress.line() == "1 rows, 1.0 rows/s, $6.00"


def test_a_bar_shows_failures_and_cost(clock):
    shown = io.StringIO()
    progress = RowProgress({"file": shown, "mininterval": 0}, 3, prices=(1.0, 1.0))
    progress.add(1, 0, Usage(1_000_000))
    progress.add(0, 1)
    progress.close()
    last = shown.getvalue().split("\r")[-1]
    assert "2/3" in last
    assert "failed=1" in last
    assert "cost=$1.00" in last


def test_it_can_be_silent(clock, said):
    progress = RowProgress(False, 3, say=said.append)
    clock.advance(120)
    progress.add(1)
    progress.close()
    assert said == []


@pytest.mark.parametrize("off", [{"disable": True}])
def test_tqdms_way_of_saying_no_is_taken(clock, off):
    RowProgress(off, 3).add(True)
