"""Standard streams: text that survives any terminal, prompts from stdin, complaints on stderr.

Exit codes.

How a command ends: every way out becomes an exit code, and at most one line on stderr.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from argparse import Namespace
from types import FrameType
from typing import Callable, Iterator, NoReturn, Optional, Set

from .._redaction import printable
from ..errors import ChatPoolError, ConfigurationError

__all__ = [
    "BROKEN_PIPE",
    "FATAL",
    "INTERRUPTED",
    "OK",
    "SOME_FAILED",
    "TERMINATED",
    "USAGE",
    "complain",
    "ending",
    "flush",
    "log_lines",
    "read_lines",
    "read_text",
    "settle_output",
    "show",
    "tolerant_streams",
]


OK = 0
SOME_FAILED = 1
USAGE = 2
FATAL = 3
# As shells report a death by signal: 128 + its number.
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143


def tolerant_streams() -> None:
    """Show what a terminal cannot write as escapes, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent where the program has replaced the stream
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """One line on stderr."""
    print("chatpool: " + printable(" ".join(message.split())), file=sys.stderr, flush=True)


class _LogLines(logging.Handler):
    """Shows the library's log, and what it warns of once: many calls may meet the same."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said: Set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            words += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        if record.levelno >= logging.WARNING:
            if words in self._said:
                return
            self._said.add(words)
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more: that ends no call
            complain(words)


@contextlib.contextmanager
def log_lines(*, verbose: bool) -> Iterator[None]:
    """Within the block the library's warnings are shown on stderr, with ``verbose`` retries too."""
    logger = logging.getLogger("chatpool")
    before, handler = logger.level, _LogLines(logging.INFO if verbose else logging.WARNING)
    if verbose:
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def show(text: str = "", end: str = "\n") -> None:
    """Print what a server has written: into a file or a pipe as it is, and nothing to a terminal that it may obey."""
    isatty = getattr(sys.stdout, "isatty", None)  # absent where the program has replaced the stream
    print(printable(text) if isatty and isatty() else text, end=end, flush=True)


def read_text() -> str:
    """All of stdin."""
    if sys.stdin.isatty():
        complain("reading the prompt from the terminal; end it with Ctrl-D (Ctrl-Z on Windows)")
    return _decode(sys.stdin.buffer.read())


def read_lines() -> Iterator[str]:
    """The lines of stdin as they arrive, without their ends; blank ones are no prompts."""
    for raw in sys.stdin.buffer:
        line = _decode(raw).strip()
        if line:
            yield line


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"stdin is not UTF-8 text: {error}") from error


def flush() -> None:
    """Write what is still to be written.

    Raises:
        OSError: it cannot be.
    """
    if sys.stdout is not None:  # as it is for a program whose stdout was closed
        sys.stdout.flush()


def settle_output() -> None:
    """Flush, and where that fails send the rest nowhere: otherwise the interpreter's own last flush would fail too, and
    end the program with an exit code of its own.
    """
    try:
        flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Terminated(KeyboardInterrupt):
    """SIGTERM; whatever cleans up after Ctrl-C cleans up after it as well."""


def ending(command: Callable[[Namespace], int], arguments: Namespace) -> int:
    """Run ``command`` and return the exit code, whatever happens in it."""
    try:
        with _sigterm_raises():
            code = command(arguments)
            flush()
            return code
    except _Terminated:
        complain("terminated")
        return TERMINATED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        return _failed(error)
    finally:
        settle_output()


def _failed(error: Exception) -> int:
    if isinstance(error, ConfigurationError):
        complain(str(error))
        return USAGE
    complain(f"{type(error).__name__}: {error}")
    if not isinstance(error, (ChatPoolError, OSError)):
        complain("this should not happen; please report it with the command that led to it")
    return FATAL


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def terminate(number: int, frame: Optional[FrameType]) -> NoReturn:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
