"""``chatpool check``."""

from __future__ import annotations

import argparse
from argparse import Namespace

from ..client.check import findings
from ..redaction import printable
from . import exits
from .ask import open_pool

__all__ = ["add_check", "check"]


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
            wrong += finding.cure is not None
            mark = "ok   " if finding.cure is None else "WRONG"
            print(printable(f"{mark}  {finding.name:<9} {' '.join(finding.text.split())}"), flush=True)
            if finding.cure is not None and finding.cure not in finding.text:
                print(printable(f"       {'':<9} -> {finding.cure}"), flush=True)
    return exits.FATAL if wrong else exits.OK
