"""``chatpool ask``."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from typing import Any, Dict, Iterable, Iterator, Optional

from .. import ChatPool
from ..errors import ConfigurationError
from ..local import LocalServer
from ..types import ChatChunk
from .output import Printer
from .terminal import read_lines, read_text, show

__all__ = ["ask", "open_pool"]


def ask(arguments: Namespace) -> int:
    """Answer the prompts and print the answers in their order, each as soon as it and those before it are there."""
    prompts = _prompts(arguments)
    printer = Printer(as_json=arguments.json, keep_places=arguments.lines)
    with open_pool(arguments) as pool:
        if arguments.stream:
            _stream(pool, prompts, printer)
        else:
            for outcome in pool.imap(prompts, progress=_progress(arguments)):
                printer.show(outcome)
    if not printer.shown:
        raise ConfigurationError("no prompt was given: pass it as arguments or on stdin")
    return printer.finish()


def _stream(pool: ChatPool, prompts: Iterable[str], printer: Printer) -> None:
    """Print an answer as the model writes it."""
    written = False
    for _, piece in pool.stream_many(prompts, progress=False):
        if isinstance(piece, ChatChunk):
            written = written or bool(piece.text)
            show(piece.text, end="")
            continue
        if written or piece.ok:
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


@contextlib.contextmanager
def open_pool(arguments: Namespace, *, needs_model: bool = True) -> Iterator[ChatPool]:
    """The pool that the options describe; it ends before the embedded server it may talk to.

    Args:
        arguments: the options of every command that calls a server.
        needs_model: whether OpenAI's own server cannot be called without ``--model``.
    """
    workers = arguments.max_workers
    options: Dict[str, Any] = {"system": arguments.system, "timeout": arguments.timeout}
    if not arguments.local:
        options.update(
            model=_model(arguments) if needs_model else arguments.model,
            base_url=arguments.base_url,
            max_workers=16 if workers is None else workers,
        )
        with ChatPool(**options) as pool:
            yield pool
        return
    if arguments.base_url or arguments.model:
        raise ConfigurationError("--local chooses the server and the model; leave out --base-url and --model")
    with LocalServer(parallel=8 if workers is None else workers) as server:
        # A key of the user's has no business there.
        options.update(model=server.model, base_url=server.base_url, api_key="local", max_workers=server.parallel)
        with ChatPool(**options) as pool:
            yield pool


def _model(arguments: Namespace) -> Optional[str]:
    """The model; only servers other than OpenAI's may be asked without naming one."""
    if not (arguments.model or arguments.base_url or os.environ.get("OPENAI_BASE_URL")):
        raise ConfigurationError("no model was given: pass --model NAME (or --local to try the embedded one)")
    model: Optional[str] = arguments.model
    return model


def _progress(arguments: Namespace) -> Optional[bool]:
    """A bar only where it is of use and no answers run through it."""
    return None if arguments.lines and not sys.stdout.isatty() else False
