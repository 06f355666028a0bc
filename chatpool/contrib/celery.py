"""Celery: a large file as tasks, a shard each, that end well whatever happens to the workers.

Each task is a batch run with a journal of its own (:mod:`chatpool.batch.shards`).  A worker that is killed loses
nothing, a message that is delivered twice sends nothing twice, and a task that comes again goes on where it was.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Callable, Dict, Iterable, Mapping, NoReturn, Optional, Union

from celery import Task, group
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import GroupResult
from celery.signals import worker_init

from ..batch import shards
from ..batch.shards import merge
from ..config import positive_int
from ..errors import ChatPoolError, JournalBusyError, from_dict

__all__ = ["ShardStopped", "ShardTask", "merge", "submit_file"]

logger = logging.getLogger("chatpool")

_BUSY_SECONDS = 30
_MAX_RETRY_SECONDS = 600.0  # RabbitMQ gives up on what waits for half an hour, Redis delivers it again after one
_DEFAULT_VISIBILITY_SECONDS = {"redis": 3600, "sqs": 1800}  # kombu's


class ShardStopped(ChatPoolError):
    """A shard ended before all its rows had: a refused key, no credit, too many failures.

    What was done is kept: the same task goes on from there, once the cause is put right.  It survives a result backend
    that knows only JSON.

    Args:
        message: what happened, to which shard, and how many rows are left.
        facts: the error that ended the run, as :meth:`~chatpool.errors.ChatPoolError.to_dict` describes it.
        pending: rows that have neither an answer nor a failure.

    Attributes:
        error: the error that ended the run, with its facts.
        pending: as given.
    """

    advice = "put the cause right (.error) and send the task again: it goes on where it ended"

    def __init__(self, message: str = "", facts: Optional[Mapping[str, Any]] = None, pending: int = 0) -> None:
        super().__init__(message)
        self.args = (self.message, dict(facts or {}), pending)  # what a result backend makes it of again
        self.error = from_dict(facts or {})
        self.pending = pending

    def __str__(self) -> str:
        return self.message


class ShardTask(Task):
    """Base class of tasks that answer the rows of one shard.

    ::

        @app.task(base=ShardTask, bind=True)
        def answer(self, folder, index):
            return self.run_shard(folder, index, model="gpt-4o-mini")

    Its settings lose no task; each can be set anew in ``@app.task``.

    Attributes:
        acks_late: True: a message stays with the broker until its task has ended.
        reject_on_worker_lost: True: a message whose process was killed is delivered again.
        max_retries: None: a task comes again as often as the server or another worker has it wait.
        track_started: True: the state of a task that runs is known.
        default_retry_delay: seconds that a task waits whose shard is in use. Default: 30.
    """

    acks_late = True
    reject_on_worker_lost = True
    max_retries = None
    track_started = True
    default_retry_delay = _BUSY_SECONDS

    def run_shard(self, folder: Union[str, os.PathLike[str]], index: int, **options: Any) -> Dict[str, Any]:
        """Answer the rows of a shard that have no answer yet, and return the counts of the whole shard.

        While it runs, the task's state is ``PROGRESS``, at most once a second, with ``rows``, ``done``, ``failed`` and
        ``tokens`` (those of this run).

        Args:
            folder, index: the arguments of the task, as :func:`submit_file` makes them.
            options: those of :func:`chatpool.batch.shards.run`, for instance ``pool=`` or the arguments of a pool.

        Returns:
            What :func:`chatpool.batch.shards.run` returns, which any result backend can store.

        Raises:
            celery.exceptions.Retry: another worker runs this shard, as after a second delivery; or the error that ended
                the run says when to come again.
            ShardStopped: another error ended the run.
            celery.exceptions.SoftTimeLimitExceeded: the time was over; what was done is kept.
            ConfigurationError: there is no such shard, or an option cannot be used.
        """
        options.setdefault("progress", self._report())
        try:
            result = shards.run(folder, index, **options)
        except JournalBusyError as error:
            # It waits for its turn, and has not failed: a limit of the task's own to its retries is not for this.
            self.request.retries -= 1
            self._come_again(error, self.default_retry_delay)
        fatal = result["fatal"]
        if fatal is None and result["signal"] is None:
            return result
        stopped = _stopped(result)
        if fatal is None:
            self._come_again(stopped, 0)  # the worker shuts down, and the next one goes on
        elif fatal.get("retry_after"):
            self._come_again(stopped, min(fatal["retry_after"], _MAX_RETRY_SECONDS))
        raise stopped

    def _come_again(self, error: ChatPoolError, seconds: float) -> NoReturn:
        """Raise Celery's order to run this task again later, or the error where nobody waits: outside a worker."""
        if self.request.called_directly or self.request.is_eager:
            raise error
        raise self.retry(exc=error, countdown=seconds)

    def _report(self) -> Union[Callable[[Mapping[str, Any]], None], bool]:
        """Return a function that publishes the progress of this task; False where nobody can see it."""
        task_id = self.request.id
        if self.request.called_directly or self.request.is_eager:
            return False

        def report(facts: Mapping[str, Any]) -> None:
            meta = {"rows": facts["total"], "done": facts["succeeded"], "failed": facts["failed"]}
            try:
                self.update_state(task_id, "PROGRESS", {**meta, "tokens": facts["tokens"]})
            except SoftTimeLimitExceeded:
                raise
            except Exception as error:  # the result backend is away: the rows are worth more than their progress
                logger.warning("the progress of task %s was not stored: %s", task_id, type(error).__name__)

        return report


def _stopped(result: Mapping[str, Any]) -> ShardStopped:
    fatal, pending = result["fatal"] or {"message": "the run was stopped"}, result["pending"]
    message = f"shard {result['shard']} has ended with {pending:,} of {result['rows']:,} rows left: {fatal['message']}"
    return ShardStopped(message, fatal, pending)


def submit_file(
    task: ShardTask,
    source: Union[str, os.PathLike[str]],
    folder: Union[str, os.PathLike[str]],
    *,
    shard_rows: int = 2000,
    **options: Any,
) -> GroupResult:
    """Split a file and send a task for each shard.  The same call again sends them again: what is done is not repeated.

    Args:
        task: a task of :class:`ShardTask` that takes the folder and the number of a shard.
        source: the input, as for :func:`chatpool.batch.shards.split`.
        folder: the folder of the shards and their answers, at the same place on all workers.
        shard_rows: rows of a shard. A shard should take minutes: it is what a lost worker delays. Default: 2,000.
        options: further arguments of :func:`chatpool.batch.shards.split`: ``template``, ``column``, ``id_field`` ...

    Returns:
        The results of all shards, in the order of the input.

    Raises:
        TypeError: ``task`` is no task of :class:`ShardTask`.
        ConfigurationError: as for :func:`chatpool.batch.shards.split`; no task was sent.
    """
    if not isinstance(task, ShardTask):
        raise TypeError(f"task must be made with @app.task(base=ShardTask, bind=True), got {task!r}")
    positive_int("shard_rows", shard_rows)
    plan = shards.split(source, folder, rows=shard_rows, **options)
    return group(task.s(plan.folder, shard.index) for shard in plan.shards).apply_async()


@worker_init.connect
def _check_visibility(sender: Any, **_: Any) -> None:
    """Warn if the broker delivers a task again while it runs: it waits for itself, and takes a worker for that."""
    app = sender.app
    tasks = [task for task in app.tasks.values() if isinstance(task, ShardTask)]
    default = _DEFAULT_VISIBILITY_SECONDS.get(app.connection_for_read().transport.driver_type)
    if not tasks or default is None:
        return
    visibility = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    longest = max(filter(None, _time_limits(app, tasks)), default=None)
    if visibility is not None and (longest is None or visibility >= longest):
        return
    stated = f"{default} s (the default)" if visibility is None else f"{visibility} s"
    limit = "" if longest is None else f"; the time limit of a task is {longest} s"
    logger.warning(
        "the broker delivers a task again that has not ended after %s: set visibility_timeout in "
        "broker_transport_options above the time that a shard takes%s",
        stated,
        limit,
    )


def _time_limits(app: Any, tasks: Iterable[ShardTask]) -> Iterable[Optional[float]]:
    for task in tasks:
        yield task.time_limit or app.conf.task_time_limit
        yield task.soft_time_limit or app.conf.task_soft_time_limit
