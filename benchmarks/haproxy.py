"""Debian's haproxy."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .debian import binary, install

__all__ = ["version"]


def version() -> str:
    """Such as ``haproxy/2.6.12``; installs it where it is missing."""
    if not Path(binary("haproxy")).exists():
        install(["haproxy"])
    said = subprocess.run([binary("haproxy"), "-v"], capture_output=True, text=True, check=True).stdout
    return f"haproxy/{said.split()[2].partition('-')[0]}, one thread"
