"""Options that several commands share, the types of their values, and what they mean for a pool."""

from __future__ import annotations

import argparse
import json
import math
import re
from argparse import ArgumentTypeError, Namespace
from typing import Any, Callable, Dict, Optional, Tuple, Union

from .. import Budget, Limits, __version__
from .._client.endpoint import is_credential
from ..batch.input_format import names_sounds
from ..errors import ConfigurationError
from ..prices import PricesLike, prices_of
from .command_parser import KEY_ADVICE, CommandParser

__all__ = [
    "PRICES_HELP",
    "QUIET",
    "add_address_options",
    "add_call_options",
    "add_connection_options",
    "add_messages",
    "add_submission_options",
    "add_version",
    "number",
    "pool_options",
    "prices",
    "seconds",
]

QUIET = -1
"""The verbosity of ``--quiet``; 0 is the usual one, 1 and 2 are those of ``-v`` and ``-vv``."""

PRICES_HELP = "read,written[,cached], one number for embeddings, or a file of prices by model in LiteLLM's form"

_PROMPT_ELSEWHERE = "the prompt comes from the arguments, standard input or the file"

# Fields of a body that have an option or an argument of their own.
_OTHER_OPTIONS = {
    "model": "use --model",
    "stream": "use --stream, which ask has; other commands take whole answers",
    **dict.fromkeys(("messages", "input"), _PROMPT_ELSEWHERE),
}

_KEY_IN_HEADER = re.compile(r"(api|access|subscription|auth)[-_]?(key|token)$|secret|password|cookie", re.IGNORECASE)


# -- types of values ------------------------------------------------------------------------------------------


def number(unit: str, *, whole: bool = False, least: Optional[float] = None) -> Callable[[str], Any]:
    """Return a type of options: a number of ``unit``.

    Args:
        unit: for messages, for instance ``"seconds"``.
        whole: whether it has no fraction.
        least: the smallest one; None where the library checks that.
    """
    must = f"must be a {'whole ' if whole else ''}number of {unit}" + ("" if least is None else f", {least:g} or more")

    def convert(text: str) -> Any:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            raise ArgumentTypeError(f"{must}, got {text!r}") from None
        if not math.isfinite(value) or (least is not None and value < least):
            raise ArgumentTypeError(f"{must}, got {text!r}")
        return value

    return convert


def seconds(text: str) -> float:
    """Return the value of an option that takes more than 0 seconds."""
    value: float = number("seconds", least=0)(text)
    if not value:
        raise ArgumentTypeError("must be more than 0 seconds")
    return value


def prices(text: str) -> PricesLike:
    """Return the value of ``--prices``: numbers, or the name of a file.

    Raises:
        argparse.ArgumentTypeError: the text is neither.
    """
    try:
        value: PricesLike = tuple(float(part) for part in text.split(","))
    except ValueError:
        value = text
    try:
        prices_of(value, "it")
    except (TypeError, ConfigurationError) as error:
        raise ArgumentTypeError(f"it takes numbers, for instance 0.15,0.60, or a file of prices: {error}") from None
    return value


def _budget(text: str) -> Dict[str, float]:
    """Return the value of ``--budget``, as an argument of a Budget."""
    amount, is_tokens = (text[: -len("tokens")], True) if text.endswith("tokens") else (text.lstrip("$"), False)
    try:
        value = float(amount)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"must be dollars, such as 5, or tokens, such as 2000000tokens, got {text!r}")
    return {"tokens" if is_tokens else "cost": value}


def _param(text: str) -> Tuple[str, Any]:
    """Return the value of ``--param``: a name, and JSON or else a string."""
    name, separator, value = text.partition("=")
    name = name.strip()
    if not separator or not name:
        raise ArgumentTypeError(f"must be NAME=VALUE, for instance temperature=0, got {text!r}")
    if name in _OTHER_OPTIONS:
        raise ArgumentTypeError(f"{name} is no parameter here: {_OTHER_OPTIONS[name]}")
    try:
        return name, json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return name, value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _fallback(text: str) -> Union[str, Dict[str, Any]]:
    """Return the value of ``--fallback``: a model, or body fields as a JSON object."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"must be a model, or fields as a JSON object, got {text!r}: {error}") from None
    return dict(fields)


def _header(text: str) -> Tuple[str, str]:
    """Return the value of ``--header``: a name and its text; nothing that carries a key."""
    name, separator, value = (part.strip() for part in text.partition(":"))
    if is_credential(name) or _KEY_IN_HEADER.search(name):
        raise ArgumentTypeError(f"{name} carries a key: {KEY_ADVICE}")
    if not separator or not name:
        raise ArgumentTypeError("must be NAME:VALUE, for instance X-Team:search")
    return name, value


# -- options --------------------------------------------------------------------------------------------------


_NO_LIMITS: Dict[str, Any] = {
    **dict.fromkeys(("max_workers", "rpm", "tpm", "rpd", "tpd", "scope", "budget", "retries", "prices", "cache")),
    "wait_for_day": False,
}
_SYSTEM_HELP = "a system message for every prompt"


def add_version(parser: CommandParser) -> None:
    """Add ``--version``."""
    parser.add_argument(
        "--version", action="version", version=f"chatpool {__version__}", help="show the version and exit"
    )


def add_connection_options(command: CommandParser) -> None:
    """Add the options of every command that calls a server."""
    command.set_defaults(**_NO_LIMITS, system=None, fallback=[])
    _add_server(command)
    _add_request(command)
    add_messages(command)


def add_call_options(command: CommandParser, json_help: str) -> None:
    """Add the options of every command that makes many calls.

    Args:
        command: the parser.
        json_help: the help of ``--json``.
    """
    _add_server(command)
    group = _add_request(command)
    group.add_argument("--system", metavar="TEXT", help=_SYSTEM_HELP)
    group.add_argument(
        "--fallback",
        metavar="MODEL",
        type=_fallback,
        action=_Fallbacks,
        default=[],
        help='another model, or other fields as JSON ({"service_tier": "default"}; null leaves one out), for requests '
        "that fail or whose answers are not taken; may be repeated: they are tried in order",
    )
    _add_limits(command)
    _add_cache(command)
    add_messages(command).add_argument("--json", action="store_true", help=json_help)


def add_submission_options(command: CommandParser) -> None:
    """Add the options of a command that makes requests of rows and sends them as files."""
    command.set_defaults(**_NO_LIMITS, local=False, fallback=[])  # the embedded model takes no files
    _add_model_and_address(command)
    _add_request(command).add_argument("--system", metavar="TEXT", help=_SYSTEM_HELP)


def add_address_options(command: CommandParser, *, has_limits: bool = False) -> None:
    """Add the options of a command whose requests are made already.

    Args:
        command: the parser.
        has_limits: whether it may make many calls.
    """
    command.set_defaults(**_NO_LIMITS, system=None, model=None, param=[], local=False, fallback=[])
    _add_address(command.add_argument_group("server"))
    if has_limits:
        _add_limits(command)


def _add_model_and_address(command: CommandParser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("server")
    group.add_argument("--model", metavar="NAME", help="the model")
    _add_address(group)
    return group


def _add_server(command: CommandParser) -> None:
    group = _add_model_and_address(command)
    group.add_argument("--local", action="store_true", help="use the embedded model; needs no key")


def _add_address(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--base-url", metavar="URL", help="default: OPENAI_BASE_URL, else OpenAI's own server")
    group.add_argument(
        "--header",
        metavar="NAME:VALUE",
        type=_header,
        action="append",
        default=[],
        help="an extra HTTP header, such as X-Team:search; may be repeated; the key comes from OPENAI_API_KEY",
    )
    group.add_argument(
        "--timeout", metavar="SECONDS", type=number("seconds"), help="limit of one attempt (default: 600)"
    )


def _add_request(command: CommandParser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("request")
    group.add_argument(
        "--param",
        metavar="NAME=VALUE",
        type=_param,
        action="append",
        default=[],
        help="a field of every request that has none of that name, such as temperature=0; the value is JSON, or else "
        "a string; may be repeated",
    )
    return group


def _add_limits(command: CommandParser) -> None:
    group = command.add_argument_group("pace, time and money")
    group.add_argument(
        "--max-workers",
        metavar="N",
        type=number("calls", whole=True),
        help="calls in flight at most (default: 16, local: 8)",
    )
    group.add_argument(
        "--rpm", metavar="N", type=number("requests", least=1), help="requests per minute at most (default: found out)"
    )
    group.add_argument(
        "--tpm", metavar="N", type=number("tokens", least=1), help="tokens per minute at most (default: found out)"
    )
    group.add_argument(
        "--rpd",
        metavar="N",
        type=number("requests", least=1),
        help="requests per day at most, over several runs with --scope",
    )
    group.add_argument(
        "--tpd",
        metavar="N",
        type=number("tokens", least=1),
        help="tokens per day at most, over several runs with --scope",
    )
    group.add_argument(
        "--scope",
        metavar="NAME",
        help="keep to --rpm, --tpm, --rpd and --tpd together with other processes, and with those of the same day that "
        "have ended: a name for those of this host, redis://HOST:PORT/NAME for those of all hosts; one with a password "
        "belongs into the file of --config",
    )
    group.add_argument(
        "--wait-for-day",
        action="store_true",
        help="wait when a limit per day is used up, the server's too (default: end, and say when to go on)",
    )
    group.add_argument(
        "--retries",
        metavar="N",
        type=number("retries", whole=True, least=0),
        help="attempts after the first; 0 for none (default: 8, and more while other calls succeed)",
    )
    group.add_argument("--run-timeout", metavar="SECONDS", type=seconds, help="limit of the whole run (default: none)")
    group.add_argument(
        "--prices", "--price", metavar="IN,OUT", type=prices, help=f"dollars per million tokens: {PRICES_HELP}"
    )
    group.add_argument(
        "--budget",
        metavar="AMOUNT",
        type=_budget,
        help="spend no more: dollars, such as 5 (needs --prices), or tokens, such as 2000000tokens",
    )


def _add_cache(command: CommandParser) -> None:
    command.add_argument_group("cache").add_argument(
        "--cache",
        metavar="FILE",
        help="keep answers in this file, and answer requests from it that are identical to earlier ones",
    )


class _Louder(argparse._CountAction):
    """Counts from 0, where argparse counts from the default: that may be of a file of options."""

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option_string: Optional[str] = None) -> None:
        namespace.counted_verbosity = getattr(namespace, "counted_verbosity", 0) + 1
        namespace.verbosity = namespace.counted_verbosity


class _Fallbacks(argparse._AppendAction):
    """Appends to a list of the command line's own, in the place of that of a file of options."""

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option_string: Optional[str] = None) -> None:
        namespace.given_fallbacks = namespace.fallback = [*getattr(namespace, "given_fallbacks", ()), values]


def add_messages(command: CommandParser) -> argparse._ArgumentGroup:
    """Add ``--config``, ``--quiet`` and ``--verbose``, and return their group."""
    group = command.add_argument_group("messages and settings")
    group.add_argument(
        "--config", metavar="FILE", help="options in TOML, by their long names; those of the command line go before it"
    )
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q",
        "--quiet",
        action="store_const",
        dest="verbosity",
        const=QUIET,
        default=0,
        help="say only what went wrong",
    )
    loudness.add_argument(
        "-v", "--verbose", action=_Louder, dest="verbosity", default=0, help="show retries; -vv shows every attempt too"
    )
    return group


# -- the pool -------------------------------------------------------------------------------------------------


def pool_options(arguments: Namespace) -> Dict[str, Any]:
    """Return the arguments of a ChatPool that the options describe, all but its server, its model and its workers.

    Raises:
        ConfigurationError: options that do not go together.
    """
    defaults = dict(arguments.param)
    if "prompt" in defaults and not names_sounds(getattr(arguments, "url", None)):  # where it is about the sound
        raise ConfigurationError(f"--param: prompt is no parameter here: {_PROMPT_ELSEWHERE}")
    options: Dict[str, Any] = {
        "system": arguments.system,
        "timeout": arguments.timeout,
        "retry": arguments.retries,
        "headers": dict(arguments.header),
        "defaults": defaults,
        "fallbacks": arguments.fallback or None,
        "cache": arguments.cache,
    }
    if arguments.wait_for_day:
        options["wait_for_day"] = True
    limits = {"requests_per_minute": arguments.rpm, "tokens_per_minute": arguments.tpm, "scope": arguments.scope}
    limits.update(requests_per_day=arguments.rpd, tokens_per_day=arguments.tpd)
    if any(value is not None for value in limits.values()):
        options["limits"] = Limits(**limits)
    if arguments.budget is not None:
        if "cost" in arguments.budget and arguments.prices is None:
            raise ConfigurationError(
                "--budget in dollars needs --prices, such as --prices 0.15,0.60; or name tokens: --budget 2000000tokens"
            )
        options["budget"] = Budget(**arguments.budget, prices=arguments.prices)
    return options
