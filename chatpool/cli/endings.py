"""How a command ends: every way out becomes an exit code, and at most one line on stderr."""

from __future__ import annotations

import contextlib
import signal
import threading
from argparse import Namespace
from types import FrameType
from typing import Callable, Iterator, NoReturn, Optional

from ..errors import ChatPoolError, ConfigurationError
from . import exits
from .terminal import complain, flush, settle_output

__all__ = ["ending"]


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
        return exits.TERMINATED
    except KeyboardInterrupt:
        complain("interrupted")
        return exits.INTERRUPTED
    except BrokenPipeError:
        return exits.BROKEN_PIPE
    except Exception as error:
        return _failed(error)
    finally:
        settle_output()


def _failed(error: Exception) -> int:
    if isinstance(error, ConfigurationError):
        complain(str(error))
        return exits.USAGE
    complain(f"{type(error).__name__}: {error}")
    if not isinstance(error, (ChatPoolError, OSError)):
        complain("this should not happen; please report it with the command that led to it")
    return exits.FATAL


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
