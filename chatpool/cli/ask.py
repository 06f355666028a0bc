"""``chatpool ask``: answers on stdout, failures on stderr, and the exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from argparse import Namespace
from collections import Counter
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Sequence

from .. import ChatPool, attach
from ..batch.jsonl import escape_line_breaks, json_text, without_nan
from ..errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    DayLimitError,
    InsufficientQuotaError,
    NotFoundError,
    PermissionDeniedError,
)
from ..local import LocalServer
from ..types import ChatChunk, ChatCompletion, Item, Outcome
from .command_parser import CommandParser
from .shared_options import QUIET, add_call_options, add_version, pool_options
from .terminal import FATAL, OK, SOME_FAILED, complain, read_lines, read_text, show

__all__ = ["add_ask", "open_pool"]

# No prompt can succeed after these ...
_ALWAYS_FATAL = (AuthenticationError, BudgetExceededError, DayLimitError, InsufficientQuotaError)
# ... and after these none will, if none has succeeded before.
_FATAL_AT_FIRST = (APIConnectionError, NotFoundError, PermissionDeniedError)

_DEFAULT_WORKERS = 16
_DEFAULT_LOCAL_WORKERS = 8


def add_ask(commands: argparse._SubParsersAction[CommandParser], exits_text: str) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "ask",
        usage="%(prog)s [options] [PROMPT ...]",
        help="answer one prompt, or one per line of stdin",
        description="Answer a prompt. The key is read from OPENAI_API_KEY.",
        epilog=exits_text,
    )
    add_version(command)
    group = command.add_argument_group("prompts and answers")
    group.add_argument(
        "prompt", metavar="PROMPT", nargs="*", help="the words of one prompt; without any, all of stdin is the prompt"
    )
    group.add_argument(
        "--lines", action="store_true", help="every line of stdin is a prompt of its own; answers come in their order"
    )
    group.add_argument(
        "--attach",
        metavar="FILE",
        action="append",
        default=[],
        help="a file or a URL to send with every prompt: an image, sound, PDF or text; may be repeated",
    )
    group.add_argument("--stream", action="store_true", help="print the answer as the model writes it")
    group.add_argument("--allow-empty", action="store_true", help="no prompt at all is no error")
    add_call_options(command, "one JSON object per prompt and line, with all facts")
    command.set_defaults(run=_ask)


def _ask(arguments: Namespace) -> int:
    """Answer the prompts and print the answers in their order, each as soon as it and those before it are there."""
    prompts, prompt = _prompts(arguments), _with_files(arguments.attach)
    printer = _Printer(as_json=arguments.json, keep_places=arguments.lines)
    with open_pool(arguments) as pool:
        if arguments.stream:
            _stream(pool, prompts, prompt, printer, arguments.run_timeout)
        else:
            options: Dict[str, Any] = {"progress": _progress(arguments), "run_timeout": arguments.run_timeout}
            for outcome in pool.imap(prompts, prompt=prompt, **options):
                printer.show(outcome)
    if not (printer.shown or arguments.allow_empty):
        raise ConfigurationError(
            "no prompt was given: pass it as arguments or on stdin, or --allow-empty if that is right"
        )
    return printer.finish()


def _with_files(sources: Sequence[str]) -> Optional[Callable[[str], Item]]:
    """Return a function that puts files beside a prompt, None if there are none."""
    attachments = [attach(source) for source in sources]
    return (lambda text: [text, *attachments]) if attachments else None


def _stream(
    pool: ChatPool,
    prompts: Iterable[str],
    prompt: Optional[Callable[[str], Item]],
    printer: _Printer,
    run_timeout: Optional[float],
) -> None:
    """Print an answer as the model writes it."""
    has_text = False
    for _, piece in pool.stream_many(prompts, prompt=prompt, progress=False, run_timeout=run_timeout):
        if isinstance(piece, ChatChunk):
            has_text = has_text or bool(piece.text)
            show(piece.text, end="")
            continue
        if has_text or piece.ok:
            show()
        printer.note(piece)


def _prompts(arguments: Namespace) -> Iterable[str]:
    if arguments.stream and (arguments.lines or arguments.json):
        raise ConfigurationError("--stream prints one answer as it is written; leave out --lines and --json")
    if arguments.lines:
        if arguments.prompt:
            raise ConfigurationError("--lines reads prompts from stdin; do not pass PROMPT as well")
        return read_lines()
    text = " ".join(arguments.prompt) if arguments.prompt else read_text()
    return [text] if text.strip() else []


class _Printer:
    """Prints outcomes and keeps count.

    Args:
        as_json: one JSON object per outcome instead of the bare text.
        keep_places: print an empty line where a prompt failed, so that the answers keep their places.

    Attributes:
        shown: how many outcomes were printed.
    """

    def __init__(self, *, as_json: bool, keep_places: bool) -> None:
        self._as_json = as_json
        self._keep_places = keep_places
        self.shown = 0
        self._causes: Counter[str] = Counter()
        self._first_failure: Optional[Outcome[Any]] = None
        self._fatal = False

    def show(self, outcome: Outcome[ChatCompletion]) -> None:
        """Print one outcome."""
        if self._as_json:
            show(_json(_record(outcome)))
        elif outcome.value is not None:
            show(outcome.value.text)
        elif self._keep_places:
            show()
        self.note(outcome)

    def note(self, outcome: Outcome[ChatCompletion]) -> None:
        """Count one outcome whose text is on stdout already."""
        self.shown += 1
        if outcome.error is None:
            return
        self._causes[type(outcome.error).__name__] += 1
        self._first_failure = self._first_failure or outcome
        self._fatal = self._fatal or _ends_the_run(outcome)

    def finish(self) -> int:
        """Report failures on stderr, and return the exit code."""
        first = self._first_failure
        if first is None:
            return OK
        failed = sum(self._causes.values())
        error = f"{type(first.error).__name__}: {first.error}"
        if self.shown > 1:
            causes = ", ".join(f"{count} x {name}" for name, count in self._causes.most_common())
            error = f"{failed} of {self.shown} failed ({causes}); the first was prompt {first.index + 1}: {error}"
        complain(error)
        is_fatal_at_first = failed == self.shown and isinstance(first.error, _FATAL_AT_FIRST)
        return FATAL if self._fatal or is_fatal_at_first else SOME_FAILED


def _ends_the_run(outcome: Outcome[Any]) -> bool:
    """Return True if no other prompt can succeed after this outcome.

    A prompt that was never sent and yet has the error of a response was given up because of another's fatal error.
    """
    unsent = isinstance(outcome.error, APIError) and not outcome.attempts
    return unsent or isinstance(outcome.error, _ALWAYS_FATAL)


def _json(record: Dict[str, Any]) -> str:
    """Return ``record`` on one line; in ASCII if stdout lacks a character, as Python's escapes are not JSON's."""
    try:
        line = escape_line_breaks(json.dumps(without_nan(record), ensure_ascii=False).encode("utf-8")).decode("utf-8")
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json_text(record)
    return line


def _record(outcome: Outcome[ChatCompletion]) -> Dict[str, Any]:
    record: Dict[str, Any] = {"index": outcome.index, "prompt": outcome.item, "ok": outcome.ok}
    answer = outcome.value
    if answer is not None:
        record.update(text=answer.text, model=answer.model, finish_reason=answer.finish_reason)
        record.update(usage=vars(answer.usage) if answer.usage else None, request_id=answer.request_id)
    if outcome.error is not None:
        fields = {name: getattr(outcome.error, name, None) for name in ("status_code", "code", "request_id")}
        record["error"] = {"type": type(outcome.error).__name__, "message": outcome.error.message, **fields}
    record.update(attempts=outcome.attempts, cached=outcome.cached, elapsed=round(outcome.elapsed, 3))
    return record


@contextlib.contextmanager
def open_pool(arguments: Namespace, *, needs_model: bool = True) -> Iterator[ChatPool]:
    """Give the pool that the options describe; it ends before the embedded server that it may call.

    Args:
        arguments: the options of every command that calls a server.
        needs_model: whether OpenAI's own server cannot be called without ``--model``.
    """
    workers = arguments.max_workers
    options = pool_options(arguments)
    if not arguments.local:
        options.update(
            model=_model(arguments) if needs_model else arguments.model,
            base_url=arguments.base_url,
            max_workers=_DEFAULT_WORKERS if workers is None else workers,
        )
        with ChatPool(**options) as pool:
            yield pool
        return
    if arguments.base_url or arguments.model:
        raise ConfigurationError("--local chooses the server and the model; leave out --base-url and --model")
    with LocalServer(parallel=_DEFAULT_LOCAL_WORKERS if workers is None else workers) as server:
        # The user's key is not sent to a server that needs none.
        options.update(model=server.model, base_url=server.base_url, api_key="local", max_workers=server.parallel)
        with ChatPool(**options) as pool:
            yield pool


def _model(arguments: Namespace) -> Optional[str]:
    """Return the model; only servers other than OpenAI's can be called without one."""
    if not (arguments.model or arguments.base_url or os.environ.get("OPENAI_BASE_URL")):
        raise ConfigurationError("no model was given: pass --model NAME (or --local to try the embedded one)")
    model: Optional[str] = arguments.model
    return model


def _progress(arguments: Namespace) -> Optional[bool]:
    """Show a bar for many prompts only, and only if no answers are printed between."""
    is_shown = arguments.lines and arguments.verbosity != QUIET and not sys.stdout.isatty()
    return None if is_shown else False
