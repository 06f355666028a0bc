"""Measurements in separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Mapping, Sequence, TypeVar

from .store import HERE

__all__ = ["APART", "CAP", "Overlong", "run_capped", "run_child", "run_code", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")

CAP = 120.0
"""Seconds after which a client that is compared is ended; what it has no answer for then is lost."""

APART = 6.0
"""Seconds in which a client starts, makes its first calls, and is refused: what then only waits may wait in company."""

_START = 10.0  # seconds for a child to import what it needs, beyond the cap
_LONGEST = 600  # seconds; a contender that hangs ends the benchmark with a message

# Variables that would give a contender another server, key, proxy or CA than the one it is told.
_REMOVED = ("proxy", "openai_", "ssl_cert", "requests_ca", "curl_ca", "python")


class Overlong(RuntimeError):
    """A child that did not end in time, and was killed."""


def run_child(
    module: str, spec: Mapping[str, Any], *, longest: float = _LONGEST, python: str = sys.executable
) -> Dict[str, Any]:
    """The JSON object that ``python -m benchmarks.<module> <spec>`` prints last, within ``longest`` seconds.

    Args:
        module: the module of this package.
        spec: its argument; the environment variables in ``spec["env"]`` are set for it.
        longest: the seconds that it may take.
        python: the interpreter that runs it.

    Raises:
        RuntimeError: it failed; the message holds the end of what it wrote to stderr. :class:`Overlong` if it took
            too long.
    """
    command = [python, "-m", f"{__package__}.{module}", json.dumps(spec)]
    printed = _run(command, spec.get("env") or {}, longest)
    result: Dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def run_capped(module: str, spec: Mapping[str, Any], cap: float = CAP) -> Dict[str, Any]:
    """What :func:`run_child` returns; empty if the child was ended because it took longer than ``cap`` seconds."""
    try:
        return run_child(module, spec, longest=cap + _START)
    except Overlong:
        return {}


def side_by_side(run: Callable[[T], R], trials: Sequence[T], number: int, apart: float = 0.0) -> List[R]:
    """Run trials in ``number`` threads, begun ``apart`` seconds after one another; returns their results in order."""
    with ThreadPoolExecutor(max(1, number)) as executor:
        begun = []
        for trial in trials:
            begun.append(executor.submit(run, trial))
            time.sleep(apart)
        return [future.result() for future in begun]


def run_code(code: str) -> Dict[str, Any]:
    """The JSON object that ``code`` prints last, run in a fresh interpreter that can import this source tree."""
    result: Dict[str, Any] = json.loads(_run([sys.executable, "-c", code], {}).splitlines()[-1])
    return result


def _run(command: List[str], env: Mapping[str, str], longest: float = _LONGEST) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=HERE.parent,
            env=_environment(env),
            capture_output=True,
            text=True,
            timeout=longest,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Overlong(f"{command[-1]}: did not end within {longest:g} s") from error
    if done.returncode != 0 or not done.stdout.strip():
        raise RuntimeError(f"{command[-1]}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def _environment(more: Mapping[str, str]) -> Dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not any(part in name.lower() for part in _REMOVED)}
    return {**kept, **more}
