"""Command line: run benchmarks, store their measurements, render RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from typing import List, NamedTuple, Optional, Sequence

from . import machine
from .measure import set_rounds
from .registry import BENCHMARKS, Benchmark, chosen
from .store import HERE, render, save, write
from .supervisor import supervised
from .tables import Table, markdown


class Step(NamedTuple):
    """One benchmark of a run, and the time that it took.

    Attributes:
        name: the benchmark's.
        outcome: ``"measured"``, ``"left out"`` or ``"FAILED"``.
        seconds: all of them, with those for servers and interpreters that were fetched first.
    """

    name: str
    outcome: str
    seconds: float


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run what the command line says; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.list:
        for benchmark in BENCHMARKS:
            print(f"{benchmark.name:12} {benchmark.summary}{' (by its name only)' if benchmark.apart else ''}")
        return 0
    if options.rounds:
        set_rounds(options.rounds)
    try:
        benchmarks = [] if options.render else chosen(options.names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    steps = [_ran(benchmark, quick=options.quick) for benchmark in benchmarks]
    if not options.quick:
        _write_results()
    print(_times(steps), end="", file=sys.stderr)
    return 1 if any(step.outcome == _FAILED for step in steps) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure chatpool against other clients.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="benchmarks to run (default: all but ablation and million)"
    )
    parser.add_argument("--list", action="store_true", help="show what there is, and end")
    parser.add_argument("--quick", action="store_true", help="few calls and rounds; nothing is stored")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds, of those that take turns (default: 2 to 4)")
    parser.add_argument("--render", action="store_true", help="only write RESULTS.md again from what is stored")
    return parser


_MEASURED, _LEFT_OUT, _FAILED = "measured", "left out", "FAILED"


def _ran(benchmark: Benchmark, *, quick: bool) -> Step:
    """Run one; that it cannot be run keeps none of the others from being run and stored."""
    started = time.monotonic()
    try:
        outcome = _MEASURED if _run(benchmark, quick=quick) else _LEFT_OUT
    except RuntimeError as error:
        print(f"{benchmark.name}: {error}", file=sys.stderr)
        outcome = _FAILED
    except Exception:
        traceback.print_exc()
        outcome = _FAILED
    return Step(benchmark.name, outcome, time.monotonic() - started)


def _run(benchmark: Benchmark, *, quick: bool) -> bool:
    """Run, show and store one; False if it leaves itself out, for a reason that it has printed."""
    print(f"\n## {benchmark.name}: {benchmark.summary}\n", flush=True)
    benchmark.prepare(quick)
    facts = machine.describe(benchmark.versions())
    started = time.monotonic()
    samples = benchmark.measure(quick)
    if not samples:
        return False
    print(f"({time.monotonic() - started:.0f} s)\n", file=sys.stderr)
    for table in benchmark.tables(samples):
        print(markdown(table), flush=True)
    if not quick:
        save(benchmark.name, facts, samples)
    return True


def _times(steps: Sequence[Step]) -> str:
    """The time of each benchmark, and of all."""
    lines = [f"{step.outcome:8} {step.seconds:6,.0f} s  {step.name}\n" for step in steps]
    total = sum(step.seconds for step in steps)
    return "".join(["\n", *lines, f"{'':8} {total:6,.0f} s  in all\n"]) if steps else ""


def _write_results() -> None:
    path = HERE / "RESULTS.md"
    write(path, render(BENCHMARKS, _tables))
    print(f"written: {path}", file=sys.stderr)


def _tables(benchmark: Benchmark, samples: Sequence[object]) -> List[Table]:
    return benchmark.tables(samples)  # type: ignore[arg-type]  # samples come from JSON


if __name__ == "__main__":
    sys.exit(supervised(main))
