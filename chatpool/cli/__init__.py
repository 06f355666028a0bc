"""The command ``chatpool``: from arguments to public calls to exit codes."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import List, Optional, Sequence

from .config_file import apply_config
from .parser import build_parser
from .terminal import log_lines, present_streams, run_to_exit_code, tolerant_streams

__all__ = ["main"]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, without the program's name. Default: those of the process.

    Returns:
        The exit code: 0 all succeeded, 1 some prompts failed, 2 usage or configuration, 3 stopped by a fatal error
        or an unreachable server, 75 another process uses the output, 130 Ctrl-C, 141 no reader of the output is left,
        143 SIGTERM.

    Raises:
        SystemExit: wrong usage (2), ``--help`` or ``--version`` (0), as argparse does.
    """
    command_line = list(sys.argv[1:] if argv is None else argv)
    with present_streams():
        tolerant_streams()
        return run_to_exit_code(_run, command_line)


def _run(command_line: List[str]) -> int:
    parser = build_parser()
    apply_config(parser, command_line)
    arguments = parser.parse_args(command_line, Namespace(command_line=command_line, parser=parser))
    with log_lines(getattr(arguments, "verbosity", 0)):
        code: int = arguments.run(arguments)
        return code
