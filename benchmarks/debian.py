"""Programs from Debian's packages, installed where they are missing."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Sequence

__all__ = ["binary", "install", "quiet_port", "wait_until_up"]

_STARTS_WITHIN = 10.0  # seconds


def binary(name: str) -> str:
    """The path of a server's program; users' PATH often lacks /usr/sbin."""
    return shutil.which(name) or f"/usr/sbin/{name}"


def install(packages: Sequence[str]) -> None:
    """Install packages, and start none of their services.

    Raises:
        RuntimeError: that is not possible here; the message says what to install.
    """
    manual = f"install it with: apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"the benchmarks need {' and '.join(packages)}; {manual}")
    # In run level 1 Debian's packages do not start the service that they install.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *command], env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"apt-get {command[0]} failed: {done.stderr[-1000:]}\n{manual}")


def quiet_port() -> int:
    """A free port below those that the system gives to clients, so that none of them takes it while it is unused."""
    for port in random.sample(range(21_000, 32_000), 100):  # others look for one at the same time
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


def wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path, within: float = _STARTS_WITHIN) -> None:
    """Return as soon as the server accepts connections.

    Raises:
        RuntimeError: it has ended, or takes too long; the message holds the end of its log.
    """
    end = time.monotonic() + within
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text()[-2000:] if log.exists() else ""
                raise RuntimeError(f"{process.args!r} does not start: {said}") from None
            time.sleep(0.02)
