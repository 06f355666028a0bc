"""Simulate a job of your own: ``python -m benchmarks.scale --rows 2e6 --hosts 10 --shard-rows 2000``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Optional, Sequence

from .flow import simulate
from .job import Job

__all__ = ["main"]


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Print the figures of the job that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition(":")[0])
    for field in fields(Job):
        option = f"--{field.name.replace('_', '-')}"
        kind = _whole if isinstance(field.default, int) else float
        parser.add_argument(option, type=kind, default=field.default, metavar="N", help="default: %(default)s")
    job = Job(**vars(parser.parse_args(argv)))
    ran = simulate(job)
    print(f"{job.shards:,} shards; quota {job.quota_per_second:,.1f} calls/s, {job.host_per_second:,.1f} of each host")
    print(f"{ran.seconds / 3600:,.2f} h, {100 * (ran.seconds / job.ideal_seconds - 1):.1f} % over the ideal")
    print(f"quota not used up in the last {(ran.seconds - ran.full_seconds) / 60:,.1f} min")
    print(f"{ran.deaths:,} hosts died, {ran.takeovers:,} shards taken over, {ran.repeated:,.0f} rows sent again")


def _whole(text: str) -> int:
    number = float(text)
    if number < 1 or number != int(number):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, got {text}")
    return int(number)


if __name__ == "__main__":
    main()
