"""Collecting a submission: answers to the journal of a run, and from there to the outputs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import fields, replace
from typing import Sequence

from .._client.batch_support import ChatPool, with_request_facts
from .._journal import OK, Journal
from .._structured.samples_review import review_of_samples
from ..errors import ConfigurationError
from ..types import Usage
from .api import Say, rows_of, run_job
from .job import BatchResult, Job
from .output_files import BatchOutputs, Paths
from .output_tables import TableOutputs, check_fields
from .rows import Rows
from .shard_plan import fingerprint
from .submission_answers import AnswerTaker
from .submission_driver import Driver
from .submission_journal import Submission, SubmissionPlan, planned
from .submission_part import Part
from .submission_service import BatchService

__all__ = ["collect_job"]

logger = logging.getLogger("chatpool")


def collect_job(
    output: str,
    job: Job,
    pool: ChatPool,
    *,
    finish_now: bool = False,
    say: Say = logger.info,
    signals: Sequence[int] = (signal.SIGINT,),
) -> BatchResult:
    """Do what :func:`chatpool.batch.collect` does.

    Args:
        output: the file of answers.
        job: what is written, and how ``finish_now`` runs; what was planned stays as it was.
        pool: makes the calls.
        finish_now: as in :func:`chatpool.batch.collect`.
        say, signals: as for a run.
    """
    with planned(output) as submission:
        plan, service = submission.plan, BatchService.of(pool, submission)
        assert plan is not None
        job = replace(job, **plan.job_options)
        driver = Driver(submission, service)
        driver.look()
        if finish_now and not submission.is_over:
            raise ConfigurationError(
                f"finish_now would pay rows twice that are still in batches: wait until they are over "
                f"(chatpool batch wait {output}), or cancel them"
            )
        live = sum(not part.is_over for part in submission.parts)
        if live:
            say(f"{live:,} of {len(submission.parts):,} batches are not over: their rows are pending")
        view = with_request_facts(pool, plan.request)
        for part in submission.parts:
            if part.completed and part.output_file_id is None and part.is_over and not part.is_collected:
                driver.look_again(part)
        collected = _Collector(output, submission, job, view).collect(service)
        if not finish_now or collected.succeeded == collected.rows:
            return collected
        _unchanged_input(plan, collected)
        job = replace(job, in_order=not job.is_table)
        finished = run_job(
            plan.input, output, job, plan.input_options, view, plan.request["extra"], say=say, signals=signals
        )
        return _with_costs(finished, collected)


class _Collector:
    """Collects the answers of a submission.

    Args:
        output: the file of answers.
        submission: it is locked.
        job: what is written.
        pool: makes the calls, and completes requests as they were submitted.
    """

    def __init__(self, output: str, submission: Submission, job: Job, pool: ChatPool) -> None:
        self._submission = submission
        self._job = job
        self._pool = pool
        paths = self._paths = Paths.of(output, job.format, job.journal)
        self._result = BatchResult(
            output=paths.npy or paths.answers, errors=paths.errors, journal=paths.journal, prices=job.prices
        )

    def collect(self, service: BatchService) -> BatchResult:
        """Fetch what is there, and write the outputs; return the counts."""
        submission, result, bill = self._submission, self._result, self._job.bill()
        with Journal(self._paths.journal, needs_lock=True) as journal:
            review = review_of_samples(self._job.answers.reviewer(), self._job.samples)
            taker = AnswerTaker(journal, bill, review)
            for part in submission.parts:
                if part.is_over and not part.is_collected:
                    self._fetch(service, part)
                    taker.take(submission, part)
                    journal.sync()
                    submission.note(part, "collected")
                    self._tidy(part)
            self._count(journal)
            result.causes.update(taker.failures)
            result.count(bill)
            self._write(journal)
        return result

    def _fetch(self, service: BatchService, part: Part) -> None:
        """Fetch the files of a part that are there."""
        for kind, file_id in (("output", part.output_file_id), ("errors", part.error_file_id)):
            path = self._submission.answer_path(part.number, kind)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of a process that was killed
            if file_id is not None and not service.download(file_id, path):
                logger.warning("batch %s: the server has no file %s with its %s any more", part.batch_id, file_id, kind)

    def _tidy(self, part: Part) -> None:
        submission, number = self._submission, part.number
        answers = [submission.answer_path(number, kind) for kind in ("output", "errors")]
        for path in (*answers, submission.input_path(number), submission.names_path(number)):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _count(self, journal: Journal) -> None:
        result = self._result
        for key, hash_ in self._submission.row_keys():
            state = journal.state(key, hash_)
            result.rows += 1
            result.succeeded += state == OK
            result.failed += state not in (OK, None)
        result.pending = result.rows - result.succeeded - result.failed

    def _write(self, journal: Journal) -> None:
        """Write the outputs from the journal, as a run does at its end."""
        if self._job.is_table:
            rows = self._rows()
            rows.check(journal)
            check_fields(self._job, rows.columns)
            with TableOutputs(self._paths, journal, rows, self._job) as table:
                table.finish()
            return
        has_vectors = self._paths.npy is None or self._result.succeeded > 0
        lines = BatchOutputs(self._paths, journal, in_order=True)
        with lines:
            for key, _ in self._submission.row_keys():
                journal.register(key)
                lines.on_key(key)
            lines.finish(whole=has_vectors)

    def _rows(self) -> Rows:
        """Return the rows of the input, whose columns go into a table."""
        plan = self._submission.plan
        assert plan is not None
        _unchanged_input(plan, self._result)
        extra = plan.request["extra"]
        return rows_of(plan.input, plan.input_options, self._pool, extra, self._job, BatchResult(), logger.debug)


def _unchanged_input(plan: SubmissionPlan, result: BatchResult) -> None:
    """Refuse to read an input that is not what was submitted.

    Raises:
        ConfigurationError: it has changed, or is gone.
    """
    with contextlib.suppress(OSError):
        if fingerprint(plan.input)[:2] == plan.fingerprint:
            return
    raise ConfigurationError(
        f"the answers are safe in {result.journal}, but {plan.input} is not the file that was submitted any more, and "
        "the rows of a table, or those without an answer, are read from it: put it back, and collect again"
    )


def _with_costs(finished: BatchResult, collected: BatchResult) -> BatchResult:
    """Return the result of a run, with what the batches before it have cost."""
    counts = [item.name for item in fields(Usage) if item.name != "cost"]
    usage = [getattr(finished.usage, name) + getattr(collected.usage, name) for name in counts]
    costs = [result.cost for result in (finished, collected) if result.cost is not None]
    finished.usage = Usage(*usage)
    finished.cost = sum(costs) if costs else None
    finished.unpriced = finished.unpriced or collected.unpriced
    return finished
