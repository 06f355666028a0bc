"""A command's terminal: standard streams, the library's log on stderr, and exit codes.

Every end of a command becomes an exit code and at most one line on stderr.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Callable, Iterator, List, Set

from .._redaction import printable
from ..batch.signals import sigterm_raises
from ..errors import ChatPoolError, ConfigurationError, JournalBusyError

__all__ = [
    "BUSY",
    "FATAL",
    "OK",
    "SOME_FAILED",
    "complain",
    "log_lines",
    "present_streams",
    "read_lines",
    "read_text",
    "run_to_exit_code",
    "show",
    "tolerant_streams",
]

_logger = logging.getLogger("chatpool")

# Exit codes.
OK = 0
SOME_FAILED = 1
_USAGE = 2
FATAL = 3
BUSY = 75  # EX_TEMPFAIL of sysexits.h: schedulers may be told to try again
# As shells report a death by signal: 128 + its number.
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TERMINATED = 143


def tolerant_streams() -> None:
    """Write characters that a terminal lacks as escapes, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent where the program has replaced the stream
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def present_streams() -> Iterator[None]:
    """Within the block, a standard stream that was closed before the program began is the null device.

    Python has None for it.  As these are opened in the order of their numbers, no file of the program gets the number
    of a standard stream, where other programs and libraries would write into it.
    """
    with contextlib.ExitStack() as stack:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                stack.callback(setattr, sys, name, None)
                setattr(sys, name, stack.enter_context(open(os.devnull, mode, encoding="utf-8")))
        yield


def complain(message: str) -> None:
    """Print one line on stderr; that nobody can read it ends nothing."""
    with contextlib.suppress(OSError, ValueError):
        lines = filter(None, map(str.strip, message.splitlines()))
        print("chatpool: " + printable(" ".join(lines)), file=sys.stderr, flush=True)


class _LogLines(logging.Handler):
    """Shows the library's log; equal warnings once, as many calls may cause the same."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._warned: Set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        if record.levelno >= logging.WARNING:
            if text in self._warned:
                return
            self._warned.add(text)
        complain(text)


@contextlib.contextmanager
def log_lines(verbosity: int = 0) -> Iterator[None]:
    """Within the block, show the library's warnings on stderr.

    Args:
        verbosity: 1 for retries as well (level INFO), 2 for every attempt (DEBUG).
    """
    level = logging.WARNING if verbosity < 1 else logging.INFO if verbosity == 1 else logging.DEBUG
    before, handler = _logger.level, _LogLines(level)
    if verbosity > 0:
        _logger.setLevel(level)
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(before)


def show(text: str = "", end: str = "\n") -> None:
    """Print a server's text: unchanged into a file or a pipe, without control characters on a terminal."""
    isatty = getattr(sys.stdout, "isatty", None)  # absent where the program has replaced the stream
    print(printable(text) if isatty and isatty() else text, end=end, flush=True)


def read_text() -> str:
    """Return all of stdin."""
    if sys.stdin.isatty():
        complain("reading the prompt from the terminal; end it with Ctrl-D (Ctrl-Z on Windows)")
    return _decode(sys.stdin.buffer.read())


def read_lines() -> Iterator[str]:
    """Yield the lines of stdin as they arrive, stripped; blank ones are left out."""
    for raw in sys.stdin.buffer:
        line = _decode(raw).strip()
        if line:
            yield line


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"stdin is not UTF-8 text: {error}") from error


class _Terminated(KeyboardInterrupt):
    """SIGTERM; code that cleans up after Ctrl-C cleans up after it as well."""


def run_to_exit_code(command: Callable[[List[str]], int], command_line: List[str]) -> int:
    """Run ``command`` and return the exit code; no exception leaves but SystemExit."""
    try:
        with sigterm_raises(_Terminated):
            code = command(command_line)
            sys.stdout.flush()
            return code
    except _Terminated:
        complain("terminated")
        return _TERMINATED
    except KeyboardInterrupt:
        complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        return _BROKEN_PIPE
    except Exception as error:
        return _exit_code_of(error)
    finally:
        _flush_or_discard()


def _flush_or_discard() -> None:
    """Flush; if that fails, send the rest to the null device.

    Otherwise the interpreter's last flush would fail too, and replace the exit code.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_code_of(error: Exception) -> int:
    """Report an error and return the exit code for it."""
    if isinstance(error, ConfigurationError):
        complain(str(error))
        return BUSY if isinstance(error, JournalBusyError) else _USAGE
    complain(f"{type(error).__name__}: {error}")
    if not isinstance(error, (ChatPoolError, OSError)):
        complain("this should not happen; please report it with the command that led to it")
    return FATAL
