"""Command line: run benchmarks, store their measurements, render RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import time
from typing import List, Optional, Sequence

from . import machine
from .measure import set_rounds
from .registry import BENCHMARKS, Benchmark, chosen
from .store import HERE, render, save, write
from .supervisor import supervised
from .tables import Table, markdown


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run what the command line says; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.list:
        for benchmark in BENCHMARKS:
            print(f"{benchmark.name:10} {benchmark.summary}")
        return 0
    if options.rounds:
        set_rounds(options.rounds)
    try:
        benchmarks = [] if options.render else chosen(options.names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    failed = [benchmark.name for benchmark in benchmarks if not _ran(benchmark, quick=options.quick)]
    if not options.quick:
        _write_results()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure chatpool against other clients.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--list", action="store_true", help="show what there is, and end")
    parser.add_argument("--quick", action="store_true", help="few calls and rounds; nothing is stored")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of the benchmark cost (default: 5)")
    parser.add_argument("--render", action="store_true", help="only write RESULTS.md again from what is stored")
    return parser


def _ran(benchmark: Benchmark, *, quick: bool) -> bool:
    """Run one; False if it could not be run: that keeps none of the others from being run and stored."""
    try:
        _run(benchmark, quick=quick)
    except RuntimeError as error:
        print(f"{benchmark.name}: {error}", file=sys.stderr)
        return False
    return True


def _run(benchmark: Benchmark, *, quick: bool) -> None:
    print(f"\n## {benchmark.name}: {benchmark.summary}\n", flush=True)
    facts = machine.describe(benchmark.versions())
    started = time.monotonic()
    samples = benchmark.measure(quick)
    if not samples:  # it has said why
        return
    print(f"({time.monotonic() - started:.0f} s)\n", file=sys.stderr)
    for table in benchmark.tables(samples):
        print(markdown(table), flush=True)
    if not quick:
        save(benchmark.name, facts, samples)


def _write_results() -> None:
    path = HERE / "RESULTS.md"
    write(path, render(BENCHMARKS, _tables))
    print(f"written: {path}", file=sys.stderr)


def _tables(benchmark: Benchmark, samples: Sequence[object]) -> List[Table]:
    return benchmark.tables(samples)  # type: ignore[arg-type]  # samples come from JSON


if __name__ == "__main__":
    sys.exit(supervised(main))
