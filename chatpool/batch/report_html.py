"""The report of a run as an HTML page with plots by plotly, all in one file."""

from __future__ import annotations

import html
import importlib
from typing import Any, List, Tuple

from .._redaction import printable
from ..errors import ConfigurationError
from ..prices import dollars
from .report import Histogram, Report

__all__ = ["page"]

_BLUE, _RED, _AMBER, _GREY = "#2f6fde", "#d64545", "#e0a020", "#8a94a6"
_LAYOUT = {
    "template": "plotly_white",
    "height": 320,
    "margin": {"l": 60, "r": 24, "t": 16, "b": 48},
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "legend": {"orientation": "h", "y": 1.14, "x": 0},
    "bargap": 0.04,
    "hovermode": "x unified",
}
_CONFIG = {"displayModeBar": False, "responsive": True}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ --ink: #1c2433; --soft: #667085; --card: #ffffff; --ground: #f3f5f9; --line: #e3e7ee; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 32px 20px 48px; }}
h1 {{ font-size: 24px; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 16px; margin: 0; }}
p {{ margin: 2px 0 0; color: var(--soft); font-size: 13px; }}
.numbers {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 14px; margin: 24px 0; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 14px; }}
.card {{ background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }}
.card {{ min-width: 0; }}
.number {{ font-size: 26px; font-weight: 650; letter-spacing: -0.02em; }}
.name {{ color: var(--soft); font-size: 13px; }}
.bad .number {{ color: #d64545; }}
</style>
<script>{script}</script>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{subtitle}</p>
<section class="numbers">
{numbers}
</section>
<section class="plots">
{plots}
</section>
</main>
</body>
</html>
"""


def page(report: Report) -> str:
    """Return the page of a report.

    Raises:
        ConfigurationError: plotly is not installed.
    """
    try:
        graphs: Any = importlib.import_module("plotly.graph_objects")
        offline: Any = importlib.import_module("plotly.offline")
    except ImportError:
        raise ConfigurationError(
            "an HTML report needs plotly: install chatpool with the extra report (pip install 'chatpool[report]')"
        ) from None
    return _PAGE.format(
        title=html.escape(printable(f"Run {report.name.rpartition('/')[2]}")),
        subtitle=html.escape(_subtitle(report)),
        script=offline.get_plotlyjs(),
        numbers="\n".join(_number(*number) for number in _numbers(report)),
        plots="\n".join(_plot(*plot) for plot in _plots(report, graphs)),
    )


def _subtitle(report: Report) -> str:
    models = ", ".join(name for name, _ in report.models.most_common(3))
    parts = [models] if models else []
    if report.seconds:
        parts.append(f"{_time(report.seconds)} of work")
    if report.attempts:
        parts.append(f"{report.attempts:,} requests")
    return " · ".join(parts)


def _numbers(report: Report) -> List[Tuple[str, str, bool]]:
    share = f"{100 * report.failed / report.rows:.1f} %" if report.rows else ""
    numbers = [
        ("rows answered", f"{report.succeeded:,}", False),
        (f"rows failed {share}".rstrip(), f"{report.failed:,}", report.failed > 0),
        ("tokens read", _short(report.usage.prompt_tokens), False),
        ("tokens written", _short(report.usage.completion_tokens), False),
    ]
    if report.cost is not None:
        numbers.append(("cost", dollars(report.cost), False))
    if report.latencies:
        times = report.percentiles((0.5, 0.99))
        numbers.append(("rows per second", f"{report.rows / max(report.seconds, 1e-9):,.1f}", False))
        numbers.append(("latency, half are faster", f"{times[0.5]:.2f} s", False))
        numbers.append(("latency, 1 in 100 is slower", f"{times[0.99]:.2f} s", False))
    return numbers


def _number(name: str, value: str, is_bad: bool) -> str:
    bad = " bad" if is_bad else ""
    return f'<div class="card{bad}"><div class="number">{value}</div><div class="name">{html.escape(name)}</div></div>'


def _plots(report: Report, graphs: Any) -> List[Tuple[str, str, str, Any]]:
    """Return (id, title, explanation, figure) of every plot that there are data for."""
    plots: List[Tuple[str, str, str, Any]] = []
    if report.latencies:
        plots.append(_latency(report, graphs))
    if report.timeline is not None and report.latencies:
        histogram = report.timeline.histogram()
        plots += [_throughput(histogram, graphs), _in_flight(histogram, graphs)]
    if report.failures:
        plots.append(_failures(report, graphs))
    if report.written:
        plots.append(_tokens(report, graphs))
    return plots


def _latency(report: Report, graphs: Any) -> Tuple[str, str, str, Any]:
    times = report.percentiles((0.5, 0.99))
    longest = max(times[0.99] * 1.3, 1e-3)
    figure = graphs.Figure(
        graphs.Histogram(
            x=[min(value, longest) for value in report.latencies],
            nbinsx=60,
            marker_color=_BLUE,
            name="requests",
            hovertemplate="%{y} requests around %{x:.2f} s<extra></extra>",
        )
    )
    for name, value in (("p50", times[0.5]), ("p99", times[0.99])):
        figure.add_vline(x=value, line_dash="dot", line_color=_GREY, annotation_text=f"{name} {value:.2f} s")
    figure.update_layout(**_LAYOUT, xaxis_title="seconds", yaxis_title="requests", showlegend=False)
    return "latency", "Latency", "How long answers took; the slowest are put into the last bar.", figure


def _throughput(histogram: Histogram, graphs: Any) -> Tuple[str, str, str, Any]:
    figure = graphs.Figure()
    for name, counts, colour in (("answered", histogram.answered, _BLUE), ("failed", histogram.failed, _RED)):
        rates = [count / histogram.width for count in counts]
        figure.add_bar(x=_moments(histogram), y=rates, name=name, marker_color=colour, hovertemplate="%{y:.1f}/s")
    figure.update_layout(**_LAYOUT, barmode="stack", xaxis_title=_axis(histogram), yaxis_title="rows per second")
    return "throughput", "Throughput", "Rows that ended, over the run's working time.", figure


def _in_flight(histogram: Histogram, graphs: Any) -> Tuple[str, str, str, Any]:
    figure = graphs.Figure()
    figure.add_scatter(
        x=_moments(histogram),
        y=histogram.in_flight,
        name="in flight",
        fill="tozeroy",
        line={"color": _BLUE, "width": 1.5, "shape": "hvh"},
        hovertemplate="%{y:.1f}",
    )
    refused = [count / histogram.width for count in histogram.refused]
    figure.add_scatter(
        x=_moments(histogram),
        y=refused,
        name="refusals per second",
        yaxis="y2",
        line={"color": _AMBER, "width": 2},
        hovertemplate="%{y:.1f}/s",
    )
    right = {
        "overlaying": "y",
        "side": "right",
        "rangemode": "tozero",
        "showgrid": False,
        "tickmode": "auto",
        "title": "refusals per second",
    }
    figure.update_layout(**_LAYOUT, xaxis_title=_axis(histogram), yaxis_title="requests in flight", yaxis2=right)
    return "in-flight", "In flight, and refused", "Requests under way, and those that had to be made again.", figure


def _failures(report: Report, graphs: Any) -> Tuple[str, str, str, Any]:
    causes = report.failures.most_common(12)[::-1]
    figure = graphs.Figure(
        graphs.Bar(
            x=[count for _, count in causes],
            y=[cause for cause, _ in causes],
            orientation="h",
            width=0.6 if len(causes) > 1 else 0.3,
            marker_color=_RED,
            hovertemplate="%{x} rows<extra></extra>",
        )
    )
    layout = {**_LAYOUT, "hovermode": "closest"}
    figure.update_layout(**layout, xaxis_title="rows", yaxis={"automargin": True, "type": "category"})
    return "failures", "Failures by cause", "The rows of the error file.", figure


def _tokens(report: Report, graphs: Any) -> Tuple[str, str, str, Any]:
    figure = graphs.Figure(
        graphs.Histogram(
            x=list(report.written),
            nbinsx=60,
            marker_color=_BLUE,
            hovertemplate="%{y} answers of about %{x} tokens<extra></extra>",
        )
    )
    figure.update_layout(**_LAYOUT, xaxis_title="tokens written", yaxis_title="answers", showlegend=False)
    return "tokens", "Length of the answers", "Tokens that the model wrote.", figure


def _plot(name: str, title: str, explanation: str, figure: Any) -> str:
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=f"plot-{name}")
    return f'<div class="card"><h2>{title}</h2><p>{explanation}</p>{drawn}</div>'


def _moments(histogram: Histogram) -> List[float]:
    unit = _unit(histogram)[0]
    return [round((index + 0.5) * histogram.width / unit, 3) for index in range(len(histogram.answered))]


def _axis(histogram: Histogram) -> str:
    return f"{_unit(histogram)[1]} since the start"


def _unit(histogram: Histogram) -> Tuple[float, str]:
    seconds = histogram.width * len(histogram.answered)
    if seconds < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 10_800 else (3600.0, "hours")


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _short(number: int) -> str:
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:,.1f} k" if number < 1_000_000 else f"{number / 1e6:,.2f} M"
