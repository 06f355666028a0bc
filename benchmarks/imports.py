"""Import time, in fresh processes: chatpool against the packages it is made of, which its users have anyway."""

from __future__ import annotations

import sys
from typing import Dict, List, Sequence

from .children import run_code
from .measure import Sample, grouped, ratios, rotated, spread
from .tables import Table

__all__ = ["measure", "tables"]

_REFERENCE = "requests, tenacity, tqdm"
_IMPORTS = (_REFERENCE, "chatpool", "openai", "aiohttp, tenacity")

_CODE = """
import json, sys, time
sys.modules["orjson"] = None  # optional, and not part of the comparison
wall, cpu = time.perf_counter(), time.process_time()
import {names}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({{"wall": wall, "cpu": cpu, "modules": len(sys.modules)}}))
"""


def measure(quick: bool) -> List[Sample]:
    """Seconds per import statement, interleaved."""
    for names in _IMPORTS:  # compiles and caches what is imported for the first time
        run_code(_CODE.format(names=names))
    samples: List[Sample] = []
    for turn in range(5 if quick else 25):
        order = rotated(_IMPORTS, turn)
        samples += [{"round": turn, "imports": names, **run_code(_CODE.format(names=names))} for names in order]
    print(f"{len(samples)} processes", file=sys.stderr)
    return samples


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Time of each import, and its ratio to the reference."""
    groups: Dict[object, List[Sample]] = dict(grouped(samples, "imports"))
    reference = groups[_REFERENCE]
    rows = [
        [
            f"`import {names}`",
            spread(sample["wall"] for sample in found).show(0, 1000),
            spread(sample["cpu"] for sample in found).show(0, 1000),
            spread(ratios(found, reference, lambda sample: float(sample["wall"]))).show(),
            f"{found[0]['modules']:,}",
        ]
        for names, found in groups.items()
    ]
    columns = ("statement", "wall ms", "CPU ms", f"wall over `import {_REFERENCE}`", "modules loaded")
    return [Table("Import", columns, rows)]
