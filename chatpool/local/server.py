"""The embedded model behind an OpenAI-compatible HTTP API on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional, Type

from ..config import positive_int
from ..errors import ConfigurationError
from .model import model_path

__all__ = ["MODEL", "LocalServer"]

MODEL = "smollm2-135m-instruct"

# 5 of 200 answers to "Say hello." went on for more than 1500 tokens; the longest of the others had 171.
_MAX_TOKENS = 1024
_START_SECONDS = 120.0
_STOP_SECONDS = 5.0


class LocalServer:
    """The embedded model as a server on 127.0.0.1, from :meth:`start` (or ``with``) to :meth:`close`.

    It runs in a child process, which ends when this process does. (The server's stop function waits for ever for a
    request in flight; in this process that would freeze every thread.)

    Now and then so small a model finds no end.  An answer to a request that sets no limit (``max_tokens``) ends after
    1024 tokens, with the finish reason ``"length"``.

    Args:
        parallel: how many requests it answers at once; more of them queue. Default 8.
        context: tokens that all requests under way may hold together, prompts and answers. Default 8192.
        threads: processor threads. Default: as many as this process may use.
        port: the port. Default 0: one that is free.
        embeddings: whether it makes embeddings too; those of so small a model are good for trying things out only.

    Attributes:
        model: the name it answers to.
        parallel: as given.

    Raises:
        ConfigurationError: an argument cannot work, or, at the start, the extra ``local`` or the model is missing.
    """

    model = MODEL

    def __init__(
        self,
        *,
        parallel: int = 8,
        context: int = 8192,
        threads: Optional[int] = None,
        port: int = 0,
        embeddings: bool = False,
    ) -> None:
        self.parallel = positive_int("parallel", parallel)
        self._settings: Dict[str, Any] = {
            "model": MODEL,
            "parallel": self.parallel,
            "context": positive_int("context", context),
            "answer_tokens": _MAX_TOKENS,
            "threads": _usable_cores() if threads is None else positive_int("threads", threads),
            "port": _port(port),
            "embeddings": bool(embeddings),
        }
        self._process: Optional[subprocess.Popen[str]] = None
        self._address: Optional[str] = None

    @property
    def base_url(self) -> str:
        """The ``base_url`` for a pool.

        Raises:
            RuntimeError: the server is not running.
        """
        if self._address is None:
            raise RuntimeError("the server is not running: call start(), or use it in a `with` statement")
        return f"{self._address}/v1"

    def start(self) -> LocalServer:
        """Start the server and wait until it answers (about a second); returns the server itself."""
        if self._process is not None:
            return self
        _check_extra()
        settings = {**self._settings, "path": str(model_path())}
        self._process = _spawn(settings)
        try:
            self._address = _await_address(self._process, self._settings["port"])
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop the server at once, whatever it is doing.  A further call does nothing."""
        process, self._process, self._address = self._process, None, None
        if process is None:
            return
        _close_input(process)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> LocalServer:
        return self.start()

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalServer {MODEL} {self._address or 'not running'}>"


def _spawn(settings: Dict[str, Any]) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("server_process.py")
    # In another group: Ctrl-C in a terminal is for this process, which then closes the server.
    group: Dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(  # noqa: S603 - a fixed command
        [sys.executable, str(program), json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        **group,
    )


def _await_address(process: subprocess.Popen[str], port: int) -> str:
    """Return the address that the child process serves, as soon as it reports it."""
    lines: List[str] = []

    def read() -> None:
        lines.append(process.stdout.readline() if process.stdout is not None else "")

    # Not every platform has a timeout for reads of a pipe; the thread ends with the child process at the latest.
    reader = threading.Thread(target=read, name="chatpool-local-start", daemon=True)
    reader.start()
    reader.join(_START_SECONDS)
    if not lines:
        raise ConfigurationError(f"the embedded model did not start within {_START_SECONDS:g} s; is the machine busy?")
    message: Dict[str, str] = json.loads(lines[0]) if lines[0].strip() else {"error": "its process ended"}
    if "address" not in message:
        advice = f"is port {port} taken? Otherwise" if port else "if the file is damaged,"
        raise ConfigurationError(
            f"the embedded model did not start ({message['error']}): {advice} run `chatpool local install` again"
        )
    return message["address"]


def _close_input(process: subprocess.Popen[str]) -> None:
    """End the child process: it ends when its input does."""
    if process.stdin is None:
        return
    try:
        process.stdin.close()
    except BrokenPipeError:  # it has ended already
        return


def _check_extra() -> None:
    if importlib.util.find_spec("xllamacpp") is not None:
        return
    if sys.version_info < (3, 10):
        raise ConfigurationError(
            "the embedded model needs Python 3.10 or newer, this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}: make a virtual environment with a newer one"
        )
    raise ConfigurationError("the embedded model needs xllamacpp: pip install 'chatpool[local]'")


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _port(port: int) -> int:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be a whole number, got {port!r}")
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"port must be between 0 (any free one) and 65535, got {port}")
    return port
