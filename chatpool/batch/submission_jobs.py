"""Submitting, waiting and cancelling, for the library and the command line alike."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from typing import Any, Dict, List, NamedTuple, Optional

from .._client.batch_support import ChatPool, request_facts
from .._journal import FAILED, Journal
from .._observe.progress import run_progress
from ..clock import current_clock
from ..config import positive_seconds
from ..errors import ConfigurationError
from ..types import Outcome
from .api import Say, check_input, rows_of
from .job import BatchProgress, BatchResult, Job
from .output_files import Paths, refuse_before_start
from .output_formats import STDOUT
from .rows import RowRequest, Rows
from .runner import invalid_row_error, record_of_row
from .shard_plan import fingerprint
from .submission_driver import Driver
from .submission_journal import Submission, SubmissionPlan, folder_of, planned
from .submission_part import Part
from .submission_plan import InputLimits, Planner
from .submission_service import BatchService, refuse_metadata
from .submission_status import SubmissionStatus, status_of

__all__ = ["Terms", "cancel_job", "submit_job", "wait_job"]

logger = logging.getLogger("chatpool")

_PLANNED_OPTIONS = ("limit", "sample", "skip_bad_lines", "format", "journal")


class Terms(NamedTuple):
    """The size of batches, and what the server is told of each besides its rows."""

    limits: InputLimits
    completion_window: str
    metadata: Mapping[str, str]

    @classmethod
    def of(
        cls,
        rows_per_batch: int,
        tokens_per_batch: Optional[int],
        completion_window: str = "24h",
        metadata: Optional[Mapping[str, str]] = None,
    ) -> Terms:
        """Check and return what the user has given.

        Raises:
            TypeError, ConfigurationError: a value that cannot work; the message names the argument.
        """
        limits = InputLimits.of(rows_per_batch, tokens_per_batch)
        if not (isinstance(completion_window, str) and completion_window):
            raise TypeError(f'completion_window must be a text such as "24h", got {completion_window!r}')
        if not (metadata is None or isinstance(metadata, Mapping)):
            raise TypeError(f"metadata must be a dict of texts, got {type(metadata).__name__}")
        pairs = dict(metadata or {})
        refuse_metadata(pairs)
        return cls(limits, completion_window, pairs)


def submit_job(
    input_path: str,
    output_path: str,
    job: Job,
    input_options: Mapping[str, Any],
    terms: Terms,
    pool: ChatPool,
    body_fields: Mapping[str, Any],
    *,
    say: Say = logger.info,
) -> SubmissionStatus:
    """Do what :func:`chatpool.batch.submit` does.

    Args:
        input_path, output_path, job, input_options: as for a run.
        terms: of the batches.
        pool: makes the calls, and completes the requests.
        body_fields: fields of every request.
        say: takes messages for a person.
    """
    for name, path in (("input", input_path), ("output", output_path)):
        if path == STDOUT or os.path.isdir(path):
            raise ConfigurationError(
                f"{name} must be a file, got {path!r}: the answers come hours later, and are put beside its rows"
            )
    paths = Paths.of(output_path, job.format, job.journal)
    service = BatchService(pool)
    refuse_before_start(paths, input_path)
    rows = rows_of(input_path, input_options, pool, body_fields, job, BatchResult(), say)
    plan = SubmissionPlan.new(
        server=service.server,
        input=os.path.abspath(input_path),
        fingerprint=fingerprint(input_path)[:2],
        input_options=_recorded(input_options),
        job_options=_planned_options(job),
        request=request_facts(pool, body_fields),
        completion_window=terms.completion_window,
        metadata=terms.metadata,
    )
    with Submission(folder_of(output_path)) as submission:
        if submission.is_collected:
            parts = _parts_of(submission, plan, rows, job, paths, pool, service, terms)
            if not parts:
                return SubmissionStatus(plan.input, output_path, ())
            submission.begin(plan, parts)
        else:
            _refuse_other(submission, plan, output_path)
        say(f"{sum(part.rows for part in submission.parts):,} rows in {len(submission.parts):,} batches")
        Driver(submission, service).submit()
        return status_of(submission, output_path)


def _planned_options(job: Job) -> Dict[str, Any]:
    planned = {name: getattr(job, name) for name in _PLANNED_OPTIONS}
    # Not where it is 1: a submission that an earlier version has begun does not have it.
    return planned if job.samples == 1 else {**planned, "samples": job.samples}


def _recorded(input_options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the options of an input for a plan, of use in any folder."""
    recorded = {name: value for name, value in input_options.items() if value}
    if "attach" in recorded and not isinstance(recorded["attach"], str):
        recorded["attach"] = list(recorded["attach"])
    if "attach_folder" in recorded:
        recorded["attach_folder"] = os.path.abspath(recorded["attach_folder"])
    return recorded


def _parts_of(
    submission: Submission,
    plan: SubmissionPlan,
    rows: Rows,
    job: Job,
    paths: Paths,
    pool: ChatPool,
    service: BatchService,
    terms: Terms,
) -> List[Part]:
    """Check the input, write the input files of the rows that have no answer yet, and return the parts."""
    clock = current_clock()
    with Journal(paths.journal, needs_lock=True) as journal:

        def fail(row_request: RowRequest) -> None:
            outcome = Outcome(0, row_request, error=invalid_row_error(rows, row_request))
            journal.append(record_of_row(row_request, outcome, FAILED, at=clock.wall()))

        check_input(pool, rows, job, journal, paths, BatchResult())
        planner = Planner(submission, plan.name, terms.limits, is_azure=service.is_azure, samples=job.samples)
        parts = planner.write(rows, fail)
        if rows.input_error is not None:  # it has changed since it was checked
            raise rows.input_error
    return parts


def _refuse_other(submission: Submission, plan: SubmissionPlan, output: str) -> None:
    """Refuse to go on with the submission of another input.

    Raises:
        ConfigurationError: it is another input, or one that has changed, or another option was given.
    """
    assert submission.plan is not None
    if submission.plan.same_as(plan):
        return
    names = [name for name in SubmissionPlan._fields[2:] if getattr(plan, name) != getattr(submission.plan, name)]
    raise ConfigurationError(
        f"batches of {submission.plan.input} are under way to {output}, and this call has another "
        f"{' and '.join(names).replace('_', ' ')}: collect their answers first (chatpool batch collect), or choose "
        "another output"
    )


def wait_job(
    output: str,
    pool: ChatPool,
    timeout: Optional[float],
    progress: BatchProgress,
    *,
    say: Optional[Say] = None,
) -> SubmissionStatus:
    """Do what :func:`chatpool.batch.wait` does; ``say`` takes messages for a person."""
    if timeout is not None and timeout != 0:
        positive_seconds("timeout", timeout)
    with planned(output) as submission:
        driver = Driver(submission, BatchService.of(pool, submission))
        total = sum(part.rows for part in submission.parts)
        bar = None if callable(progress) else run_progress(progress, total, "row", say=say)

        def report() -> None:
            if callable(progress):
                progress(status_of(submission, output).to_dict())

        with contextlib.ExitStack() as stack:
            if bar is not None:
                stack.callback(bar.close)
            driver.wait(timeout, bar, report)
        return status_of(submission, output)


def cancel_job(output: str, pool: ChatPool) -> SubmissionStatus:
    """Do what :func:`chatpool.batch.cancel` does."""
    with planned(output) as submission:
        Driver(submission, BatchService.of(pool, submission)).cancel()
        return status_of(submission, output)
