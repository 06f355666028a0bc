"""``--config FILE``: options in TOML, by their long names; those of the command line go before them."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any, Dict, Iterable, List, Sequence

from ..errors import ConfigurationError
from .command_parser import KEY_ADVICE, CommandParser, did_you_mean, is_key_name

__all__ = ["apply_config"]

_NOT_IN_A_FILE = frozenset({"config", "help", "version"})


def apply_config(parser: CommandParser, command_line: Sequence[str]) -> None:
    """Make the options in the file that ``--config`` names the defaults of the chosen command.

    Options of other commands are left out, so that one file can be for all.

    Args:
        parser: the whole command line's.
        command_line: its arguments.

    Raises:
        ConfigurationError: the file cannot be read, or has something in it that is no option or no value of one.
    """
    command, words = parser, 0
    while words < len(command_line) and command_line[words] in command.commands:
        command = command.commands[command_line[words]]
        words += 1
    if "--config" not in command.long_options:
        return
    path = _config_path(command, command_line[words:])
    if path is None:
        return
    known = {name[2:] for each in parser.all_commands() for name in each.long_options} - _NOT_IN_A_FILE
    options = _read_toml(path)
    if options.get("quiet") and options.get("verbose"):
        raise ConfigurationError(f"{path}: quiet and verbose exclude each other: leave one out")
    for name, value in options.items():
        _refuse_unknown_option(path, name, known)
        action = command.long_options.get(f"--{name}")
        if action is not None:
            _set_default(command, action, value, f"{path}: {name}")


def _config_path(command: CommandParser, arguments: Sequence[str]) -> Any:
    """Return the value of ``--config``; everything else is left to the command's own parser."""
    finder = argparse.ArgumentParser(prog=command.prog, usage=command.usage, add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    return finder.parse_known_args(arguments)[0].config


def _read_toml(path: str) -> Dict[str, Any]:
    try:
        tomllib: Any = importlib.import_module("tomllib")
    except ImportError:
        try:
            tomllib = importlib.import_module("tomli")
        except ImportError:
            raise ConfigurationError("before Python 3.11 --config needs tomli: pip install 'chatpool[toml]'") from None
    try:
        with open(path, "rb") as file:
            options: Dict[str, Any] = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"--config {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--config {path} is not TOML: {error}") from error
    return options


def _refuse_unknown_option(path: str, name: str, known: Iterable[str]) -> None:
    if is_key_name(name):
        raise ConfigurationError(f"{path}: {name} may not stand in a file of options: {KEY_ADVICE}")
    if name not in known:
        raise ConfigurationError(
            f"{path}: no option {name!r}{did_you_mean(name, known)}; names are those of the long options"
        )


def _set_default(command: CommandParser, action: argparse.Action, value: Any, where: str) -> None:
    command.set_defaults(**{action.dest: _value_of(action, value, where)})
    action.required = False


def _value_of(action: argparse.Action, value: Any, where: str) -> Any:
    """Return the value of an option as the command line would have made it of its text."""
    if isinstance(action, argparse._StoreConstAction):  # store_true as well
        if not isinstance(value, bool):
            raise ConfigurationError(f"{where} must be true or false, got {value!r}")
        return action.const if value else action.default
    if isinstance(action, argparse._CountAction):
        if not isinstance(value, int) or value < 0:
            raise ConfigurationError(f"{where} must be true, or a number, got {value!r}")
        return int(value) or action.default  # false leaves what quiet says
    if isinstance(action, argparse._AppendAction):
        return [_converted(action, text, where) for text in _texts_of(action, value, where)]
    if action.nargs == "?" and isinstance(value, bool):  # --retry-failed without kinds
        return value
    return _converted(action, value, where)


def _texts_of(action: argparse.Action, value: Any, where: str) -> List[str]:
    """Return what the command line would say for a table of names and values, or for a list of such texts."""
    if isinstance(value, list):
        return [_json(item, where) if isinstance(item, dict) else item for item in value]
    if not isinstance(value, dict) or action.dest == "fallback":
        wanted = "" if action.dest == "fallback" else "a table of names and values, or "
        wanted += f"a list of {action.metavar}"
        raise ConfigurationError(f"{where} must be {wanted}, got {type(value).__name__}")
    if action.dest == "header":
        return [f"{name}:{text}" for name, text in value.items()]
    return [f"{name}={_json(item, where)}" for name, item in value.items()]


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError(f"{where} has a value that JSON has no form for: {value!r}") from None


def _converted(action: argparse.Action, value: Any, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigurationError(f"{where} must be a text or a number, got {value!r}")
    convert: Any = action.type or str
    try:
        converted = convert(str(value))
    except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if action.choices is not None and converted not in action.choices:
        raise ConfigurationError(f"{where} must be one of {', '.join(action.choices)}, got {value!r}")
    return converted
