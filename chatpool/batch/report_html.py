"""The report of a run as one HTML page: numbers, plots, latencies, the first failures, and the options of the run.

The page needs nothing from anywhere: no script, no font, no network.  It follows the reader's light or dark scheme,
fits a phone, and can be printed.
"""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Sequence, Tuple

from .._display import SHARES, Cell, Fact, escaped, percentiles, share_name, short, table
from ..prices import dollars
from .report import Report
from .svg_plots import Axis, Bars, Line, Marker, draw, draw_by_name
from .timeline import Histogram

__all__ = ["page"]

_VALUE_BINS = 48  # of a histogram of latencies or lengths
_MAX_CAUSES = 12
_MAX_OPTIONS, _OPTION_CHARACTERS = 40, 320

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ink: #1c2433; --soft: #5b667a; --card: #ffffff; --ground: #f3f5f9; --line: #e3e7ee;
  --good: #2f6fde; --bad: #d64545; --warn: #b97a00; }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e9f0; --soft: #9aa5b8; --card: #1b212c;
  --ground: #12161d; --line: #2c3442; --good: #6b9bf0; --bad: #f07a7a; --warn: #e0b050; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 32px 20px 48px; }}
h1 {{ font-size: 24px; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 16px; margin: 0; }}
p {{ margin: 2px 0 0; color: var(--soft); font-size: 13px; }}
.numbers {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 14px; margin: 24px 0; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 14px; }}
.card {{ background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }}
.card {{ min-width: 0; }}
.wide {{ grid-column: 1 / -1; overflow-x: auto; }}
.number {{ font-size: 26px; font-weight: 650; letter-spacing: -0.02em; }}
.name {{ color: var(--soft); font-size: 13px; }}
.wrong .number {{ color: var(--bad); }}
table {{ border-collapse: collapse; width: 100%; margin-top: 8px; font-size: 14px; }}
th, td {{ text-align: left; padding: 5px 12px 5px 0; border-top: 1px solid var(--line); vertical-align: top; }}
td {{ overflow-wrap: anywhere; }} td:first-child {{ min-width: 8em; }}
th {{ color: var(--soft); font-weight: 500; }}
.right {{ text-align: right; white-space: nowrap; }}
svg {{ width: 100%; height: auto; display: block; margin-top: 8px; }}
svg text {{ fill: var(--soft); font: 12px system-ui, sans-serif; }}
svg .label {{ fill: var(--ink); }}
.grid {{ stroke: var(--line); }}
.marker {{ stroke: var(--soft); stroke-dasharray: 3 4; }}
rect.good {{ fill: var(--good); }} rect.bad {{ fill: var(--bad); }}
.line {{ fill: none; stroke-width: 1.8; }} .line.good {{ stroke: var(--good); }} .line.warn {{ stroke: var(--warn); }}
.area.good {{ fill: var(--good); opacity: 0.18; }}
.legend {{ display: flex; gap: 16px; flex-wrap: wrap; color: var(--soft); font-size: 13px; margin-top: 6px; }}
.legend i {{ display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }}
i.good {{ background: var(--good); }} i.bad {{ background: var(--bad); }} i.warn {{ background: var(--warn); }}
@media (max-width: 600px) {{ main {{ padding: 20px 12px; }} .card {{ padding: 12px 14px; }}
  svg text {{ font-size: 17px; }} svg .side {{ display: none; }} .number {{ font-size: 22px; }} }}
@media print {{ * {{ print-color-adjust: exact; }} body {{ background: none; }} .card {{ break-inside: avoid; }}
  main {{ padding: 0; }} .plots {{ grid-template-columns: 1fr 1fr; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{subtitle}</p>
<section class="numbers">
{numbers}
</section>
<section class="plots">
{cards}
</section>
</main>
</body>
</html>
"""


def page(report: Report) -> str:
    """Return the page of a report."""
    return _PAGE.format(
        title=escaped(f"Run {report.name.rpartition('/')[2]}"),
        subtitle=escaped(_subtitle(report)),
        numbers="\n".join(_number(*number) for number in _numbers(report)),
        cards="\n".join([*_plots(report), *_tables(report)]),
    )


# -- numbers ----------------------------------------------------------------------------------------------


def _subtitle(report: Report) -> str:
    parts = [", ".join(name for name, _ in report.models.most_common(3))]
    if report.started_at is not None and report.ended_at is not None:
        parts.append(f"{_moment(report.started_at)} to {_moment(report.ended_at)}")
    if report.seconds:
        parts.append(f"{_duration(report.seconds)} of work")
    if report.attempts:
        parts.append(f"{report.attempts:,} requests")
    return " · ".join(part for part in parts if part)


def _numbers(report: Report) -> List[Tuple[str, str, bool]]:
    share = f"{100 * report.failed / report.rows:.1f} %" if report.rows else ""
    usage = report.usage
    numbers = [
        ("rows answered", f"{report.succeeded:,}", False),
        (f"rows failed {share}".rstrip(), f"{report.failed:,}", report.failed > 0),
        ("tokens read", _short(usage.prompt_tokens), False),
        ("tokens written", _short(usage.completion_tokens), False),
    ]
    if usage.cached_tokens:
        numbers.append(("of those read, cached", _short(usage.cached_tokens), False))
    if usage.reasoning_tokens:
        numbers.append(("of those written, reasoning", _short(usage.reasoning_tokens), False))
    if report.cost is not None:
        numbers.append(("; ".join(filter(None, ["cost", report.bill.note()])), dollars(report.cost), False))
    if report.latencies:
        numbers.append(("rows per second", f"{report.rows / max(report.seconds, 1e-9):,.1f}", False))
        numbers.append(("latency, half are faster", f"{report.percentiles((0.5,))[0.5]:.2f} s", False))
    return numbers


def _number(name: str, value: str, is_wrong: bool) -> str:
    wrong = " wrong" if is_wrong else ""
    number = f'<div class="number">{escaped(value)}</div>'
    return f'<div class="card{wrong}">{number}<div class="name">{escaped(name)}</div></div>'


# -- plots ------------------------------------------------------------------------------------------------


def _plots(report: Report) -> List[str]:
    """Return a card for every plot that there are data for."""
    plots: List[str] = []
    if report.latencies:
        plots.append(_latency(report))
    if report.timeline is not None and report.latencies:
        histogram = report.timeline.histogram()
        plots += [_throughput(histogram), _in_flight(histogram, _most_workers(report))]
    if report.failures:
        causes = draw_by_name(report.failures.most_common(_MAX_CAUSES), "bad", "rows")
        plots.append(_card("plot-failures", "Failures by cause", "Rows without an answer.", causes))
    if report.written:
        plots.append(_lengths(report))
    return plots


def _card(name: str, title: str, explanation: str, content: str, *, is_wide: bool = False) -> str:
    wide = " wide" if is_wide else ""
    return f'<div class="card{wide}" id="{name}"><h2>{title}</h2><p>{explanation}</p>{content}</div>'


def _latency(report: Report) -> str:
    times = report.percentiles((0.5, 0.99))
    longest = max(times[0.99] * 1.3, 1e-3)
    markers = [Marker(times[share], f"{name} {times[share]:.2f} s") for share, name in ((0.5, "p50"), (0.99, "p99"))]
    counts = _binned(report.latencies, longest)
    plot = draw(Axis(0.0, longest, "seconds"), "requests", [Bars(counts, "good", "requests")], markers=markers)
    return _card(
        "plot-latency", "Latency", "Seconds of requests, refused ones left out; the slowest are in the last bar.", plot
    )


def _lengths(report: Report) -> str:
    longest = float(max(1, *report.written))
    counts = _binned(report.written, longest)
    plot = draw(Axis(0.0, longest, "tokens written"), "answers", [Bars(counts, "good", "answers")])
    return _card("plot-tokens", "Length of the answers", "Tokens that the model wrote.", plot)


def _binned(values: Sequence[float], longest: float) -> List[float]:
    counts = [0.0] * _VALUE_BINS
    for value in values:
        counts[min(int(value / longest * _VALUE_BINS), _VALUE_BINS - 1)] += 1
    return counts


def _throughput(histogram: Histogram) -> str:
    answered, failed = (
        [count / histogram.width for count in counts] for counts in (histogram.answered, histogram.failed)
    )
    bars = [Bars(answered, "good", "answered")] + ([Bars(failed, "bad", "failed")] if any(failed) else [])
    return _card(
        "plot-throughput",
        "Throughput",
        "Rows that ended, per second of the run's working time.",
        draw(_time_axis(histogram), "rows per second", bars),
    )


def _most_workers(report: Report) -> int:
    """Return the greatest ``max_workers`` of the runs, 0 where it is not known."""
    return max([value for _, options in report.runs if isinstance(value := options.get("max_workers"), int)] or [0])


def _in_flight(histogram: Histogram, most_workers: int) -> str:
    rejections = [count / histogram.width for count in histogram.refused]
    lines = [Line(histogram.in_flight, "good", "in flight", is_area=True)]
    if any(rejections):
        lines.append(Line(rejections, "warn", "made again, per second", on_the_right=True))
    plot = draw(_time_axis(histogram), "requests in flight", lines=lines)
    cap = f" (at most {most_workers:,})" if most_workers else ""
    return _card(
        "plot-in-flight",
        "In flight, and made again",
        f"Requests under way{cap}, and those that were refused or failed.",
        plot,
    )


def _time_axis(histogram: Histogram) -> Axis:
    seconds = histogram.width * len(histogram.answered)
    unit, name = (1.0, "seconds") if seconds < 300 else (60.0, "minutes") if seconds < 10_800 else (3600.0, "hours")
    return Axis(0.0, seconds / unit, f"{name} since the start")


# -- tables -----------------------------------------------------------------------------------------------


def _tables(report: Report) -> List[str]:
    tables = []
    if report.latencies:
        rows: List[List[Cell]] = [
            [name, len(values), *percentiles(values).values()]
            for name, values in (
                ("answers and last attempts", report.latencies),
                ("attempts that were made again", report.refused_latencies),
            )
            if values
        ]
        head = ["seconds of", "number", *map(share_name, SHARES)]
        tables.append(_table("latencies", "Latency by percentile", "Refused and failed requests apart.", head, rows))
    if report.failed_rows:
        title = "Rows that failed" if len(report.failed_rows) == report.failed else "The first rows that failed"
        head = ["row", "why, and what to do"]
        tables.append(_table("failed-rows", title, "The error file has them all.", head, report.failed_rows))
    if report.runs:
        count = len(report.runs)
        explanation = "As the run was started." if count == 1 else f"As the {count:,} runs were started, first to last."
        tables.append(_table("options", "Options", explanation, (), _options(report.runs)))
    return tables


def _table(name: str, title: str, explanation: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    return _card(name, title, explanation, table(head, rows), is_wide=True)


def _options(runs: Sequence[Tuple[float, Dict[str, Any]]]) -> List[Fact]:
    """Return each option with its value; with all of its values where runs had different ones."""
    started = dict.fromkeys(_moment(at) for at, _ in (runs[0], runs[-1]))
    facts = [("started", ", the last ".join(started))]
    for name in dict.fromkeys(name for _, options in runs for name in options):
        values = dict.fromkeys(_option_text(options.get(name)) for _, options in runs)
        facts.append((short(name, 40), short(", then ".join(values), _OPTION_CHARACTERS)))
    return facts[:_MAX_OPTIONS]


def _option_text(value: Any) -> str:
    if isinstance(value, dict):
        return short(", ".join(f"{name} {_option_text(part)}" for name, part in value.items()), _OPTION_CHARACTERS)
    if isinstance(value, bool) or value is None:
        return "none" if value is None else str(value)
    if isinstance(value, int):
        return short(f"{value:,}")
    return f"{value:,.10g}" if isinstance(value, float) else short(value)


# -- texts ------------------------------------------------------------------------------------------------


def _moment(seconds: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):  # a file may say anything
        return f"{seconds:g}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _short(number: int) -> str:
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:,.1f} k" if number < 1_000_000 else f"{number / 1e6:,.2f} M"
