"""The command line: its parser, with all commands."""

from __future__ import annotations

import argparse

from .ask import add_ask
from .batch_jobs import add_batch
from .cache import add_cache
from .command_parser import CommandParser
from .run import add_run
from .shards import add_shards
from .shared_options import add_version
from .shell_completion import add_completion
from .small_commands import add_check, add_local, add_report
from .watch import add_watch

__all__ = ["build_parser"]

_EXITS = """exit codes: 0 all succeeded, 1 some prompts failed, 2 wrong usage or configuration (a missing key
included), 3 stopped by a fatal error or an unreachable server, 75 another process uses the output,
130 Ctrl-C, 143 SIGTERM"""


def build_parser() -> CommandParser:
    """Return the parser; ``parse_args(...).run`` is the function of the chosen command."""
    parser = CommandParser(
        prog="chatpool", description="Mass calls to the ChatGPT API and any OpenAI-compatible server.", epilog=_EXITS
    )
    add_version(parser)
    commands: argparse._SubParsersAction[CommandParser] = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    add_ask(commands, _EXITS)
    add_run(commands, _EXITS)
    add_batch(commands)
    add_shards(commands, _EXITS)
    add_watch(commands)
    add_report(commands)
    add_cache(commands)
    add_check(commands)
    add_local(commands)
    add_completion(commands)
    return parser
