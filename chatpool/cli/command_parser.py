"""A parser of arguments without abbreviations, whose errors name the nearest right word and the command's own usage."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
import sys
from typing import Any, Collection, Dict, Iterable, Iterator, List, NoReturn, Optional, Sequence, Tuple

from .._redaction import printable

__all__ = ["KEY_ADVICE", "CommandParser", "did_you_mean", "is_key_name"]

KEY_ADVICE = "the key is read from OPENAI_API_KEY: others could see it on a command line, or read it in a file"
"""What to do instead of passing a key."""

_KEY_NAME = re.compile(r"(openai)?(api|auth|access|bearer|secret)?(key|token|secret|password)")


def is_key_name(name: str) -> bool:
    """Return whether an option of this name, without its dashes, would take a key."""
    return _KEY_NAME.fullmatch(re.sub("[-_]", "", name.lower())) is not None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the question for the nearest of ``names``, with a "; " before it; "" if none is near."""
    known = sorted(names)
    word = name.replace("_", "-").lower()
    near = [each for each in known if each.startswith(word) and len(word) > 2]
    near = near[:2] or difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


class CommandParser(argparse.ArgumentParser):
    """A parser of a command, or of its options.

    Args:
        options: as for :class:`argparse.ArgumentParser`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    @property
    def commands(self) -> Dict[str, CommandParser]:
        """The parsers of the commands below this one, by name."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def all_commands(self) -> Iterator[CommandParser]:
        """Yield the parsers of the commands below this one, and of those below them."""
        for command in self.commands.values():
            yield command
            yield from command.all_commands()

    @property
    def long_options(self) -> Dict[str, argparse.Action]:
        """The options with two dashes, by name."""
        return {name: action for name, action in self._option_string_actions.items() if name.startswith("--")}

    def parse_known_args(  # type: ignore[override]  # its types are overloads
        self, args: Optional[Sequence[str]] = None, namespace: Optional[argparse.Namespace] = None
    ) -> Tuple[argparse.Namespace, List[str]]:
        """Parse, as argparse does; arguments that are not known are errors of this command."""
        arguments = sys.argv[1:] if args is None else list(args)
        self._refuse_unknown_names(arguments)
        parsed, unknown = super().parse_known_args(arguments, namespace)
        if unknown:
            self.error(f"no {'option' if unknown[0].startswith('-') else 'place for'} {unknown[0]!r} here")
        return parsed, unknown

    def _refuse_unknown_names(self, arguments: Sequence[str]) -> None:
        """Refuse what is no command or option here, before argparse misses what was meant by it."""
        commands = self.commands
        for argument in arguments:
            if argument == "--":
                return
            if commands and not argument.startswith("-"):
                self._refuse_unknown_command(argument, commands)
                return
            name = argument.partition("=")[0]
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                self._refuse_option(name)

    def _refuse_unknown_command(self, name: str, commands: Collection[str]) -> None:
        if name not in commands:
            advice = did_you_mean(name, commands) or f"; there are {', '.join(commands)}"
            self.error(f"no command {name!r}{advice}")

    def _refuse_option(self, name: str) -> NoReturn:
        if is_key_name(name.lstrip("-")):
            self.error(f"no option {name}: {KEY_ADVICE}")
        self.error(f"no option {name}{did_you_mean(name, self.long_options)}")

    def error(self, message: str) -> NoReturn:
        """Print the usage of this command and the error, and exit with 2."""
        with contextlib.suppress(OSError):  # nobody can read it
            self.print_usage(sys.stderr)
            print(f"{self.prog}: error: {printable(message)}; see '{self.prog} --help'", file=sys.stderr)
        self.exit(2)
