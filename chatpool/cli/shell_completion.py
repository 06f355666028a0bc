"""``chatpool completion``: a script that completes commands and options in a shell, made by shtab of the parser."""

from __future__ import annotations

import argparse
import importlib
from argparse import Namespace
from typing import Any

from ..errors import ConfigurationError
from .command_parser import CommandParser
from .terminal import OK

__all__ = ["add_completion"]

_SHELLS = ("bash", "zsh", "fish")
_FILES = frozenset({"FILE", "IN", "OUT"})  # metavars of what is completed with names of files
_FOLDERS = frozenset({"FOLDER"})


def add_completion(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "completion",
        usage="%(prog)s {bash,zsh,fish}",
        help="print a script that completes commands and options in a shell",
        description=(
            "Print a script that completes commands, options and names of files in a shell. It needs the extra "
            "completion. For bash: chatpool completion bash > ~/.local/share/bash-completion/completions/chatpool; "
            "for fish: chatpool completion fish > ~/.config/fish/completions/chatpool.fish; for zsh: write it to a "
            "file _chatpool in a folder of $fpath, before compinit is called."
        ),
    )
    command.add_argument("shell", metavar="SHELL", choices=_SHELLS, help="bash, zsh or fish")
    command.set_defaults(run=_complete)


def _complete(arguments: Namespace) -> int:
    """Print the script."""
    try:
        shtab: Any = importlib.import_module("shtab")
    except ImportError:
        raise ConfigurationError("completion needs shtab: pip install 'chatpool[completion]'") from None
    parser: CommandParser = arguments.parser
    for action in (action for command in (parser, *parser.all_commands()) for action in command._actions):
        if action.metavar in _FILES | _FOLDERS:
            # where shtab looks for it
            action.complete = shtab.FILE if action.metavar in _FILES else shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))
    return OK
