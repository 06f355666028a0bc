"""The jobs that are simulated for the report."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Dict, List

from ..measure import Sample
from .calls import Calls, fullest_minute
from .flow import simulate
from .job import Job

__all__ = ["simulate_all", "simulated"]

JOB = Job()
"""50 million rows, 100 hosts, 30,000 requests and 150 million tokens a minute."""

_SHARD_ROWS = (1_000, 5_000, 20_000, 100_000, 500_000)
_LIVES: Dict[str, Any] = {"never": None, "24 h": 24.0, "1 h": 1.0, "10 min": 1 / 6}
_LATENCIES_SECONDS = (2.0, 10.0, 30.0, 60.0)
_HOSTS = (10, 20, 50, 100)

# Of a thousandth of the quota's rows, call by call; the hosts live so short that some die.
_SMALL = Job(rows=60_000, shard_rows=500, hosts=20, requests_per_minute=6_000, host_life_hours=0.2)


def simulate_all(quick: bool) -> List[Sample]:
    """By the rows of a shard and the lives of hosts, by hosts and the time of an answer, and call by call."""
    job = replace(JOB, rows=JOB.rows // 50) if quick else JOB
    samples: List[Sample] = []
    for shard_rows in _SHARD_ROWS:
        for name, hours in _LIVES.items():
            changed = replace(job, shard_rows=shard_rows, host_life_hours=hours)
            samples.append({"what": "shard size", "life": name, **simulated(changed)})
    for seconds in _LATENCIES_SECONDS:
        for hosts in _HOSTS:
            changed = replace(job, rows=job.rows // 10, latency_seconds=seconds, hosts=hosts)
            samples.append({"what": "hosts", **simulated(changed)})
    return [*samples, _call_by_call(replace(_SMALL, rows=6_000) if quick else _SMALL)]


def simulated(job: Job) -> Dict[str, Any]:
    """Simulate the job; returns its settings and its figures."""
    ran = simulate(job)
    return {"round": 0, **asdict(job), "ideal_seconds": job.ideal_seconds, "shards": job.shards, **asdict(ran)}


def _call_by_call(job: Job) -> Sample:
    made = Calls(job).run()
    facts = {
        "sends": len(made.sends),
        "repeated": made.ran.repeated,
        "deaths": made.ran.deaths,
        "fullest_minute": fullest_minute(made.sends),
        "fewest_answers": min(made.answers),
        "most_answers": max(made.answers),
        "seconds": made.ran.seconds,
    }
    return {"round": 0, "what": "calls", **asdict(job), **facts}
