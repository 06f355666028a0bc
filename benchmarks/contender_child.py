"""One contender in a process of its own: ``python -m benchmarks.contender_child SPEC`` prints what it used."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from typing import Any, Dict, List, Mapping

from .answer import TEXT, prompts
from .contenders import CONTENDERS, Answerer, Target

__all__ = ["run"]


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Warm up, then answer ``spec["calls"]`` prompts; returns CPU and wall seconds and what else the kernel counted."""
    contender = CONTENDERS[spec["contender"]]
    if not contender.orjson:
        sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError
    with contender.open(Target(**spec["target"])) as answer_all:
        if spec["warm_up"] and _check(answer_all(prompts(spec["warm_up"]))):
            raise RuntimeError("answers were lost before the measurement began")
        return _measured(answer_all, spec["calls"])


def _measured(answer_all: Answerer, calls: int) -> Dict[str, Any]:
    asked = prompts(calls)
    # What was imported is no garbage: the collector looks only at what the calls make, for all alike.
    gc.collect()
    gc.freeze()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    answers = answer_all(asked)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {
        "calls": calls,
        "lost": _check(answers),
        "wall": wall,
        "cpu": user + system,
        "user": user,
        "system": system,
        "switches": after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
        "peak_rss_kb": after.ru_maxrss,
    }


def _check(answers: List[Any]) -> int:
    """Return how many were lost; an answer that is not the server's ends the benchmark."""
    wrong = [answer for answer in answers if answer is not None and answer != TEXT]
    if wrong:
        raise RuntimeError(f"{len(wrong)} wrong answers, such as {wrong[0]!r}")
    return sum(answer is None for answer in answers)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
