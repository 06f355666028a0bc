"""The machine of a measurement."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Dict, Iterable

from .store import HERE

__all__ = ["commit", "describe"]

# What the benchmarks write: their results, and drawings for the documentation.
_WRITTEN = (":!benchmarks/RESULTS.md", ":!benchmarks/results", ":!docs/explanation/*.svg")
_CHANGES = ("status", "--porcelain", "--", ".", *_WRITTEN)
_PACKAGES = (
    *("chatpool", "requests", "urllib3", "tenacity", "tqdm", "openai", "httpx", "httpx2", "aiohttp", "orjson"),
    *("async-batch-llm", "flexllm"),
)


def describe(extra: Iterable[str] = ()) -> Dict[str, str]:
    """Commit, machine, kernel, Python and package versions, by name, as text."""
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": f"{os.cpu_count()} x {_cpu()}, {_memory()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(_versions(_PACKAGES)),
        "load before": _load(),
    }
    server = ", ".join(extra)
    return {**facts, "server": server} if server else facts


def commit(root: Path = HERE.parent) -> str:
    """The commit of this source tree, as ``1bcbfc5`` or ``1bcbfc5 with changes``; ``unknown`` outside of a repository.

    Changes of what a run writes itself are none.
    """
    if not (root / ".git").exists():
        return "unknown"
    try:
        short, changes = (_git(root, *command) for command in (("rev-parse", "--short", "HEAD"), _CHANGES))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{short} with changes" if changes else short


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _versions(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue


def _load() -> str:
    try:
        return f"{os.getloadavg()[0]:.2f}"
    except (AttributeError, OSError):
        return "unknown"


def _cpu() -> str:
    found = _first(r"model name\s*:\s*(.+)", "/proc/cpuinfo")
    return found or platform.processor() or platform.machine()


def _memory() -> str:
    found = _first(r"MemTotal:\s*(\d+) kB", "/proc/meminfo")
    return f"{int(found) / 2**20:.1f} GiB" if found else "memory unknown"


def _first(pattern: str, path: str) -> str:
    try:
        match = re.search(pattern, Path(path).read_text())
    except OSError:
        return ""
    return match.group(1).strip() if match else ""
