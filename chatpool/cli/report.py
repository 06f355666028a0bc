"""``chatpool report``."""

from __future__ import annotations

import argparse
from argparse import Namespace

from ..batch import Report
from ..batch import report as read
from ..batch.lines import json_text
from ..batch.outputs import write_whole
from . import exits
from .run import PRICES_HELP, prices
from .terminal import complain

__all__ = ["add_report", "report"]


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "report",
        help="say what is in the output of a run",
        description=(
            "Say what is in the output of a run: rows, failures by cause, tokens, and, from the journal beside it, "
            "times. It also reads output files of the Batch API."
        ),
    )
    command.add_argument("output", metavar="OUT", help="the file of answers, or a journal")
    command.add_argument("--html", metavar="FILE", help="write a page with plots (needs the extra report)")
    command.add_argument("--prices", metavar="IN,OUT", type=prices, help=f"dollars per million tokens: {PRICES_HELP}")
    command.add_argument("--json", action="store_true", help="the numbers as one JSON object")
    command.set_defaults(run=report)


def report(arguments: Namespace) -> int:
    """Print the report, and write the page."""
    made = read(arguments.output, prices=arguments.prices)
    print(json_text(_numbers(made)) if arguments.json else made.text())
    if arguments.html is not None:
        write_whole(arguments.html, made.html())
        complain(f"written: {arguments.html}")
    return exits.OK


def _numbers(made: Report) -> object:
    return {
        "rows": made.rows,
        "succeeded": made.succeeded,
        "failures": dict(made.failures),
        "usage": vars(made.usage),
        "cost": made.cost,
        "models": dict(made.models),
        "latency": {f"p{100 * share:g}": value for share, value in made.percentiles().items()},
        "seconds": made.seconds,
        "attempts": made.attempts,
        "waited": made.waited,
    }
