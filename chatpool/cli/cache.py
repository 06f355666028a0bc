"""``chatpool cache stats``, ``cache clear`` and ``cache export``: files that ``--cache`` and ``cache=`` have made."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import time
from argparse import Namespace
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, Optional

from .._cache import Entry, ForeignDatabase, Store
from .._files import atomic_replace
from ..batch.jsonl import json_text
from ..errors import ConfigurationError
from .command_parser import CommandParser
from .shared_options import number
from .terminal import FATAL, OK, complain, show

__all__ = ["add_cache"]

_SECONDS_PER_DAY = 86_400


def add_cache(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the commands to the parser."""
    command = commands.add_parser("cache", help="look into a cache, or clear it", description="The file of a cache.")
    actions = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    stats = _add_action(actions, "stats", "say how much is in it")
    stats.add_argument("--json", action="store_true", help="the numbers as one JSON object")
    stats.set_defaults(run=_stats)
    clear = _add_action(actions, "clear", "remove answers from it; programs that use it may go on")
    clear.add_argument(
        "--older-than", metavar="DAYS", type=number("days", least=0), help="only those that are older (default: all)"
    )
    clear.set_defaults(run=_clear)
    export = _add_action(actions, "export", "write its answers as lines of JSON; it has no prompts and no keys")
    export.add_argument("-o", "--output", metavar="OUT", help="the file for them (default: standard output)")
    export.set_defaults(run=_export)


def _add_action(actions: argparse._SubParsersAction[CommandParser], name: str, help_text: str) -> CommandParser:
    action = actions.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    action.add_argument("file", metavar="FILE", help="the file of the cache")
    return action


@contextlib.contextmanager
def _opened(path: str, *, is_read_only: bool = True) -> Iterator[Store]:
    """Give the store in a file.

    Raises:
        ConfigurationError: the file is not there, or is none of a cache.
    """
    if not os.path.isfile(path):
        raise ConfigurationError(f"there is no file {path}")
    store = Store(path, is_read_only=is_read_only)
    try:
        store.check()
        yield store
    except ForeignDatabase as error:
        raise ConfigurationError(f"{path} is no cache, {error}") from None
    finally:
        store.close()


def _stats(arguments: Namespace) -> int:
    """Print the numbers of a cache."""
    with _opened(arguments.file) as store:
        stats = store.stats()
    if stats is None:
        return FATAL  # the log has said why
    oldest, newest = _time(stats.oldest), _time(stats.newest)
    if arguments.json:
        show(json_text({"answers": stats.answers, "bytes": stats.bytes, "oldest": oldest, "newest": newest}))
        return OK
    span = f", kept from {oldest} to {newest}" if stats.answers else ""
    show(f"{stats.answers:,} answer{'' if stats.answers == 1 else 's'}, {stats.bytes:,} bytes{span}")
    return OK


def _clear(arguments: Namespace) -> int:
    """Remove answers, and say how many."""
    days = arguments.older_than
    with _opened(arguments.file, is_read_only=False) as store:
        removed = store.clear(None if days is None else time.time() - days * _SECONDS_PER_DAY)
    if removed is None:
        return FATAL
    show(f"{removed:,} answer{'' if removed == 1 else 's'} removed")
    return OK


def _export(arguments: Namespace) -> int:
    """Write the answers of a cache."""
    count = 0
    if arguments.output is not None and os.path.realpath(arguments.output) == os.path.realpath(arguments.file):
        raise ConfigurationError(f"{arguments.output} is the cache itself: name another file for its answers")
    with _opened(arguments.file) as store:
        if store.stats() is None:
            return FATAL
        if arguments.output is None:
            for entry in store.entries():
                show(json_text(_line(entry)))
            return OK
        try:
            with atomic_replace(arguments.output) as file:
                for entry in store.entries():
                    file.write(json_text(_line(entry)).encode("ascii") + b"\n")
                    count += 1
        except OSError as error:
            raise ConfigurationError(str(error.strerror or error)) from error
    complain(f"written: {arguments.output}, {count:,} answer{'' if count == 1 else 's'}")
    return OK


def _line(entry: Entry) -> Dict[str, Any]:
    facts = json.loads(entry.facts)
    is_binary = facts.get("form") == "bytes"
    answer = {"base64": base64.b64encode(entry.answer).decode("ascii")} if is_binary else json.loads(entry.answer)
    return {**facts, "kept": _time(entry.made), "answer": answer}


def _time(at: Optional[float]) -> Optional[str]:
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
