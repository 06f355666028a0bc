"""Real programs as the tests start them: on loopback, in a folder of their own, ended with the block."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from benchmarks.debian import binary, quiet_port, wait_until_up

__all__ = ["MISSING", "environment_python", "microsocks", "running", "tinyproxy"]

MISSING = "there is no {}: `make test-servers` installs it (scripts/server-tests.sh)"

SLOW_START = 120  # seconds, for those that import or load much


@contextlib.contextmanager
def running(command, port, folder, *, within=SLOW_START, env=None, wait=True, stdin=subprocess.DEVNULL):
    """The process, as soon as it accepts connections on ``port``, or at once without ``wait``."""
    log = Path(folder, "said")
    with open(log, "ab") as said:
        process = subprocess.Popen(
            command, stdin=stdin, stdout=said, stderr=said, cwd=folder, env={**os.environ, **(env or {})}
        )
    try:
        if wait:
            wait_until_up(process, port, log, within)
        yield process
    finally:
        process.kill()
        process.wait(30)
        if process.stdin is not None:
            process.stdin.close()


def environment_python(variable, name):
    """The interpreter of an environment that the tests have for a program of PyPI's."""
    python = os.environ.get(variable, "")
    assert Path(python).exists(), MISSING.format(f"environment with {name} (its interpreter in {variable})")
    return python


_TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 100
Allow 127.0.0.1
LogLevel Info
PidFile "{folder}/pid"
{more}
"""


@contextlib.contextmanager
def tinyproxy(folder, more=""):
    """``host:port`` of an HTTP proxy.

    Args:
        folder: for its files.
        more: further lines of its configuration.
    """
    program, port = _debians("tinyproxy"), quiet_port()
    Path(folder, "config").write_text(_TINYPROXY.format(port=port, folder=folder, more=more))
    with running([program, "-d", "-c", str(Path(folder, "config"))], port, folder):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def microsocks(folder, *options):
    """``host:port`` of a SOCKS proxy."""
    program, port = _debians("microsocks"), quiet_port()
    with running([program, "-i", "127.0.0.1", "-p", str(port), *options], port, folder):
        yield f"127.0.0.1:{port}"


def _debians(name):
    assert Path(binary(name)).exists(), MISSING.format(name)
    return binary(name)
