"""From stored measurements to RESULTS.md."""

from __future__ import annotations

import json
import xml.etree.ElementTree

import pytest

from benchmarks import growth, growth_plot, store
from benchmarks.__main__ import main
from benchmarks.measure import spread
from benchmarks.overrun import read_report
from benchmarks.registry import BENCHMARKS, chosen
from benchmarks.tables import Bound, Table, bounds_table, markdown

IMPORTS = [
    {"round": turn, "imports": names, "wall": wall, "cpu": wall, "modules": 300}
    for turn in range(2)
    for names, wall in (("requests, tenacity, tqdm", 0.1), ("chatpool", 0.12), ("openai", 0.9))
]


def cost_samples():
    contenders = {"urllib3": 0.5, "chatpool": 0.55, "aiohttp": 0.3, "openai": 2.5}
    return [
        {"round": turn, "server": server, "workers": 64, "contender": name, "calls": 1000, "cpu": cpu, "wall": 1.0}
        for turn in range(2)
        for server in ("fast", "50 ms")
        for name, cpu in contenders.items()
    ]


def table_titles(tables):
    return [table.title for table in tables]


def test_a_table_is_markdown():
    text = markdown(Table("Title", ("a", "b"), [["x|y", "1"]], "A note."))
    assert text == "### Title\n\nA note.\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"


@pytest.mark.parametrize(
    ("measured", "limit", "at_least", "kept"),
    [(1.1, 1.15, False, True), (1.2, 1.15, False, False), (1.2, 1.15, True, True), (1.1, 1.15, True, False)],
)
def test_a_bound_is_kept_or_not(measured, limit, at_least, kept):
    bound = Bound("what", spread([measured]), limit, at_least=at_least)
    assert bound.kept is kept
    assert ("**no**" in bounds_table([bound]).rows[0]) is not kept


def test_the_import_report_shows_the_ratio_to_what_it_is_made_of():
    (times,) = chosen(["import"])[0].tables(IMPORTS)
    assert len(times.rows) == 3
    (row,) = (row for row in times.rows if row[0] == "`import chatpool`")
    assert "1.20 (1.20 - 1.20)" in row


def test_the_cost_report_has_the_bounds_and_a_table_for_each_server():
    tables = chosen(["cost"])[0].tables(cost_samples())
    assert table_titles(tables) == [
        "Bounds",
        "CPU per call: fast",
        "Calls per second: fast",
        "CPU per call: 50 ms",
        "Calls per second: 50 ms",
    ]
    against = {row[0]: row[2] for row in tables[0].rows}
    assert against["CPU: `pool.map` over urllib3; fast, 64 in flight"] == "1.10 (1.10 - 1.10)"
    assert against["CPU: `pool.map` over openai; fast, 64 in flight"] == "0.22 (0.22 - 0.22)"


def interpreter_samples(*names):
    cpu = {"urllib3": 0.4, "transport": 0.3, "chatpool": 0.5}
    return [
        {
            "round": turn,
            "interpreter": name,
            "workers": workers,
            "contender": contender,
            "calls": 1000,
            "cpu": cpu[contender] * (1 + workers / 100),
            "wall": 2.0 if name == "3.13 with the lock" else 1.0,
            "line_by_line": 1.0 if contender == "urllib3" else 0.25,
            "python": "3.13.5",
            "lock": name != "3.13 without the lock",
        }
        for turn in range(2)
        for name in names
        for workers in (1, 16, 64)
        for contender in cpu
    ]


def test_the_interpreters_report_bounds_what_threads_cost_without_the_lock():
    samples = interpreter_samples("this one", "3.13 with the lock", "3.13 without the lock")
    bounds, facts, cpu, rates = chosen(["interpreters"])[0].tables(samples)
    assert [row[1:] for row in bounds.rows] == [
        ["at most 1.3", "1.15 (1.15 - 1.15)", "yes"],
        ["at most 1.3", "1.62 (1.62 - 1.62)", "**no**"],
        ["at least 1", "2.00 (2.00 - 2.00)", "yes"],
        ["at least 1", "2.00 (2.00 - 2.00)", "yes"],
    ]
    assert facts.rows[-1] == ["3.13 without the lock", "3.13.5", "no", "75.0%"]
    assert [len(table.rows) for table in (cpu, rates)] == [9, 9]
    assert cpu.rows[2][2] == "1.25 (1.25 - 1.25); 0.51 ms"


def test_the_interpreters_report_does_without_those_that_cannot_be_had():
    assert table_titles(chosen(["interpreters"])[0].tables(interpreter_samples("this one"))) == [
        "Interpreters",
        "CPU per call",
        "Calls per second",
    ]


def test_the_streaming_report_shows_each_reader_over_openais_that_makes_the_same():
    samples = [
        {"what": "parsing", "round": turn, "reader": reader, "read": "16 KiB", "chunks": 1000, "cpu": cpu}
        for turn in range(2)
        for reader, cpu in (("chatpool", 0.01), ("openai", 0.1), ("chatpool-events", 0.002), ("openai-events", 0.005))
    ]
    bounds, rates = chosen(["streaming"])[0].tables(samples)
    assert bounds.rows[0][1:] == ["at least 20,000", "100,000 (100,000 - 100,000)", "yes"]
    assert [(row[0], row[1], row[-1][:4]) for row in rates.rows] == [
        ("chunks", "chatpool", "10.0"),
        ("chunks", "openai", "1.0 "),
        ("events", "chatpool", "2.5 "),
        ("events", "openai", "1.0 "),
    ]


def test_the_streaming_report_compares_first_chunks_with_bare_urllib3():
    taken = {"urllib3": 0.001, "chatpool": 0.0015, "openai": 0.004}
    samples = [
        {
            "what": what,
            "round": turn,
            "client": client,
            "streams": 2,
            "chunks": 50,
            "first": first,
            "slow": 1,
            "cpu": first,
        }
        for turn in range(2)
        for what in ("first token", "reading")
        for client, first in taken.items()
    ]
    bounds, first, reading, _ = chosen(["streaming"])[0].tables(samples)
    assert bounds.rows == [["first chunk: milliseconds after bare urllib3", "at most 1", "0.50 (0.50 - 0.50)", "yes"]]
    assert [row[-1] for row in first.rows] == ["0.00 (0.00 - 0.00)", "0.50 (0.50 - 0.50)", "3.00 (3.00 - 3.00)"]
    assert [row[-1] for row in reading.rows] == ["4.0 (4.0 - 4.0)", "2.7 (2.7 - 2.7)", "1.0 (1.0 - 1.0)"]


def test_the_streaming_report_shows_how_late_relayed_chunks_are():
    samples = [
        {"what": "relay", "round": turn, "client": client, "streams": 200, "chunks": 60, "pause": 0.1, **taken}
        for turn in range(2)
        for client, taken in (
            ("urllib3", {"cpu": 2.0, "late": 0.001, "latest": 0.01}),
            ("chatpool", {"cpu": 3.0, "late": 0.0015, "latest": 0.02}),
        )
    ]
    relayed = next(table for table in chosen(["streaming"])[0].tables(samples) if "relayed" in table.title)
    assert "2,000 a second" in relayed.note
    assert relayed.rows[1][1:] == [
        "4.0 (4.0 - 4.0)",
        "1.50 (1.50 - 1.50)",
        "1.50 (1.50 - 1.50)",
        "20.00 (20.00 - 20.00)",
        "0.50 (0.50 - 0.50)",
    ]


def test_the_embeddings_report_compares_each_client_with_its_own_decoder():
    taken = {"decoder": 1.0, "chatpool": 1.1, "decoder+orjson": 0.2, "chatpool+orjson": 0.3}
    samples = [
        {"round": turn, "client": client, "vectors": 1000, "cpu": cpu, "wall": cpu, "peak_rss_kb": 1024}
        for turn in range(2)
        for client, cpu in taken.items()
    ]
    bounds, rows = chosen(["embeddings"])[0].tables(samples)
    assert [row[2:] for row in bounds.rows] == [["1.10 (1.10 - 1.10)", "yes"], ["1.50 (1.50 - 1.50)", "**no**"]]
    assert [row[1] for row in rows.rows][:2] == ["1,000 (1,000 - 1,000)", "909 (909 - 909)"]


def growth_samples():
    return [
        {"grows": grows, "workers": workers, "calls": calls, "client": client, "wall": wall, "cpu": wall, **other}
        for other in [{"round": 0, "lost": 0, "peak_rss_kb": 51_200}]
        for grows, workers, calls, client, wall in (
            ("calls", 64, 10_000, "chatpool", 4.0),
            ("calls", 64, 1_000_000, "chatpool imap", 400.0),
            ("workers", 64, 10_000, "chatpool", 8.0),
            ("workers", 64, 10_000, "aiohttp", 10.0),
        )
    ]


def test_the_growth_report_has_a_table_for_each_thing_that_grows():
    by_calls, by_workers = chosen(["growth"])[0].tables(growth_samples())
    assert by_calls.rows[1] == ["1,000,000", "**chatpool** `pool.imap`", "400.0", "2,500", "0.40", "50", "0"]
    assert by_workers.rows[0][:4] == ["64", "**chatpool** `pool.map`", "1.02", "1,250"]


def test_what_grows_is_drawn_as_a_line_for_each_client():
    drawn = growth_plot.draw(growth._points(growth_samples()))
    shapes = xml.etree.ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}polyline")
    lines = [shape.get("points").split() for shape in shapes]
    assert [len(points) for points in lines] == [2, 1, 1]
    first, last = (tuple(map(float, point.split(","))) for point in lines[0])
    assert first[0] < last[0]
    assert first[1] > last[1]  # more calls take longer: further right, and higher up


def test_the_overrun_report_is_read_from_the_properties_of_the_tests():
    report = (
        '<testsuites><testsuite><testcase name="test_a_server_cannot[silent-tls]"><properties>'
        '<property name="overrun" value="0.002"/><property name="other" value="x"/></properties></testcase>'
        '<testcase name="test_nothing_measured"/></testsuite></testsuites>'
    )
    samples = [{"round": 0, **sample} for sample in read_report(report)]
    assert samples == [
        {"round": 0, "test": "test_a_server_cannot", "case": "silent-tls", "what": "overrun", "seconds": 0.002}
    ]
    bounds, cases = chosen(["overrun"])[0].tables(samples)
    assert bounds.rows[0][-1] == "yes"
    assert cases.rows == [["a server cannot: silent, tls", "2.0 (2.0 - 2.0)"]]


def test_saving_one_section_keeps_the_others(tmp_path):
    store.save("import", {"kernel": "Linux 6"}, IMPORTS, tmp_path)
    store.save("cost", {"kernel": "Linux 7"}, cost_samples(), tmp_path)
    store.save("import", {"kernel": "Linux 8"}, IMPORTS, tmp_path)
    text = store.render(BENCHMARKS, lambda benchmark, samples: benchmark.tables(samples), tmp_path)
    assert "Linux 8" in text
    assert "Linux 7" in text
    assert "Linux 6" not in text
    assert text.index("## import") < text.index("## cost")


def test_what_is_saved_is_loaded(tmp_path):
    path = store.save("import", {"kernel": "Linux"}, IMPORTS, tmp_path)
    assert store.load("import", tmp_path) == {"machine": {"kernel": "Linux"}, "samples": IMPORTS}
    assert json.loads(path.read_text())["samples"] == IMPORTS


def test_what_was_never_measured_is_left_out(tmp_path):
    assert "##" not in store.render(BENCHMARKS, lambda benchmark, samples: [], tmp_path)


def test_results_shown_are_those_stored():
    rendered = store.render(BENCHMARKS, lambda benchmark, samples: benchmark.tables(samples))
    written = store.HERE / "RESULTS.md"
    assert not written.exists() or written.read_text(encoding="utf-8") == rendered


def test_an_unknown_benchmark_is_named_with_those_there_are(capsys):
    assert main(["imports"]) == 2
    assert "'imports'" in capsys.readouterr().err


def test_a_run_without_names_leaves_out_what_takes_longest():
    assert {benchmark.name for benchmark in BENCHMARKS} - {benchmark.name for benchmark in chosen([])} == {
        "ablation",
        "million",
    }


def test_the_list_shows_every_benchmark(capsys):
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(benchmark.name in shown for benchmark in BENCHMARKS)


@pytest.mark.parametrize("error", [RuntimeError("no server"), KeyError("no server")])
def test_a_benchmark_that_cannot_be_run_keeps_none_of_the_others_from_running(monkeypatch, capsys, error):
    def fail(quick):
        raise error

    monkeypatch.setattr("benchmarks.overrun.measure", fail)
    monkeypatch.setattr("benchmarks.imports.measure", lambda quick: IMPORTS)
    assert main(["overrun", "import", "--quick"]) == 1
    printed = capsys.readouterr()
    assert "no server" in printed.err
    assert "FAILED        0 s  overrun" in printed.err
    assert "`import chatpool`" in printed.out


def test_a_run_ends_with_the_time_of_each_benchmark_and_of_all(monkeypatch, capsys):
    seconds = iter([0, 1, 11, 12, 100, 101, 111, 120])
    monkeypatch.setattr("benchmarks.__main__.time.monotonic", lambda: next(seconds))
    monkeypatch.setattr("benchmarks.imports.measure", lambda quick: IMPORTS)
    monkeypatch.setattr("benchmarks.cost.measure", lambda quick: cost_samples())
    monkeypatch.setattr("benchmarks.nginx.version", lambda: "nginx/1")
    assert main(["import", "cost", "--quick"]) == 0
    times = capsys.readouterr().err.splitlines()[-3:]
    assert [line.split() for line in times] == [
        ["measured", "12", "s", "import"],
        ["measured", "20", "s", "cost"],
        ["32", "s", "in", "all"],
    ]
