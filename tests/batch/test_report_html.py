"""The report as a page: what is on it, and what it needs."""

from __future__ import annotations

import re

import pytest

import chatpool
from chatpool.batch.report import Report
from chatpool.batch.svg_plots import Axis, Bars, Line, Marker, draw, draw_by_name
from chatpool.prices import Bill, prices_of
from chatpool.testing import Delay, Error


@pytest.fixture
def page_of(write_rows, chatpool_server, tmp_path, instant_waits):
    """``page_of(count, script)`` runs so many rows and returns the page of their report."""

    def make(count, script=None, *faults):
        chatpool_server.set_script(script)
        chatpool_server.enqueue(*faults)
        target = tmp_path / "out.jsonl"
        chatpool.batch.run(write_rows(count), target, base_url=chatpool_server.base_url, max_workers=4, progress=False)
        return chatpool.batch.report(target, prices=(20, 80)).html()

    return make


def test_it_shows_numbers_plots_latencies_and_the_first_failures(page_of):
    page = page_of(40, lambda request: Error(400, code="odd") if request.prompt.endswith("7") else None, Error(503))
    for words in ("36", "rows failed 10.0 %", "Throughput", "HTTP 400 odd: 4", "p99", "attempts that were made again"):
        assert words in page
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC to ", page)
    assert re.findall(r"<td>(r\d+|row \d+|[^<]*7)</td><td>HTTP 400 Bad Request", page)
    assert page.count("<svg") == 5


def test_of_many_failures_five_are_shown(page_of):
    page = page_of(30, lambda request: Error(400))
    assert page.count("<td>HTTP 400 Bad Request") == 5
    assert "The first rows that failed" in page


@pytest.mark.slow
def test_it_is_small_and_needs_nothing_else(page_of):
    page = page_of(500, lambda request: Delay(0.0))
    assert len(page.encode()) < 150_000
    assert "<script" not in page
    assert not re.findall(r"(?:src|href|url\()", page)


def test_it_tells_with_which_options_the_run_was_made(page_of):
    page = page_of(3)
    for name, value in (("max_workers", "4"), ("timeout", "connect 5, attempt 600, total 1,800")):
        assert f"<td>{name}</td><td>{value}</td>" in page
    assert re.search(r"<td>base_url</td><td>http://127.0.0.1:\d+/v1</td>", page)
    assert "(at most 4)" in page


def test_of_several_runs_it_tells_what_was_different():
    report = Report("out.jsonl", succeeded=1)
    report.runs = [(1e9, {"model": "m", "max_workers": 8}), (2e9, {"model": "m", "retry": {"max_retries": 2}})]
    page = report.html()
    assert "<td>model</td><td>m</td>" in page
    assert "<td>max_workers</td><td>8, then none</td>" in page
    assert "<td>retry</td><td>none, then max_retries 2</td>" in page
    assert "2001-09-09 01:46:40 UTC, the last 2033-05-18 03:33:20 UTC" in page


def test_whole_numbers_among_the_options_are_shown_whole():
    report = Report("out.jsonl", succeeded=1)
    report.runs = [(1e9, {"parameters": {"seed": 12345678901234, "top_p": 0.1}, "max_workers": 10**400})]
    page = report.html()
    assert "<td>parameters</td><td>seed 12,345,678,901,234, top_p 0.1</td>" in page
    assert len(page) < 10_000


def test_options_in_a_journal_of_somebody_else_do_no_harm():
    report = Report("out.jsonl", succeeded=1)
    report.runs = [(1e300, {HOSTILE: HOSTILE, "max_workers": "many", "deep": [[{"a": HOSTILE * 1000}]]})]
    page = report.html()
    assert "<script" not in page
    assert len(page) < 10_000


def test_however_much_is_in_the_files_the_page_is_small():
    report = Report("out.jsonl")
    for number in range(2000):
        report.add_failure(HOSTILE * 10_000, f"{number} {HOSTILE * 100}", HOSTILE * 10_000, "change it")
        report.add_answer({"model": f"{number} {HOSTILE * 100}"})
    report.runs = [(number, {f"{option} {HOSTILE}": HOSTILE * 99 for option in range(99)}) for number in range(20)]
    assert len(report.html().encode()) < 150_000
    assert len(repr(report)) < 300


def test_a_cost_that_is_not_of_all_says_so():
    report = Report("out.jsonl", bill=Bill(prices_of({"a": (1, 1)})))
    for model in ("a", "b"):
        report.add_answer({"model": model, "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}})
    assert "cost; no price for b" in report.html()
    assert "$1.00" in report.html()


HOSTILE = '</title><script>alert(1)</script>"\x1b[31m'


def test_words_of_a_server_are_text(page_of):
    page = page_of(3, lambda request: Error(400, HOSTILE, code=HOSTILE))
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_a_report_without_a_journal_has_no_times():
    report = Report("out.jsonl", succeeded=3)
    report.add_failure("a", "HTTP 500", "Internal Server Error; try again")
    page = report.html()
    assert "Latency" not in page
    assert "try again" in page


def test_an_empty_report_is_a_page():
    assert "<h1>Run out.jsonl</h1>" in Report("out.jsonl").html()


class TestPlots:
    def test_bars_stand_on_one_another_and_the_axis_reaches_above_them(self):
        drawn = draw(Axis(0, 2, "seconds"), "rows", [Bars([3, 0], "good", "ok"), Bars([4, 1], "bad", "failed")])
        heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', drawn)]
        assert heights[0] / heights[1] == pytest.approx(3 / 4, rel=0.01)
        assert len(heights) == 3  # none for nothing
        assert re.findall(r'text-anchor="end">(\d+)</text>', drawn) == ["0", "2", "4", "6", "8"]
        assert drawn.count("<i class=") == 2

    def test_a_line_at_the_right_has_an_axis_of_its_own(self):
        lines = [
            Line([100, 50], "good", "in flight", is_area=True),
            Line([0.1, 0.2], "warn", "again", on_the_right=True),
        ]
        drawn = draw(Axis(0, 2, "s"), "requests", lines=lines)
        assert "0.05" in drawn
        assert drawn.count("<path") == 3

    @pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [1e-9], [1e12, 3.0], [0.3] * 500])
    def test_any_values_can_be_drawn(self, values):
        drawn = draw(Axis(0, len(values), "s"), "n", [Bars(values, "good", "n")], markers=[Marker(0.5, "p50")])
        assert "nan" not in drawn
        assert len(re.findall('text-anchor="end">', drawn)) <= 9

    def test_a_long_name_is_cut_where_it_is_drawn_and_whole_in_its_tooltip(self):
        drawn = draw_by_name([("x" * 100, 3), ("y", 1)], "bad", "rows")
        assert f"<title>{'x' * 100}: 3</title>" in drawn
        assert f">{'x' * 39}…</text>" in drawn
