"""Standard streams: text that survives any terminal, prompts from stdin, complaints on stderr."""

from __future__ import annotations

import os
import sys
from typing import Iterator

from ..errors import ConfigurationError

__all__ = ["complain", "drop_output", "read_lines", "read_text", "tolerant_streams"]


def tolerant_streams() -> None:
    """Show what a terminal cannot write as escapes, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent where the program has replaced the stream
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """One line on stderr."""
    print("chatpool: " + " ".join(message.split()), file=sys.stderr, flush=True)


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


def drop_output() -> None:
    """Send what is still to be written nowhere, so that the interpreter's last flush does not fail too."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # a stream that is no file
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
