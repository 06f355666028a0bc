"""``submit``, ``status``, ``wait``, ``collect``, ``cancel``: the rows of a file by the Batch API, at half the price."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Union

from .._client.batch_support import ChatPool
from .._structured.validation import Accept, AnswerRules
from .._typing import Parse
from ..prices import PricesLike
from .api import pool_of
from .job import BatchProgress, BatchResult, Job, RetryFailed
from .output_formats import format_of
from .submission_collect import collect_job
from .submission_jobs import Terms, cancel_job, submit_job, wait_job
from .submission_journal import folder_of, planned_options, read_submission
from .submission_plan import MAX_ROWS
from .submission_service import BatchService
from .submission_status import BatchStatus, SubmissionStatus, status_of

__all__ = ["BatchStatus", "SubmissionStatus", "cancel", "collect", "status", "submit", "wait"]

File = Union[str, os.PathLike[str]]


def submit(
    input: File,  # noqa: A002 - the Batch API's word for it
    output: File,
    *,
    pool: Optional[ChatPool] = None,
    url: Optional[str] = None,
    template: Optional[str] = None,
    column: Optional[str] = None,
    id_field: Optional[str] = None,
    attach: Union[str, Sequence[str], None] = None,
    attach_folder: Optional[File] = None,
    delimiter: Optional[str] = None,
    encoding: Optional[str] = None,
    retry_failed: RetryFailed = False,
    limit: Optional[int] = None,
    sample: Optional[int] = None,
    skip_bad_lines: bool = False,
    format: Optional[str] = None,  # noqa: A002 - as of run
    journal: Optional[File] = None,
    rows_per_batch: int = MAX_ROWS,
    tokens_per_batch: Optional[int] = None,
    completion_window: str = "24h",
    metadata: Optional[Mapping[str, str]] = None,
    samples: int = 1,
    **options: Any,
) -> SubmissionStatus:
    """Submit the rows of a file to the Batch API, which answers within a day, at half the price.

    The same call again, after it was interrupted or killed anywhere, goes on from there: what was uploaded or begun is
    found again, and nothing is paid twice.  Rows that have an answer from a run to the same output are not submitted.
    When the answers are collected, the same call submits the rows that have none by then.

    Args:
        input, output, pool, url, template, column, id_field, attach, attach_folder, delimiter, encoding, retry_failed,
            limit, sample, skip_bad_lines, format, journal: as in :func:`run`; input and output must be files. A folder
            ``OUT.batches`` beside the output keeps what was submitted.
        rows_per_batch: rows of one batch at most; of embeddings, the texts in them. Default, and most: 50,000.
            A batch has 200 MB at most in any case, and one model and endpoint.
        tokens_per_batch: tokens of the prompts of one batch at most, as they are estimated: for accounts whose limit of
            enqueued tokens is small. Default: no limit; batches that it refuses are submitted in turn by :func:`wait`.
        completion_window: the time that the server may take. Default: ``"24h"``, which OpenAI has only.
        metadata: names and texts that the server keeps with each batch; there is room for 13.
        samples: how many answers each row gets, by ``n``: 128 at most, and not from the Responses API.
        options: arguments of :class:`~chatpool.ChatPool` (not with ``pool``), and body fields for every row.

    Returns:
        A :class:`SubmissionStatus`. Batches that are held back are submitted by :func:`wait`.

    Raises:
        ConfigurationError: an argument or a row cannot be used, by the Batch API or at all: nothing was uploaded. Or
            another input is under way to this output.
        JournalBusyError: another process uses the output.
        ChatPoolError: the server has refused something, or could not be reached; the same call goes on.
    """
    job = Job(retry_failed, limit, sample, skip_bad_lines=skip_bad_lines, format=format_of(os.fspath(output), format))
    job = replace(job, journal=None if journal is None else os.path.abspath(journal), samples=samples)
    input_options: Dict[str, Any] = {"url": url, "template": template, "column": column, "id_field": id_field}
    input_options.update(delimiter=delimiter, encoding=encoding, attach=attach)
    input_options["attach_folder"] = None if attach_folder is None else os.fspath(attach_folder)
    terms = Terms.of(rows_per_batch, tokens_per_batch, completion_window, metadata)
    with pool_of("submit", pool, options) as (job_pool, body_fields):
        return submit_job(os.fspath(input), os.fspath(output), job, input_options, terms, job_pool, body_fields)


def status(output: File, *, pool: Optional[ChatPool] = None, **options: Any) -> SubmissionStatus:
    """Return the state of the batches whose answers go to an output; nothing is changed.

    It works while another process waits for them.

    Args:
        output: the file that was given to :func:`submit`.
        pool: asks the server. Default: a pool that is made of ``options``.
        options: arguments of :class:`~chatpool.ChatPool` (not with ``pool``): a key, ``base_url`` ...

    Raises:
        ConfigurationError: nothing was submitted for this output, or the pool is one of another server.
        ChatPoolError: the server cannot be reached.
    """
    submission = read_submission(folder_of(os.fspath(output)))
    if any(part.is_live for part in submission.parts):
        with _pool_of("status", pool, options) as job_pool:
            service = BatchService.of(job_pool, submission)
            for part in submission.parts:
                if part.batch_id is not None and part.is_live:
                    part.apply({"event": "batch", **service.look_at(part.batch_id).facts()})
    return status_of(submission, os.fspath(output))


def wait(
    output: File,
    *,
    pool: Optional[ChatPool] = None,
    timeout: Optional[float] = None,
    progress: BatchProgress = None,
    **options: Any,
) -> SubmissionStatus:
    """Wait until all batches of an output have ended, and submit those that were held back as soon as there is room.

    The server is asked every 2 seconds at first, and once a minute while nothing changes.  Ctrl-C leaves everything
    as it is, and a server that cannot be reached is asked again: the same call goes on.

    Args:
        output, pool, options: as for :func:`status`.
        timeout: seconds to wait at most; None for as long as it takes. 0 looks once.
        progress: None shows a bar on a terminal and logs a line a minute elsewhere; True, False, or a dict of tqdm's
            options. A function is called after every look, with what :meth:`SubmissionStatus.to_dict` returns.

    Returns:
        A :class:`SubmissionStatus`; ``is_over`` is False if the time was over first.

    Raises:
        JournalBusyError: another process waits already.
        ConfigurationError, ChatPoolError: as for :func:`status`; or a batch that was held back is refused for good.
    """
    with _pool_of("wait", pool, options) as job_pool:
        return wait_job(os.fspath(output), job_pool, timeout, progress)


def collect(
    output: File,
    *,
    pool: Optional[ChatPool] = None,
    finish_now: bool = False,
    parse: Optional[Parse] = None,
    max_reasks: Optional[int] = None,
    accept: Optional[Accept] = None,
    fields: Union[str, Sequence[str], None] = None,
    raw: bool = False,
    progress: BatchProgress = None,
    prices: Optional[PricesLike] = None,
    **options: Any,
) -> BatchResult:
    """Write the answers of the batches that have ended to the output, as :func:`run` would have written them.

    They come in the order of the input, failures in the file of errors; and they are in the journal of a run to this
    output.  So :func:`run` with the same input and output sends the rows without an answer, and no others.

    Args:
        output, pool, options: as for :func:`status`.
        finish_now: send the rows that have no answer, or whose batch has expired, as an ordinary run at the full price.
            All batches have to be over.
        parse, max_reasks, accept: rules for answers, as for :func:`run`; only ``finish_now`` asks again.
        fields, raw: what is written, as for :func:`run`.
        progress: of ``finish_now``, as for :func:`run`.
        prices: as for :func:`run`; what the Batch API has answered counts half.

    Returns:
        A :class:`BatchResult`: ``pending`` are rows whose batch is not over, or that have no answer; ``usage`` and
        ``cost`` are of the answers that this call has fetched.

    Raises:
        ConfigurationError: nothing was submitted for this output, the pool is one of another server, or the input of a
            table or of ``finish_now`` has changed since. Answers are kept in the journal in any case.
        JournalBusyError: another process uses the output.
        ChatPoolError: the server cannot be reached; the same call goes on.
    """
    rules = AnswerRules(parse, max_reasks, accept)
    planned = planned_options(os.fspath(output))
    job = Job(progress=progress, prices=prices, answers=rules, raw=raw, fields=fields, **planned)
    with _pool_of("collect", pool, options) as job_pool:
        return collect_job(os.fspath(output), job, job_pool, finish_now=finish_now)


def cancel(output: File, *, pool: Optional[ChatPool] = None, **options: Any) -> SubmissionStatus:
    """Cancel the batches of an output that are not over.  What they have answered by then can be collected.

    It takes the server up to ten minutes, for which :func:`wait` waits.

    Args:
        output, pool, options: as for :func:`status`.

    Raises:
        JournalBusyError: another process uses the output: end it first.
        ConfigurationError, ChatPoolError: as for :func:`status`.
    """
    with _pool_of("cancel", pool, options) as job_pool:
        return cancel_job(os.fspath(output), job_pool)


@contextlib.contextmanager
def _pool_of(function: str, pool: Optional[ChatPool], options: Mapping[str, Any]) -> Iterator[ChatPool]:
    """Give the pool, made of the options if there is none.

    Raises:
        TypeError: an option that no pool has.
    """
    with pool_of("submit", pool, options) as (job_pool, others):
        for name in others:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        yield job_pool
