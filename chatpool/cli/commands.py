"""``chatpool report``.

``chatpool check``.

``chatpool local``.
"""

from __future__ import annotations

import argparse
import threading
from argparse import Namespace

from .._client.diagnostics import findings
from .._redaction import printable
from ..batch import Report
from ..batch import report as read
from ..batch.batch_format import json_text
from ..batch.output_files import write_whole
from ..errors import ConfigurationError
from ..local import LocalServer, install, model_path
from .ask import open_pool
from .run import PRICES_HELP, prices
from .terminal import FATAL, OK, complain

__all__ = ["add_check", "add_report", "check", "install_model", "report_command", "serve_model"]


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "check",
        parents=[common],
        help="look at everything a call depends on",
        description=(
            "Look at everything a call depends on: key, server, proxy, certificates, model, one call, limits. "
            "What is wrong is marked, and the line after it says what to do."
        ),
        epilog="exit codes: 0 all is well, 2 wrong usage or configuration, 3 something else is wrong",
    )
    command.set_defaults(run=check)


def check(arguments: Namespace) -> int:
    """Print what was found; returns the exit code."""
    wrong = 0
    with open_pool(arguments, needs_model=False) as pool:
        for finding in findings(pool, timeout=arguments.timeout or 30.0):
            wrong += finding.advice is not None
            mark = "ok   " if finding.advice is None else "WRONG"
            print(printable(f"{mark}  {finding.name:<9} {' '.join(finding.text.split())}"), flush=True)
            if finding.advice is not None and finding.advice not in finding.text:
                print(printable(f"       {'':<9} -> {finding.advice}"), flush=True)
    return FATAL if wrong else OK


def install_model(arguments: Namespace) -> int:
    """``chatpool local install``: print where the model is."""
    try:
        model_path()
    except ConfigurationError:
        if not arguments.source:
            complain("fetching the embedded model, 93 MB; this happens once")
    print(install(arguments.source))
    return OK


def serve_model(arguments: Namespace) -> int:
    """``chatpool local serve``: print the base URL and serve until a signal ends it."""
    with LocalServer(port=arguments.port, parallel=arguments.max_workers) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()
    return OK


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
    command.set_defaults(run=report_command)


def report_command(arguments: Namespace) -> int:
    """Print the report, and write the page."""
    made = read(arguments.output, prices=arguments.prices)
    print(json_text(_numbers(made)) if arguments.json else made.text())
    if arguments.html is not None:
        write_whole(arguments.html, made.html())
        complain(f"written: {arguments.html}")
    return OK


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
