"""The delay after which a time limit ends an exchange, and a cancel wakes one, for every fault of the fault matrix.

The cases are the tests in ``tests/faults``: each records what it measured as the property ``overrun`` (seconds
beyond ``Timeout.attempt``) or ``wake_up`` (seconds from the cancel to the end of the exchange).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

from .measure import Sample, grouped, spread
from .store import HERE
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "read_report", "tables"]

LIMIT = 0.3
"""Seconds that an exchange may exceed its time limit by on an idle machine."""

_FAULTS = HERE.parent / "tests" / "faults"
_MEASURED = ("overrun", "wake_up")


def measure(quick: bool) -> List[Sample]:
    """The fault matrix, once per round.

    Raises:
        RuntimeError: pytest is missing, or a case fails: then there is nothing to measure.
    """
    missing = [name for name in ("pytest", "trustme") if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"the benchmark runs tests/faults and needs {', '.join(missing)}: install the extra 'test'")
    samples: List[Sample] = []
    for turn in range(1 if quick else 2):
        samples += [{"round": turn, **found} for found in _run_matrix()]
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def _run_matrix() -> List[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, str(_FAULTS)]
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the fault matrix does not pass:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        return list(read_report(report.read_text(encoding="utf-8")))


def read_report(xml: str) -> Iterator[Sample]:
    """Return the measurements in a JUnit report: ``test``, ``case``, ``what`` and ``seconds``."""
    for case in ElementTree.fromstring(xml).iter("testcase"):
        test, _, parameters = case.get("name", "").partition("[")
        for recorded in case.iter("property"):
            if recorded.get("name") in _MEASURED:
                yield {
                    "test": test,
                    "case": parameters.rstrip("]"),
                    "what": recorded.get("name"),
                    "seconds": float(recorded.get("value", "nan")),
                }


def tables(samples: Sequence[Sample]) -> List[Table]:
    """The worst of all, and every case."""
    kinds: Dict[object, List[Sample]] = dict(grouped(samples, "what"))
    bounds = [
        Bound(f"{title}: seconds, worst case of each round", spread(_worst(kinds[what])), LIMIT, digits=3)
        for what, title in (("overrun", "overrun of a time limit"), ("wake_up", "from cancel to wake-up"))
        if what in kinds
    ]
    return [bounds_table(bounds), *(_table(str(what), found) for what, found in kinds.items())]


def _worst(samples: Sequence[Sample]) -> List[float]:
    return [max(sample["seconds"] for sample in found) for found in grouped(samples, "round").values()]


def _table(what: str, samples: Sequence[Sample]) -> Table:
    cases: Dict[Tuple[str, str], List[Sample]] = dict(grouped(samples, "test", "case"))  # type: ignore[arg-type]
    rows = [
        [f"{_words(test)}: {_words(case)}".rstrip(": "), spread(sample["seconds"] for sample in found).show(1, 1000)]
        for (test, case), found in cases.items()
    ]
    title = "Overrun of Timeout.attempt" if what == "overrun" else "From cancel to wake-up"
    return Table(title, ("case", "milliseconds"), rows)


def _words(name: str) -> str:
    return name.replace("test_", "", 1).replace("_", " ").replace("-", ", ")
