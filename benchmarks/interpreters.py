"""The cost of a call under several Pythons: newer ones, and CPython with and without its global lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from . import nginx
from .children import run_child
from .contenders import BASELINE, CONTENDERS
from .cost_tables import cpu_per_call, rate
from .measure import Sample, grouped, ratios, rotated, rounds, spread
from .store import HERE
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "prepare", "tables"]

_ROOT = HERE.parent
_SCRIPTS, _ENVIRONMENTS = _ROOT / "scripts", _ROOT / ".venvs"
_INPUTS = (_ROOT / "setup.cfg", _SCRIPTS / "make_venv.py")
_SKIPPED = 77  # the exit code of scripts that cannot have an interpreter

_THIS, _LOCKED, _FREE = "this one", "3.13 with the lock", "3.13 without the lock"
_CONTENDERS = (BASELINE, "transport", "chatpool")
_AT_ONCE = (1, 16, 64)
_ROUNDS, _CALLS = 3, 800  # for less than three minutes with five interpreters
_GROWTH, _GAIN = 1.3, 1.0

Cells = Dict[Tuple[str, int, str], List[Sample]]


class Interpreter(NamedTuple):
    """An interpreter, with what chatpool needs and nothing else.

    Attributes:
        name: what the report calls it.
        python: the path of its program, in an environment of its own.
    """

    name: str
    python: str

    @property
    def env(self) -> Dict[str, str]:
        """Environment variables for it."""
        return {"PYTHON_GIL": "0"} if self.name == _FREE else {}


_ready: List[Interpreter] = []


def prepare(quick: bool) -> None:
    """Make the environments, and first the interpreters themselves; those that cannot be had are left out."""
    if not _ready:
        _ready.extend(Interpreter(name, _environment(name, python)) for name, python in _pythons())


def _pythons() -> Iterator[Tuple[str, str]]:
    yield _THIS, sys.executable
    for path in _made_by("new_pythons.sh"):
        yield Path(path).name.replace("python", ""), path
    for name, options in ((_LOCKED, ["--with-gil"]), (_FREE, [])):
        for path in _made_by("freethreaded_python.sh", *options):
            yield name, path


def _made_by(script: str, *options: str) -> List[str]:
    """Return the paths that a script prints; none, with its message, where it cannot have them."""
    done = subprocess.run([_SCRIPTS / script, *options], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, _SKIPPED):
        raise RuntimeError(f"scripts/{script} has ended with exit code {done.returncode}")
    return done.stdout.splitlines() if done.returncode == 0 else []


def _environment(name: str, python: str) -> str:
    """Return the interpreter of the environment, which is made where it is missing or older than its inputs."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    folder = _ENVIRONMENTS / f"interpreter-{version}-{name.replace(' ', '-')}"
    stamp, made = folder / ".ready", folder / "bin" / "python"
    fresh = made.exists() and stamp.exists()
    if not fresh or any(path.stat().st_mtime > stamp.stat().st_mtime for path in _INPUTS):
        command = [python, str(_SCRIPTS / "make_venv.py"), str(folder)]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            raise RuntimeError(f"the environment of Python {name} cannot be made")
        stamp.touch()
    return str(made)


def measure(quick: bool) -> List[Sample]:
    """Every client under every interpreter in turn, round by round."""
    prepare(quick)
    turns = [(found, contender) for found in _ready for contender in _CONTENDERS]
    samples: List[Sample] = []
    with nginx.running() as server:
        for turn in range(rounds(1 if quick else _ROUNDS)):
            for workers in _AT_ONCE:
                target = {"base_url": server.base_url("fast"), "workers": workers}
                for found, contender in rotated(turns, turn * len(_CONTENDERS) + turn):
                    samples.append({"round": turn, **_run(found, contender, target, _CALLS // 2 if quick else _CALLS)})
                print(f"round {turn + 1}: {workers} in flight", file=sys.stderr)
    return samples


def _run(found: Interpreter, contender: str, target: Dict[str, Any], calls: int) -> Dict[str, Any]:
    workers = target["workers"]
    spec = {"contender": contender, "target": target, "calls": calls, "warm_up": max(20, 2 * workers), "env": found.env}
    used = run_child("interpreters_child", spec, python=found.python)
    if found.name == _FREE and used["lock"]:
        raise RuntimeError("the interpreter without the global lock has turned it on")
    return {"interpreter": found.name, "workers": workers, "contender": contender, **used}


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds of threads without the lock, the interpreters, and the CPU and the rate under each of them."""
    cells: Cells = dict(grouped(samples, "interpreter", "workers", "contender"))  # type: ignore[arg-type]
    bounds = list(_bounds(cells))
    return [
        *([bounds_table(bounds)] if bounds else []),
        _interpreters(samples),
        _cpu_table(cells),
        _rate_table(cells),
    ]


def _bounds(cells: Cells) -> Iterator[Bound]:
    """Threads must not be in each other's way where no lock keeps them apart."""
    alone, crowds = _AT_ONCE[0], _AT_ONCE[1:]
    for workers in crowds:
        if (_FREE, workers, "chatpool") in cells:
            over = ratios(cells[_FREE, workers, "chatpool"], cells[_FREE, alone, "chatpool"], cpu_per_call)
            what = f"CPU: `pool.map`, Python {_FREE}; {workers} in flight over {alone}"
            yield Bound(what, spread(over), _GROWTH)
    for workers in crowds:
        measured = _over(cells, _FREE, _LOCKED, workers)
        if measured is not None:
            what = f"calls/s: `pool.map`, Python {_FREE} over {_LOCKED}; {workers} in flight"
            yield Bound(what, measured, _GAIN, at_least=True)


def _over(cells: Cells, name: str, reference: str, workers: int) -> Any:
    found, base = cells.get((name, workers, "chatpool")), cells.get((reference, workers, "chatpool"))
    return spread(ratios(found, base, rate)) if found and base else None


def _interpreters(samples: Sequence[Sample]) -> Table:
    rows = []
    for name, group in grouped(samples, "interpreter").items():
        own = [sample for sample in group if sample["contender"] != BASELINE]
        at_once = 1 - sum(sample["line_by_line"] for sample in own) / len(own)
        rows.append([str(name), group[0]["python"], "yes" if group[0]["lock"] else "no", f"{at_once:.1%}"])
    note = "The fast path parses the head of a response at once; chatpool reads others line by line."
    return Table("Interpreters", ("Python", "version", "global lock", "heads by the fast path"), rows, note)


def _cpu_table(cells: Cells) -> Table:
    def cell(name: str, workers: int, contender: str) -> str:
        found, base = cells.get((name, workers, contender)), cells.get((name, workers, BASELINE))
        if not found or not base:
            return "-"
        relative = spread(ratios(found, base, cpu_per_call))
        return f"{relative.show()}; {spread(map(cpu_per_call, found)).median * 1000:.2f} ms"

    note = "Relative to bare urllib3 under the same Python in the same round, and the median in milliseconds."
    return _table(cells, "CPU per call", note, cell)


def _rate_table(cells: Cells) -> Table:
    def cell(name: str, workers: int, contender: str) -> str:
        found = cells.get((name, workers, contender))
        return spread(map(rate, found)).show(0) if found else "-"

    return _table(cells, "Calls per second", "The server runs on the same machine.", cell)


def _table(cells: Cells, title: str, note: str, cell: Any) -> Table:
    names = list(dict.fromkeys(name for name, _, _ in cells))
    rows = [
        [name, CONTENDERS[contender].title, *(cell(name, workers, contender) for workers in _AT_ONCE)]
        for name in names
        for contender in _CONTENDERS
    ]
    return Table(title, ("Python", "client", *(f"C={workers}" for workers in _AT_ONCE)), rows, note)
