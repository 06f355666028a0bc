"""``chatpool.contrib.dask.run``: the client's side, which hands out the shards and waits for them."""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import queue
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Union,
)

from distributed import Client, Future

from ..._client.batch_support import ChatPool
from ...batch import shards
from ...batch.job import BatchProgress, BatchResult
from ...clock import current_clock
from ...config import Budget, non_negative_int, positive_int
from ...errors import (
    BudgetExceededError,
    CallCancelledError,
    ChatPoolError,
    ConfigurationError,
    JournalBusyError,
    from_dict,
)
from ...types import Usage
from .cluster_check import check_client, check_workers, job_for_workers, pickled
from .shard_progress import ShardProgress, add_counts
from .shared_budget import Amounts, SharedBudget
from .worker import RESOURCE, ShardJob, run_shard

__all__ = ["run"]

logger = logging.getLogger("chatpool")

_TICK_SECONDS = 1.0  # between two looks at the cluster, where nothing happens
_BUSY_SECONDS = 600.0  # for which a shard is waited for that another process runs
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 1.0, 30.0  # before a shard comes again
_STOP_SECONDS = 10.0  # for which tasks are waited for that were told to stop

OnShard = Callable[[Mapping[str, Any]], object]


def run(
    plan: Union[shards.Plan, str, os.PathLike[str]],
    client: Client,
    *,
    output: Union[str, os.PathLike[str], None] = None,
    pool: Optional[Callable[..., ChatPool]] = None,
    budget: Optional[Budget] = None,
    per_worker: int = 1,
    retries: int = 3,
    progress: BatchProgress = None,
    on_shard: Optional[OnShard] = None,
    **options: Any,
) -> BatchResult:
    """Answer the rows of all shards in the workers of a Dask cluster.  The same call again goes on from where it ended.

    Works with every cluster that has a ``distributed.Client``: LocalCluster, dask-jobqueue, Kubernetes.  Workers may
    come and go while it runs.  The folder of the plan has to be at the same path on all of them.

    Keys stand in no task: workers take them from their environment, or from a function.

    Args:
        plan: the plan, or its folder.
        client: the client of the cluster, not an asynchronous one.
        output: the file for the answers of all shards, in the order of the input, as for
            :func:`chatpool.batch.shards.merge`; it is written when all rows have ended. Default: none.
        pool: a function that makes the pool of a shard, in the worker, for what has a secret in it:
            ``functools.partial(ChatPool.azure, ...)`` or one of your own. It gets ``budget=`` if there is one.
            Default: a pool is made of ``options``.
        budget: what the whole plan may spend, earlier runs included, by its journals. Default: no limit.
        per_worker: shards at a time in each worker, at most as many as it has threads. Where all workers declare the
            resource ``chatpool``, as in ``--resources chatpool=2``, that counts. Default: 1.
        retries: how often a shard is tried again whose task has failed, or has taken its workers along. Default: 3.
        progress: that of all rows together, as for :func:`chatpool.batch.run`.
        on_shard: called with the dict of :func:`chatpool.batch.shards.run` for each shard that has ended, in the thread
            that called this. An error that it raises ends the run.
        options: those of :func:`chatpool.batch.shards.run`: the arguments of a pool, ``retry_failed``, ``parse``, body
            fields and others. They are pickled. ``limits`` need a scope in a Redis where there are several hosts; on
            one, those without a scope hold for all workers together.

    Returns:
        The counts of all shards; with ``output`` what :func:`chatpool.batch.shards.merge` returns. An error that ended
        it (a refused key, the budget) is on ``fatal``: no new shards were started then, those that ran have ended, and
        ``missing`` has the numbers of those that are not done.

    Raises:
        ConfigurationError: an argument, the plan or a worker cannot be used; nothing was sent.
        TypeError: an argument of a wrong type, a key among them; nothing was sent.
        KeyboardInterrupt: after all shards have been told to stop. Its ``result`` is what this would have returned.
    """
    plan = plan if isinstance(plan, shards.Plan) else shards.load(plan)
    check_client(client)
    positive_int("per_worker", per_worker)
    non_negative_int("retries", retries)
    shards.check_run(options)
    if output is not None:
        shards.merged_paths(plan, os.fspath(output))
    started = current_clock().now()
    total = plan.rows if not {"retry_failed", "limit", "sample", "dry_run"} & set(options) else None
    shown = ShardProgress(progress, total)
    workers = check_workers(client, job_for_workers(plan, pool, budget, options))
    shards_at_a_time = None if workers.have_resource else per_worker
    shard_queue = _ShardQueue(plan, client, workers.job, retries, shards_at_a_time, shown, on_shard)
    try:
        with shown:
            shard_queue.run()
    except KeyboardInterrupt as interrupt:
        interrupt.result = shard_queue.result(None)  # type: ignore[attr-defined]  # documented above
        raise
    result = shard_queue.result(output)
    result.elapsed = current_clock().now() - started
    return result


class _Task(NamedTuple):
    shard: int
    number: int
    future: Future


class _ShardQueue:
    """The shards of a run: those that wait for their turn, those that run, and what has become of the others.

    One thread does everything; Dask's threads only put what they hear of into its inbox.

    Args:
        plan: the plan.
        client: that of the cluster.
        job: for the workers.
        retries: how often a shard is tried again.
        per_worker: shards at a time in each worker; None if all workers declare the resource ``chatpool``, which Dask
            counts.
        progress: hears of the rows of all shards.
        on_shard: hears of each shard that has ended; None for nobody.
    """

    def __init__(
        self,
        plan: shards.Plan,
        client: Client,
        job: ShardJob,
        retries: int,
        per_worker: Optional[int],
        progress: ShardProgress,
        on_shard: Optional[OnShard],
    ) -> None:
        self._plan = plan
        self._client = client
        self._job = job
        self._pickled_job = pickled(job)
        self._retries = retries
        self._per_worker = per_worker
        self._on_shard = on_shard
        self._clock = current_clock()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting: Deque[int] = deque(shard.index for shard in plan.shards)
        self._delayed: List[Tuple[float, int]] = []
        self._starved: List[int] = []
        self._tasks: Dict[int, _Task] = {}
        self._begun: Set[int] = set()  # the numbers of tasks that run
        self._attempts = 0
        self._busy_since: Dict[int, float] = {}
        self._failures: Dict[int, int] = {}
        self._results: Dict[int, Mapping[str, Any]] = {}
        self._fatal: Optional[ChatPoolError] = None
        self._left_out: Optional[ChatPoolError] = None
        self._spent_at_rest: Optional[Amounts] = None
        self._budget = None if job.budget is None else SharedBudget.of(plan, job.budget)
        self._progress = progress

    # -- handing out --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run all shards to their ends, or to the first error that is fatal.

        Raises:
            BaseException: Ctrl-C, or an error of ``on_shard`` or ``progress``; all tasks have been told to stop.
        """
        self._subscribe()
        try:
            while self._waiting or self._delayed or self._starved or self._tasks:
                self._hand_out()
                self._receive(_TICK_SECONDS)
        except BaseException:
            self._stop()
            raise
        finally:
            with contextlib.suppress(Exception):  # the client may be closed
                self._client.unsubscribe_topic(self._job.name)

    def _hand_out(self) -> None:
        self._wake()
        room = self._room() if self._waiting else 0
        while self._waiting and len(self._tasks) < room:
            index = self._waiting.popleft()
            allowed = None
            if self._budget is not None:
                allowed = self._budget.allow(index)
                if allowed is None:
                    self._starved.append(index)
                    continue
            self._submit(index, allowed)

    def _wake(self) -> None:
        """Put the shards back into the line whose time has come."""
        now = self._clock.now()
        while self._delayed and self._delayed[0][0] <= now:
            self._waiting.append(heapq.heappop(self._delayed)[1])
        if self._starved and not (self._waiting or self._delayed or self._tasks):
            self._share_out_the_rest()

    def _room(self) -> int:
        """Return how many tasks Dask may have at a time; it is asked each time, as workers come and go."""
        if self._client.status != "running":
            return 0
        try:
            threads = self._client.nthreads().values()
        except OSError:  # the connection is lost at this moment
            return 0
        if self._per_worker is None or all(count <= self._per_worker for count in threads):
            return len(self._plan.shards)  # Dask counts, and an adaptive cluster sees what there is to do
        return len(threads) * self._per_worker

    def _submit(self, index: int, allowed: Optional[Amounts]) -> None:
        self._attempts += 1
        number = self._attempts
        future = self._client.submit(
            run_shard,
            *(self._pickled_job, index, number, allowed),
            key=(self._job.name, index, number),
            pure=False,
            resources={RESOURCE: 1} if self._per_worker is None else None,
        )
        self._tasks[number] = _Task(index, number, future)
        future.add_done_callback(lambda _: self._inbox.put(number))

    def _subscribe(self) -> None:
        """Hear of the tasks; a scheduler that has taken the place of another knows nothing of it."""
        with contextlib.suppress(Exception):  # the client is closed, which is noticed elsewhere
            self._client.subscribe_topic(self._job.name, self._on_event)

    def _on_event(self, event: Tuple[float, Mapping[str, Any]]) -> None:
        """Take an event of a task; called in the client's own thread."""
        self._inbox.put(event[1])

    # -- taking in ----------------------------------------------------------------------------------------

    def _receive(self, seconds: float) -> None:
        """Take what has come, or wait for it for so long."""
        with contextlib.suppress(queue.Empty):
            message = self._inbox.get(timeout=seconds)
            if isinstance(message, int):
                self._begun.discard(message)
                self._on_done(self._tasks.pop(message))
            else:
                self._on_report(message)
        if self._client.status == "closed":
            self._end(ChatPoolError("the scheduler is gone, or the client was closed: run it again to go on"))
            self._tasks.clear()

    def _on_report(self, facts: Mapping[str, Any]) -> None:
        if facts["ended"]:
            self._begun.discard(facts["attempt"])
        elif facts["attempt"] in self._tasks:
            self._begun.add(facts["attempt"])
        if "tokens" in facts:
            self._progress.update(facts)

    def _on_done(self, task: _Task) -> None:
        try:
            result = task.future.result()
        except CancelledError:
            if self._fatal is None:  # by somebody else, or because the connection to the scheduler was lost
                self._delay(task.shard, _FIRST_WAIT_SECONDS)
                self._subscribe()
        except Exception as error:  # of any kind: raised in the worker, or by Dask in its place
            self._on_failure(task.shard, error)
        else:
            self._on_result(task, result)

    def _on_failure(self, index: int, error: Exception) -> None:
        failures = self._failures[index] = self._failures.get(index, 0) + 1
        if isinstance(error, ConfigurationError):
            self._end(error)
        elif failures > self._retries or isinstance(error, TypeError):
            fatal = ChatPoolError(f"shard {index} has failed {failures} times, lastly: {type(error).__name__}: {error}")
            fatal.__cause__ = error
            self._end(fatal)
        elif self._fatal is None:
            logger.warning("shard %d has failed and is tried again: %s: %s", index, type(error).__name__, error)
            self._delay(index, _FIRST_WAIT_SECONDS)

    def _on_result(self, task: _Task, result: Mapping[str, Any]) -> None:
        index = task.shard
        if "again" in result:
            self._on_again(index, from_dict(result["again"]))
            return
        self._busy_since.pop(index, None)
        self._progress.update({**result, "attempt": task.number, "tokens": Usage(**result["usage"]).total_tokens})
        fatal = None if result["fatal"] is None else from_dict(result["fatal"])
        is_short = isinstance(fatal, BudgetExceededError) and self._budget is not None and self._fatal is None
        if self._budget is not None:
            self._budget.settle(index, result["spent"], result["pending"])
        if is_short:
            self._starved.append(index)
            return
        self._waiting.extend(self._starved)  # it may have left something over
        self._starved.clear()
        self._results[index] = result
        if fatal is not None:
            self._end(fatal)
        if self._on_shard is not None:
            self._on_shard(result)

    def _on_again(self, index: int, error: ChatPoolError) -> None:
        if self._fatal is not None:
            return
        now = self._clock.now()
        waited = now - self._busy_since.setdefault(index, now)
        if isinstance(error, JournalBusyError) and waited >= _BUSY_SECONDS:
            logger.warning("shard %d is left out: another process runs it for %d s: %s", index, waited, error)
            self._left_out = self._left_out or error
            return
        self._delay(index, min(_MAX_WAIT_SECONDS, max(_FIRST_WAIT_SECONDS, waited)))

    def _delay(self, index: int, seconds: float) -> None:
        heapq.heappush(self._delayed, (self._clock.now() + seconds, index))

    # -- the end ------------------------------------------------------------------------------------------

    def _share_out_the_rest(self) -> None:
        """Let shards whose parts were spent share what all have left over; end if none came further by that."""
        assert self._budget is not None
        spent = self._budget.spent()
        if spent == self._spent_at_rest and self._budget.gives_all:
            self._end(BudgetExceededError("the budget of the plan is spent: raise it and run again to go on"))
            return
        self._budget.gives_all = spent == self._spent_at_rest
        self._spent_at_rest = spent
        self._waiting.extend(self._starved)
        self._starved.clear()

    def _end(self, error: ChatPoolError) -> None:
        """Start no more shards; those that run go on to their ends."""
        self._fatal = self._fatal or error
        for queued in (self._waiting, self._delayed, self._starved):
            queued.clear()
        self._cancel(number for number in self._tasks if number not in self._begun)

    def _stop(self) -> None:
        """Have all tasks stop, and wait until they have, so that the same call can go on at once."""
        self._fatal = self._fatal or CallCancelledError("the run was stopped")
        self._cancel(list(self._tasks))
        end = self._clock.now() + _STOP_SECONDS
        while self._begun and self._clock.now() < end and self._client.status == "running":
            with contextlib.suppress(queue.Empty):
                message = self._inbox.get(timeout=_TICK_SECONDS)
                if not isinstance(message, int):
                    self._on_report(message)

    def _cancel(self, numbers: Iterable[int]) -> None:
        futures = [self._tasks[number].future for number in numbers]
        if futures and self._client.status == "running":
            self._client.cancel(futures)

    def result(self, output: Union[str, os.PathLike[str], None]) -> BatchResult:
        """Return the counts of all shards, and merge them if all rows have ended."""
        fatal = self._fatal or self._left_out
        unfinished = [shard for shard in self._plan.shards if self._results.get(shard.index, _NOT_RUN)["pending"]]
        if output is not None and fatal is None and not unfinished:
            return shards.merge(self._plan, output)
        total = BatchResult(fatal=fatal, missing=[shard.index for shard in unfinished])
        for result in self._results.values():
            add_counts(total, result)
        not_run = tuple(shard for shard in unfinished if shard.index not in self._results)
        for status in shards.status(replace(self._plan, shards=not_run)):
            add_counts(total, {"rows": status.rows, "succeeded": status.done, "failed": status.failed})
        total.pending = total.rows - total.succeeded - total.failed
        return total


_NOT_RUN = {"pending": True}
