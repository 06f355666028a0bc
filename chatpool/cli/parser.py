"""The command line: its parser, and the options that several commands share."""

from __future__ import annotations

import argparse

from .. import __version__
from .ask import ask
from .run import add_run
from .small_commands import add_check, add_local, add_report

__all__ = ["build_parser"]

_EXITS = """exit codes: 0 all succeeded, 1 some prompts failed, 2 wrong usage or configuration (a missing key
included), 3 stopped by a fatal error or an unreachable server, 130 Ctrl-C, 143 SIGTERM"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; ``parse_args(...).run`` is the function of the chosen command."""
    parser = argparse.ArgumentParser(
        prog="chatpool", description="Mass calls to the ChatGPT API and any OpenAI-compatible server.", epilog=_EXITS
    )
    _add_version(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_ask(commands)
    add_run(commands, _common("say what was done as one JSON object on stdout"), _EXITS)
    add_report(commands)
    add_check(commands, _connection())
    add_local(commands)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"chatpool {__version__}")


def _connection() -> argparse.ArgumentParser:
    """Return the options of the server to call."""
    connection = argparse.ArgumentParser(add_help=False)
    _add_version(connection)
    connection.add_argument("--model", metavar="NAME", help="the model")
    connection.add_argument("--base-url", metavar="URL", help="default: OPENAI_BASE_URL, else OpenAI's own server")
    connection.add_argument("--timeout", metavar="SECONDS", type=float, help="limit of one attempt (default: 600)")
    connection.add_argument("--local", action="store_true", help="use the embedded model; needs no key")
    connection.set_defaults(system=None, max_workers=None)
    return connection


def _common(json_help: str = "one JSON object per prompt and line, with all facts") -> argparse.ArgumentParser:
    """Return the options of every command that makes many calls."""
    common = argparse.ArgumentParser(add_help=False, parents=[_connection()])
    common.add_argument("--system", metavar="TEXT", help="a system message for every prompt")
    common.add_argument("--max-workers", metavar="N", type=int, help="calls in flight at most (default: 16, local: 8)")
    common.add_argument(
        "-v", "--verbose", action="store_true", help="show retries, and answers that are asked for again"
    )
    common.add_argument("--json", action="store_true", help=json_help)
    return common


def _add_ask(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "ask",
        parents=[_common()],
        help="answer one prompt, or one per line of stdin",
        description="Answer a prompt. The key is read from OPENAI_API_KEY.",
        epilog=_EXITS,
    )
    command.add_argument(
        "prompt", metavar="PROMPT", nargs="*", help="the words of one prompt; without any, all of stdin is the prompt"
    )
    command.add_argument(
        "--lines", action="store_true", help="every line of stdin is a prompt of its own; answers come in their order"
    )
    command.add_argument("--stream", action="store_true", help="print the answer as the model writes it")
    command.set_defaults(run=ask)
