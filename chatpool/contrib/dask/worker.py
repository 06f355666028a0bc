"""The part that runs in Dask's workers: a shard as a task, and the facts that the client checks before the first."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional

import cloudpickle
from distributed import get_worker

from ... import __version__
from ..._client.batch_support import ChatPool, limits_of
from ...batch import shards
from ...config import Budget, Limits
from ...errors import CallCancelledError, ChatPoolError, ConfigurationError, JournalBusyError
from .shared_budget import Amounts, amounts_of

__all__ = ["RESOURCE", "ShardJob", "facts", "run_shard"]

RESOURCE = "chatpool"

_WATCH_SECONDS = 1.0  # between two looks whether a shard is still wanted


class ShardJob(NamedTuple):
    """The same for all shards of a run.

    Attributes:
        name: that of the run, with which the keys of its tasks begin and on which their events come.
        folder: that of the plan.
        sha256: that of the plan's input.
        make_pool: makes the pool of a shard, in the worker.
        options: those of :func:`chatpool.batch.shards.run`.
        budget: that of all shards together.
        host: the only host that may run shards; None for any.
    """

    name: str
    folder: str
    sha256: str
    make_pool: Callable[..., ChatPool]
    options: Mapping[str, Any]
    budget: Optional[Budget] = None
    host: Optional[str] = None


def facts(pickled_job: bytes, dask_worker: Any) -> Dict[str, Any]:
    """Return what the client has to know of a worker.

    Raises:
        ConfigurationError: this worker cannot run the shards.
        TypeError: no pool can be made of the options.
    """
    job: ShardJob = cloudpickle.loads(pickled_job)
    plan = shards.load(job.folder)
    if plan.sha256 != job.sha256:
        raise ConfigurationError(f"{job.folder} has the shards of another input here than where run was called")
    with _pool_of(job, None) as pool:
        scopes = [_reach_of(limits) for limits in limits_of(pool)]
    return {
        "version": __version__,
        "host": socket.gethostname(),
        "has_resource": bool(dask_worker.state.total_resources.get(RESOURCE)),
        "scopes": scopes,
    }


def _reach_of(limits: Limits) -> str:
    if limits.scope is None:
        return "pool"
    return "hosts" if "://" in limits.scope else "host"


@contextlib.contextmanager
def _pool_of(job: ShardJob, budget: Optional[Budget]) -> Iterator[ChatPool]:
    pool = job.make_pool() if budget is None else job.make_pool(budget=budget)
    if not isinstance(pool, ChatPool):
        raise TypeError(f"pool= must be a function that returns a ChatPool, got one that returns {type(pool).__name__}")
    with pool:
        yield pool


def run_shard(pickled_job: bytes, index: int, attempt: int, allowed: Optional[Amounts]) -> Dict[str, Any]:
    """Run a shard as a task.

    Args:
        pickled_job: the :class:`ShardJob`.
        index: the number of the shard.
        attempt: the number of this task, among those of the run.
        allowed: what all runs of the shard together may have spent when this one ends, None without a budget.

    Returns:
        What :func:`chatpool.batch.shards.run` returns, and what all runs have ``spent``; or the shard and the error
        ``again``, if it has to come again.  Errors that are to be expected are returned: Dask logs those raised.
    """
    job: ShardJob = cloudpickle.loads(pickled_job)
    if job.host not in (None, socket.gethostname()):
        raise ConfigurationError(
            f"the limits are kept by a file of the host {job.host}, and {socket.gethostname()} has joined the cluster: "
            "Limits(scope='redis://host:port/name') holds for several hosts"
        )
    report = _Report(job.name, index, attempt)
    try:
        report.send()
        return _run(job, index, report, allowed)
    except JournalBusyError as error:  # also if this worker has lost it
        return {"shard": index, "again": error.to_dict()}
    finally:
        report.send(ended=True)


def _run(job: ShardJob, index: int, report: _Report, allowed: Optional[Amounts]) -> Dict[str, Any]:
    budget = None if job.budget is None or allowed is None else _rest_of(job, index, job.budget, allowed)
    with _pool_of(job, budget) as pool, _watched(pool) as is_unwanted:
        result = shards.run(job.folder, index, pool=pool, progress=report.update, **job.options)
        if is_unwanted.is_set():
            error: ChatPoolError = CallCancelledError(f"shard {index} was given up: nobody waits for it any more")
            return {"shard": index, "again": error.to_dict()}
    if job.budget is not None:
        result["spent"] = amounts_of(job.budget, shards.bill(job.folder, index, job.budget.prices))
    return result


def _rest_of(job: ShardJob, index: int, budget: Budget, allowed: Amounts) -> Budget:
    spent = amounts_of(budget, shards.bill(job.folder, index, budget.prices))
    rest = {name: max(0.0, amount - spent[name]) for name, amount in allowed.items()}
    return Budget(tokens=rest.get("tokens"), cost=rest.get("cost"), prices=budget.prices)


class _Report:
    """Tells the client how far a shard is, by an event of Dask's.

    Args:
        topic: that of the run.
        index: the number of the shard.
        attempt: the number of the task.
    """

    _NAMES = ("succeeded", "failed", "done_before", "tokens", "cost")

    def __init__(self, topic: str, index: int, attempt: int) -> None:
        self._topic = topic
        self._facts: Dict[str, Any] = {"shard": index, "attempt": attempt}
        self._worker = get_worker()

    def update(self, status: Mapping[str, Any]) -> None:
        """Send the status of the run; the ``progress=`` of a batch run."""
        self._facts.update({name: status[name] for name in self._NAMES})
        self.send()

    def send(self, *, ended: bool = False) -> None:
        """Send the status that is known."""
        self._worker.log_event(self._topic, {**self._facts, "ended": ended})


@contextlib.contextmanager
def _watched(pool: ChatPool) -> Iterator[threading.Event]:
    """Within the block, give up the calls of the pool when the task is cancelled or its worker shuts down.

    Dask stops no thread: one whose client is gone would send the rest of its shard, and one of a worker that is told to
    end would keep the shard locked until it is killed.  The event that is lent is set where that has happened.
    """
    worker = get_worker()
    key = worker.get_current_task()
    has_ended, is_unwanted = threading.Event(), threading.Event()

    def watch() -> None:
        while not has_ended.wait(_WATCH_SECONDS):
            task = worker.state.tasks.get(key)
            if worker.status.name not in ("running", "paused") or task is None or task.state == "cancelled":
                is_unwanted.set()
                pool.abort()
                return

    thread = threading.Thread(target=watch, name="chatpool-watch", daemon=True)
    thread.start()
    try:
        yield is_unwanted
    finally:
        has_ended.set()
        thread.join()
