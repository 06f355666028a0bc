"""Cost of a shared limit in Redis: its commands for each call, and its CPU for each command."""

from __future__ import annotations

import random
from typing import Any, Dict, List
from unittest import mock

import chatpool._quota.redis as quota_redis
from chatpool import ChatPool, Limits
from chatpool._quota.gcra import Rates
from chatpool._quota.redis import RedisBackend
from chatpool._quota.scope import parse_scope
from chatpool.testing import FakeServer

from .. import redis_server
from ..measure import Sample

__all__ = ["measure_redis"]

_SHARERS = (1, 16, 100, 256)
_PATIENT_SECONDS = 30.0  # a busy machine is no reason to give up a measurement


def measure_redis(quick: bool) -> List[Sample]:
    """With limits of requests alone and of both kinds, then by the number of processes that share.

    Raises:
        RuntimeError: there is no redis-server, or the package redis is missing.
    """
    try:
        import redis
    except ImportError:
        raise RuntimeError("the package redis is missing: pip install redis") from None
    patience = mock.patch.object(quota_redis, "_TIMEOUT_SECONDS", _PATIENT_SECONDS)
    with patience, redis_server.running() as url, redis.Redis.from_url(url) as client:
        samples = [_commands(client, url, limits, 40 if quick else 300) for limits in ("requests", "tokens")]
        return samples + [_cpu(client, url, sharers, 200 if quick else 3_000) for sharers in _SHARERS]


def _commands(client: Any, url: str, kind: str, calls: int) -> Sample:
    """Count the scripts that Redis runs for the calls of a real pool."""
    client.config_resetstat()
    limit: Dict[str, Any] = {"requests_per_minute": 1e6}
    if kind == "tokens":
        limit["tokens_per_minute"] = 1e9
    limits = Limits(**limit, scope=f"{url}/{kind}")
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, limits=limits, max_workers=16) as pool:
        pool.map(["ping " * (1 + number % 7) for number in range(calls)])  # estimates are seldom right
    stats = client.info("commandstats")
    run = stats["cmdstat_evalsha"]["calls"] + stats.get("cmdstat_eval", {"calls": 0})["calls"]
    return {"round": 0, "what": "commands", "limits": kind, "calls": calls, "commands": run}


def _cpu(client: Any, url: str, sharers: int, calls: int) -> Sample:
    """Take the CPU of Redis for a reservation and for a correction, with a minute's state."""
    scope = parse_scope(f"{url}/{sharers}")
    assert scope.redis is not None
    backend = RedisBackend(scope.redis, scope.name)
    rates = Rates.of(1_800, 9e6, 1.0)  # so slow that these calls are reserved for more than a minute
    ids = [float(random.getrandbits(52)) for _ in range(sharers)]

    def reserve(number: int) -> float:
        sharer = ids[number % sharers]
        return backend.reserve(rates, requests=1.0, tokens=600.0, max_wait=1e9, sharer=sharer).at

    for number in range(2_000):
        reserve(number)
    before = _used_cpu(client)
    moments = [reserve(number) for number in range(calls)]
    between = _used_cpu(client)
    for at in moments:
        backend.correct(rates, at=at, tokens=-100.0)
    after = _used_cpu(client)
    stored = client.strlen(f"chatpool:quota:{scope.name}")
    backend.close()
    costs = {"reserve": (between - before) / calls, "correct": (after - between) / calls}
    return {"round": 0, "what": "redis", "sharers": sharers, "state_bytes": stored, **costs}


def _used_cpu(client: Any) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])
