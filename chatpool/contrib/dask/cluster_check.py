"""Checks before the first shard is handed out: of the client, the options, and each worker."""

from __future__ import annotations

import functools
import inspect
import logging
import uuid
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

import cloudpickle
from distributed import Client

from ... import __version__
from ..._client.batch_support import ChatPool, pickled_arguments
from ...batch import shards
from ...config import Budget, Limits
from ...errors import ChatPoolError, ConfigurationError
from .worker import ShardJob, facts

__all__ = ["CheckedWorkers", "check_client", "check_workers", "job_for_workers", "pickled"]

logger = logging.getLogger("chatpool")

_POOL_OPTIONS = frozenset(inspect.signature(ChatPool).parameters)
_SHOWN_WORKERS = 3
_MAKE_POOL = "or make the pool in the workers: pool= takes a function that returns one"


def check_client(client: Any) -> None:
    """Refuse what is no client that can be waited for.

    Raises:
        TypeError: it is no client, or an asynchronous one.
    """
    if not isinstance(client, Client):
        raise TypeError(f"client must be a distributed.Client, got {type(client).__name__}: Client(cluster) makes one")
    if client.asynchronous:
        raise TypeError(
            "client is asynchronous, and run blocks: make it without asynchronous=True, and call run in a thread "
            "(await asyncio.to_thread(run, plan, client, ...))"
        )


def job_for_workers(
    plan: shards.Plan, pool: Optional[Callable[..., ChatPool]], budget: Optional[Budget], options: Mapping[str, Any]
) -> ShardJob:
    """Return the job of all shards, in which no secret stands.

    Raises:
        TypeError: an option of a wrong type; a key as a str.
        ConfigurationError: there is a secret in an option, or one cannot be pickled.
    """
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget must be a chatpool.Budget, got {type(budget).__name__}")
    pool_options = {name: value for name, value in options.items() if name in _POOL_OPTIONS}
    others = {name: value for name, value in options.items() if name not in _POOL_OPTIONS}
    if pool is None:
        make_pool: Callable[..., ChatPool] = functools.partial(ChatPool, **_without_secrets(pool_options))
    elif isinstance(pool, ChatPool) or not callable(pool):
        raise TypeError(f"pool must be a function that makes a pool in the worker, got {type(pool).__name__}")
    elif pool_options:
        names = ", ".join(f"{name}=" for name in pool_options)
        raise TypeError(f"with pool= the options of a pool have no effect: leave out {names}")
    else:
        make_pool = pool
    # Of this run alone: a second client with other options must not be given the results of the first one's tasks.
    name = f"chatpool-{plan.sha256[:8]}-{uuid.uuid4().hex[:8]}"
    return ShardJob(name, plan.folder, plan.sha256, make_pool, others, budget)


def _without_secrets(options: Mapping[str, Any]) -> Dict[str, Any]:
    endpoints = [*(options.get("endpoints") or ()), *(options.get("fallbacks") or ())]
    keys = [options.get("api_key"), *(getattr(each, "api_key", None) for each in endpoints)]
    if any(isinstance(key, str) for key in keys):
        raise TypeError(
            "api_key must not be a str: it would stand in the tasks, which the scheduler and its logs have, too. Set "
            f"OPENAI_API_KEY where the workers run, or pass a function that fetches the key, {_MAKE_POOL}"
        )
    if options.get("limits") is not None and not isinstance(options["limits"], Limits):
        raise TypeError(f"limits must be a chatpool.Limits, got {type(options['limits']).__name__}")
    try:
        return pickled_arguments(options)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; {_MAKE_POOL}") from error


def pickled(job: ShardJob) -> bytes:
    """Return a job as bytes, once for all tasks; so Dask looks for no tasks in it, and logs nothing of it.

    Raises:
        ConfigurationError: there is something in it that cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(job))
    except Exception as error:  # a user's object may fail in any way
        reason = str(error) if isinstance(error, ChatPoolError) else f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"an option cannot be pickled for the workers: {reason}; {_MAKE_POOL}") from error


class CheckedWorkers(NamedTuple):
    """Workers that can run shards.

    Attributes:
        job: for them.
        have_resource: whether all declare the resource ``chatpool``.
    """

    job: ShardJob
    have_resource: bool


def check_workers(client: Client, job: ShardJob) -> CheckedWorkers:
    """Ask all workers whether they can run shards; wait for the first one where there is none.

    Raises:
        ConfigurationError: one cannot, or the limits would not hold for all together.
        TypeError: no pool can be made of the options.
    """
    data = pickled(job)
    if not client.nthreads():
        logger.info("the cluster has no workers: waiting for the first")
        client.submit(int, pure=False).result()  # a task, so that an adaptive cluster starts one
    answers = client.run(facts, data, on_error="return")
    failed = {address: error for address, error in answers.items() if isinstance(error, BaseException)}
    if failed:
        raise _worker_error(failed)
    versions = sorted({answer["version"] for answer in answers.values()} - {__version__})
    if versions:
        logger.warning("this is chatpool %s, and there are workers with %s", __version__, ", ".join(versions))
    hosts = {answer["host"] for answer in answers.values()}
    scopes = {scope for answer in answers.values() for scope in answer["scopes"]}
    return CheckedWorkers(
        _limited(job, len(hosts), next(iter(hosts)), scopes - {"hosts"}),
        all(answer["has_resource"] for answer in answers.values()),
    )


def _worker_error(failed: Mapping[str, BaseException]) -> Exception:
    for error in failed.values():
        if isinstance(error, TypeError):
            return error
    told: List[str] = [f"{address}: {_reason(error)}" for address, error in list(failed.items())[:_SHOWN_WORKERS]]
    more = f"; and {len(failed) - _SHOWN_WORKERS} more" if len(failed) > _SHOWN_WORKERS else ""
    return ConfigurationError(f"{len(failed)} workers cannot run shards: {'; '.join(told)}{more}")


def _reason(error: BaseException) -> str:
    if "ModuleNotFoundError" in repr(error):  # Dask may hand on an Exception with its repr
        return f"{error} (install it there: the workers need chatpool[dask], as the client does)"
    if isinstance(error, ConfigurationError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _limited(job: ShardJob, hosts: int, host: str, scopes: Any) -> ShardJob:
    """Return the job with limits that hold for all workers together.

    Args:
        job: the job.
        hosts: how many there are.
        host: the name of one.
        scopes: the reach of limits that is smaller than several hosts: ``"pool"``, ``"host"``.
    """
    if not scopes:
        return job
    if hosts > 1:
        raise ConfigurationError(
            f"the workers are on {hosts} hosts, and each worker would keep to the whole limit: pass "
            "Limits(scope='redis://host:port/name'), which holds for all"
        )
    if "pool" not in scopes:
        return job._replace(host=host)
    if not isinstance(job.make_pool, functools.partial) or job.make_pool.func is not ChatPool:
        raise ConfigurationError("each worker would keep to the whole limit: give the limits of pool= a scope")
    limits = job.make_pool.keywords.get("limits")
    if limits is None or limits.scope is not None:
        raise ConfigurationError("each worker would keep to the whole limit: give the limits of each endpoint a scope")
    scoped = limits.in_parts(1, f"chatpool-dask-{job.sha256[:16]}")
    return job._replace(host=host, make_pool=functools.partial(job.make_pool, limits=scoped))
