"""One row of the table, to work on it: ``python -m benchmarks.overload ROW [WORKERS] [CLIENT]``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import List, Sequence

from ..contenders import CONTENDERS
from ..supervisor import supervised
from .model_server import Entry
from .trials import CAP, CHATPOOL, ROWS, Trial, run


def main() -> int:
    """Run what the command line says; prints the sample, and what the server said second by second."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__.partition(":")[0])
    parser.add_argument("row", choices=list(ROWS))
    parser.add_argument("workers", nargs="?", type=int, help="calls in flight at most (default: the row's first)")
    parser.add_argument("client", nargs="?", default=CHATPOOL, choices=list(CONTENDERS))
    parser.add_argument("--cap", type=float, default=CAP, metavar="S", help="seconds until it is ended (%(default)g)")
    options = parser.parse_args()
    workers = options.workers or ROWS[options.row].workers[0]
    sample, log = run(Trial(options.row, options.client, workers), options.cap)
    print("per second, answered/refused:", " ".join(_per_second(log)))
    print(json.dumps(sample))
    return 0


def _per_second(log: Sequence[Entry]) -> List[str]:
    first = min((moment for moment, _ in log), default=0.0)
    seconds = [(int(moment - first), status == 200) for moment, status in log]
    last = max((second for second, _ in seconds), default=-1)
    return [f"{seconds.count((number, True))}/{seconds.count((number, False))}" for number in range(last + 1)]


if __name__ == "__main__":
    sys.exit(supervised(main))
