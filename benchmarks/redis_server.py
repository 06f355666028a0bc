"""A Redis of the benchmark's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from typing import Iterator

__all__ = ["running"]


@contextmanager
def running() -> Iterator[str]:
    """Lend the URL of a Redis that stores nothing: ``redis://127.0.0.1:port``.

    Raises:
        RuntimeError: there is no redis-server, or it does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("there is no redis-server: install Debian's package of that name")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            ready = any("ready to accept connections" in line.lower() for line in process.stdout or [])
            if not ready:
                raise RuntimeError("redis-server did not start")
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.communicate()
