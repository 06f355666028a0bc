"""``chatpool.batch.run``: from its arguments to a run, or to a dry run that only counts."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
import os
import signal
import tempfile
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Type, Union

from .._client.batch_support import (
    ChatPool,
    MaxFailures,
    has_version_in_url,
    model_of,
    prompt_tokens,
    request_maker,
    row_fields,
    with_answer_rules,
)
from .._journal import OK, AppendOnly, FolderLease, Journal
from .._observe.progress import run_progress
from .._structured.validation import Accept, AnswerRules
from .._typing import Parse
from ..clock import current_clock
from ..config import non_negative_int
from ..errors import ConfigurationError
from ..prices import PricesLike
from ..types import Usage
from .input_files import Source
from .input_format import InputFormat, is_speech
from .job import BatchProgress, BatchResult, Job, RetryFailed
from .jsonl import is_embedding
from .output_files import BatchOutputs, Outputs, Paths, PrintedOutputs, refuse_before_start
from .output_formats import STDOUT, format_of
from .output_tables import TableOutputs, check_fields
from .process_pool import ProcessPoolRunner
from .rows import Rows
from .run_status import reported
from .runner import Runner, ThreadRunner, refuse_without_model, time_limit
from .signals import SignalGuard, guard_signals
from .sound_files import SaveFolder, SoundFolder
from .submission_journal import refuse_unfinished

__all__ = ["check_input", "pool_of", "rows_of", "run", "run_job"]


logger = logging.getLogger("chatpool")

Say = Callable[[str], None]

_TEXT_OPTIONS = ("delimiter", "encoding", "rows_before")
_POOL_OPTIONS = frozenset(inspect.signature(ChatPool).parameters)


def run(
    input: Union[str, os.PathLike[str]],  # noqa: A002 - the Batch API's word for it
    output: Union[str, os.PathLike[str]],
    *,
    pool: Optional[ChatPool] = None,
    url: Optional[str] = None,
    template: Optional[str] = None,
    column: Optional[str] = None,
    id_field: Optional[str] = None,
    attach: Union[str, Sequence[str], None] = None,
    attach_folder: Union[str, os.PathLike[str], None] = None,
    delimiter: Optional[str] = None,
    encoding: Optional[str] = None,
    rows_before: int = 0,
    save_to: Union[str, os.PathLike[str], None] = None,
    retry_failed: RetryFailed = False,
    limit: Optional[int] = None,
    sample: Optional[int] = None,
    dry_run: bool = False,
    in_order: bool = False,
    skip_bad_lines: bool = False,
    progress: BatchProgress = None,
    prices: Optional[PricesLike] = None,
    processes: int = 1,
    parse: Optional[Parse] = None,
    max_reasks: Optional[int] = None,
    accept: Optional[Accept] = None,
    collect_stream: bool = False,
    max_pack: Optional[int] = None,
    format: Optional[str] = None,  # noqa: A002 - pandas' word for it, and the command line's
    fields: Union[str, Sequence[str], None] = None,
    raw: bool = False,
    journal: Union[str, os.PathLike[str], None] = None,
    lock: bool = True,
    max_failures: MaxFailures = "same",
    run_timeout: Optional[float] = None,
    samples: int = 1,
    **options: Any,
) -> BatchResult:
    r"""Answer every row of a file and store every outcome.  The same call again goes on from where this one ended.

    Args:
        input: OpenAI batch lines, request bodies (the cookbook script's lines), objects with ``messages``,
            ``prompt`` or ``input``, a text file of one prompt a line, or CSV; compressed by gzip or not; ``"-"`` is
            standard input. The format is detected from its name and its first line. Excel workbooks (their first
            sheet) and Parquet files need the extra ``tables``. With the url ``transcriptions`` or ``translations`` each
            row is the path of a sound (a line of text, or the column ``file``), with its ``language``, ``prompt`` and
            other fields of the API beside it; a folder is all sounds and videos in it, named by their files.
        output: the file of answers, say ``OUT.jsonl``; failures go to ``OUT.errors.jsonl``, and ``OUT.journal`` keeps
            everything. By its ending it is a table instead: ``.csv``, ``.tsv``, ``.parquet`` (needs pyarrow), ``.db``
            (SQLite), with failures in its column ``error``, or ``.txt``, with an answer a line; ``OUT.csv.journal``
            keeps everything then. One that ends in ``.npy`` is a matrix of embeddings, one row per row (needs numpy).
            ``"-"`` is standard output.
        pool: makes the calls. Default: a pool that is made of ``options``, and closed at the end.
        url: the path for rows without one, for instance ``"/v1/embeddings"``, ``"transcriptions"``,
            ``"translations"`` or ``"speech"``. Default: chat, except that an ``input`` goes to the Responses API, or to
            embeddings if the model's name says so.
        template: a prompt with places for the row's fields, ``"Translate: {text}"``; the field of a line of text is
            ``text``.
        column: the field that is the prompt, or the path of a sound. Default, of a table: ``prompt``, or ``file`` for
            sounds, or the only one.
        id_field: the field that names a row. Default: ``custom_id``; rows without one are named by their number: blank
            lines have none, the first line of a table has the first.
        attach: the column that names a file to send beside the prompt, or several columns: a path, a URL or a list of
            them, each as for :func:`chatpool.attach`. With it, ``template`` may be a text without a field.
        attach_folder: the folder that relative paths are below, those of sounds too. Default: that of the input; of
            standard input, the current one.
        delimiter: the character between the columns of CSV, or ``"tab"``, ``"comma"``, ``"semicolon"``,
            ``"pipe"``. Default: that of a line ``sep=;``, or the one detected in the first lines.
        encoding: the encoding of the text, by Python's name (``"cp1252"``). Default: UTF-8.
        rows_before: the number of rows that come before this file's, if it is a part of a larger one: rows without a
            name are named by their number in that. Default: 0.
        save_to: with the url ``speech``: the folder for the sounds, which is made if it is not there. Each is a file
            that has its row's name and the format (``response_format``, mp3 by default); characters that file names do
            not have are replaced, and a digest is added then. A row whose file is gone runs again.
        retry_failed: run only rows that have failed before: True, or kinds of failures (class, status or code).
        limit: run only this number of rows, the first ones.
        sample: run only this number of rows, drawn at random, always the same ones.
        dry_run: send nothing; count what would be sent.
        in_order: put the output into the order of the input at the end. Otherwise it has the order of completion.
        skip_bad_lines: leave out lines that cannot be used; otherwise the input is refused.
        progress: None shows a bar on a terminal and logs a line a minute elsewhere; True, False, or a dict of tqdm's
            options. A function is called with a dict of the run so far, in the thread that runs, once a second at most:
            ``total`` rows (None while that is not known), ``succeeded``, ``failed``, ``done_before``, ``tokens``,
            ``cost``, ``elapsed`` and others, as JSON has them. An error that it raises ends the run.
        prices: dollars per million tokens, for the cost: ``(read, written)``, with a third figure for those read from
            the prompt cache, or one number for embeddings; by model ``{"model": (read, written)}``; or the name of a
            file of prices in LiteLLM's form. A cost that a server states goes before them.
        processes: the number of processes that share the work; more than one if Python itself is the limit.
        parse, max_reasks, accept: rules for answers, as in :meth:`~chatpool.ChatPool.chat`. A row whose answer
            is not accepted in the end is a failure that runs again with ``retry_failed`` only.
        collect_stream: collect answers from streams, as in :meth:`~chatpool.ChatPool.chat`, if the path has them.
        max_pack: the greatest number of texts to embed in one request, as in :meth:`~chatpool.ChatPool.embed`.
        format: the format of the output, whatever its suffix: ``"batch"`` (the Batch API's lines), ``"jsonl"``,
            ``"csv"``, ``"parquet"``, ``"sqlite"`` (a table ``answers``) or ``"text"``.
        fields: the columns of a table, as names or ``"id,answer"``. Default: the input's columns, then ``answer`` (the
            fields of answers with ``parse``), ``error`` and ``tokens``. There are also ``id``, ``row``,
            ``prompt_tokens``, ``completion_tokens``, ``cached_tokens``, ``reasoning_tokens``, ``model``,
            ``finish_reason``, ``status``, ``attempts``, ``elapsed`` (seconds), ``fallback`` (the number of the one that
            has answered) and ``request_id``. A name that the input has already gets a number.
        raw: leave texts as they are that a spreadsheet would take for formulas, which get a ``'`` otherwise, and line
            breaks within a text, which are written as ``\\n`` otherwise.
        journal: the file that keeps everything. Default: beside the output; for standard output there is none, and
            the run cannot be continued.
        lock: refuse to run if no lock can keep a second run from the same files. False runs, with a warning.
        max_failures: how many rows of this run may fail before it ends as fatal, as in :meth:`~chatpool.ChatPool.map`:
            a number, a share (0.2) of those that have ended, from the 20th on, or None. Default: it ends when the
            server refuses the first 50 that are sent in the same words. The rows that were not sent stay pending.
        run_timeout: seconds for this run; then it ends as fatal, and rows without an outcome stay pending, those in
            flight too. A run that waits for standard input ends when the next line has come. Default: no limit.
        samples: how many answers each row gets, as in :meth:`~chatpool.ChatPool.map`. A line of the output has them in
            ``choices`` (those of the Responses API after the first in ``samples``); in a table a cell is a list of
            them. Not to be confused with ``sample``, which draws rows.
        options: arguments of :class:`~chatpool.ChatPool` (not with ``pool``), and body fields for every row; those that
            have the name of an argument go into ``extra_body``, a dict.

    Returns:
        A :class:`BatchResult`. A fatal error (a refused key, no credit, too many failures) is on its ``fatal``: the
        rows that were not sent by then stay pending.

    Raises:
        ConfigurationError: an argument, a line of the input or a file cannot be used, or another process uses the
            output. Nothing was sent, unless the input is standard input. An argument of a wrong type is a TypeError.
        KeyboardInterrupt: after what was done has been kept; the same call goes on from there. Its ``result`` is
            what this call would have returned.
        OSError: an output could not be written any more, for instance on a full disk; what was kept before, is kept.
    """
    job = Job(
        retry_failed,
        limit,
        sample,
        dry_run,
        in_order,
        skip_bad_lines,
        progress,
        prices,
        processes,
        AnswerRules(parse, max_reasks, accept),
        collect_stream,
        max_pack,
        format=format_of(os.fspath(output), format),
        fields=fields,
        raw=raw,
        journal=None if journal is None else os.fspath(journal),
        save_to=None if save_to is None else os.fspath(save_to),
        lock=lock,
        max_failures=max_failures,
        run_timeout=run_timeout,
        samples=samples,
    )
    if not isinstance(input, (str, os.PathLike)):
        raise TypeError(
            f"input must be the path of a file, got {type(input).__name__}; for rows in memory use pool.map"
        )
    input_options: Dict[str, Any] = {"url": url, "template": template, "column": column, "id_field": id_field}
    input_options.update(delimiter=delimiter, encoding=encoding, attach=attach)
    input_options["attach_folder"] = None if attach_folder is None else os.fspath(attach_folder)
    input_options["rows_before"] = non_negative_int("rows_before", rows_before)
    return run_job(os.fspath(input), os.fspath(output), job, input_options, pool, options)


def run_job(
    input_path: str,
    output_path: str,
    job: Job,
    input_options: Mapping[str, Any],
    pool: Optional[ChatPool],
    options: Mapping[str, Any],
    *,
    say: Say = logger.info,
    signals: Sequence[int] = (signal.SIGINT,),
) -> BatchResult:
    """Do what :func:`run` does, with a function for messages and a choice of signals.

    Args:
        input_path, output_path, job, input_options, pool, options: as in :func:`run`.
        say: takes messages for a person.
        signals: the signals that end the run in good order.
    """
    _check_save_to(job, input_options.get("url"))
    paths = Paths.of(output_path, job.format, job.journal)
    result = BatchResult(
        output=paths.npy or paths.answers, errors=paths.errors, journal=paths.journal, prices=job.prices
    )
    clock = current_clock()
    started = clock.now()
    with contextlib.ExitStack() as stack:
        job_pool, body_fields = stack.enter_context(pool_of("run", pool, options))
        job_pool = with_answer_rules(
            job_pool,
            job.answers,
            collect_stream=job.collect_stream,
            max_pack=job.max_pack,
            samples=job.samples,
        )
        stack.callback(lambda: setattr(result, "elapsed", clock.now() - started))
        rows = rows_of(input_path, input_options, job_pool, body_fields, job, result, say)
        if job.dry_run:
            _count_tokens(rows, job, paths, result)
        else:
            refuse_before_start(paths, input_path)
            if output_path != STDOUT:
                refuse_unfinished(output_path)
            if job.save_to is not None:
                SaveFolder(job.save_to).make()
            if not paths.journal:
                paths = _with_temporary_journal(paths, stack)
                result.journal = None
            _run(job_pool, rows, job, paths, result, say, signals)
    return result


def _check_save_to(job: Job, url: Optional[str]) -> None:
    """Refuse sounds without a folder for them, and a folder without sounds."""
    if is_speech(url) and job.save_to is None:
        raise ConfigurationError("sounds go to files: name the folder for them (save_to=, --save-to FOLDER)")
    if job.save_to is not None and not is_speech(url):
        raise ConfigurationError(
            "save_to (--save-to) is for the sounds of the url speech (--endpoint speech): leave it out"
        )


@contextlib.contextmanager
def pool_of(
    method: str, pool: Optional[ChatPool], options: Mapping[str, Any]
) -> Iterator[Tuple[ChatPool, Dict[str, Any]]]:
    """Give the pool, made of the options if there is none, and the body fields among the options of ``method``."""
    body_fields = row_fields(method, {name: value for name, value in options.items() if name not in _POOL_OPTIONS})
    pool_options = {name: value for name, value in options.items() if name in _POOL_OPTIONS}
    if pool is None:
        with ChatPool(**pool_options) as own_pool:
            yield own_pool, body_fields
        return
    if pool_options:
        names = ", ".join(f"{name}=" for name in pool_options)
        raise TypeError(f"with pool= the options of a pool have no effect: leave out {names}")
    yield pool, body_fields


def rows_of(
    input_path: str,
    input_options: Mapping[str, Any],
    pool: ChatPool,
    body_fields: Mapping[str, Any],
    job: Job,
    result: BatchResult,
    say: Say,
) -> Rows:
    """Return the rows of an input, with the requests that the pool and the body fields make of them."""
    format_options = dict(input_options)
    text_options = {name: format_options.pop(name) for name in _TEXT_OPTIONS if name in format_options}
    source = _source_of(input_path, format_options.get("column"), text_options)
    model = body_fields.get("model") or model_of(pool)
    input_format = InputFormat(source, keep_version=not has_version_in_url(pool), model=model, **format_options)
    say_format = functools.cache(lambda: say(f"{source.name}: {result.kind}"))  # once, of several readings
    return Rows(source, input_format, job, request_maker(pool, body_fields), result, say_format)


def _source_of(path: str, column: Optional[str], text_options: Mapping[str, Any]) -> Source:
    if not os.path.isdir(path):
        return Source(path, column, **text_options)
    for name, value in text_options.items():
        if value:
            raise ConfigurationError(f"{name} is for text, and {path} is a folder: leave it out")
    return SoundFolder(path)


def _with_temporary_journal(paths: Paths, stack: contextlib.ExitStack) -> Paths:
    """Return paths with a journal that is gone after the run, and warn of it."""
    logger.warning(
        "the answers go to standard output and nothing keeps them: what this run does not finish cannot go on; name a "
        "file for that (journal=, --journal FILE)"
    )
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chatpool-"))
    return paths._replace(journal=os.path.join(folder, "run.journal"))


def _run(
    pool: ChatPool, rows: Rows, job: Job, paths: Paths, result: BatchResult, say: Say, signals: Sequence[int]
) -> None:
    if not job.is_table and paths.answers != STDOUT:
        # Before the lock: a program that reads the output of a refused run finds it empty.
        _make_writable(paths.answers)
    is_kept = result.journal is not None
    needs_lock = job.lock is True and is_kept
    with Journal(paths.journal, needs_lock=needs_lock, lease=job.lease) as journal, reported(journal, result) as status:
        total = status.total = check_input(pool, rows, job, journal, paths, result)
        outputs = _outputs_of(paths, journal, rows, job)
        _say_start(total, rows, journal, paths, say)
        runner_class: Type[Runner] = ThreadRunner if job.processes == 1 else ProcessPoolRunner
        runner = runner_class(pool, rows, job, journal, outputs, result)
        status.counts = runner.counts
        progress = None
        if callable(job.progress):
            runner.report = status.reporter(job.progress)
        else:
            progress = run_progress(job.progress, total, "row", bill=runner.bill, say=say)
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(rows.source.close)
                stack.callback(_count_pending, result, total, job)
                if progress is not None:
                    stack.callback(progress.close)
                    progress.open(runner.waiting)
                stack.enter_context(outputs)
                signal_guard = stack.enter_context(guard_signals(signals, runner.stop))
                stack.enter_context(time_limit(job.run_timeout, runner))
                runner.report()
                with _kept(job.lease, runner):
                    runner.run(signal_guard, progress)
                if total is None and rows.is_read and result.fatal is None and signal_guard.number is None:
                    rows.set_aside_removed(journal)
                outputs.finish(whole=signal_guard.number is None)
        except KeyboardInterrupt:
            if signal_guard.number is None:
                raise
    if signal_guard.number is None and rows.input_error is not None:
        raise rows.input_error
    if total is None and rows.is_read and not (result.rows or job.allows_empty) and job.retry_failed is False:
        raise _no_rows(rows)
    result.signal = signal_guard.number
    _re_raise(signal_guard, result)


@contextlib.contextmanager
def _kept(lease: Optional[FolderLease], runner: Runner) -> Iterator[None]:
    """Within the block, end the run if its lease is lost.

    Raises:
        JournalLostError: it was, when the block ended.
    """
    if lease is None:
        yield
        return
    lease.on_lost = runner.stop
    yield
    lease.check(at_once=True)


def _make_writable(path: str) -> None:
    try:
        AppendOnly(path).close()
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}; choose another output") from error


def check_input(
    pool: ChatPool, rows: Rows, job: Job, journal: Journal, paths: Paths, result: BatchResult
) -> Optional[int]:
    """Check the input before anything is sent; return how many rows are selected, None of standard input."""
    if journal.is_empty and job.retry_failed is not False:
        logger.warning(
            "no earlier run is in %s, so no row has failed and none is sent: name the output of that run, or leave out "
            "retry_failed (--retry-failed)",
            paths.journal,
        )
    if rows.source.is_stream:
        if job.sample is not None:
            raise ConfigurationError("a sample cannot be drawn from standard input: write it to a file first")
        return None
    total = rows.check(journal)
    if not (total or job.allows_empty):
        raise _no_rows(rows)
    check_fields(job, rows.columns)
    first = next(rows.row_requests(), None)
    if first is not None:
        refuse_without_model(pool, rows, first)
        if paths.npy is not None and first.request is not None and not is_embedding(first.request.path):
            raise ConfigurationError(
                f"{paths.npy} is to be a matrix of embeddings, and the rows go to {first.request.path}: choose "
                "another output, or another url (--url /v1/embeddings)"
            )
    return total


def _no_rows(rows: Rows) -> ConfigurationError:
    return ConfigurationError(
        f"{rows.source.name} has no rows: choose another input, or --allow-empty if that is right"
    )


def _outputs_of(paths: Paths, journal: Journal, rows: Rows, job: Job) -> Outputs:
    if job.is_table:
        return TableOutputs(paths, journal, rows, job)
    if paths.answers == STDOUT:
        return PrintedOutputs(journal, in_order=job.in_order)
    return BatchOutputs(paths, journal, in_order=job.in_order or paths.npy is not None)


def _say_start(total: Optional[int], rows: Rows, journal: Journal, paths: Paths, say: Say) -> None:
    if total is not None:
        say(f"{total:,} rows" if journal.is_empty else f"{total:,} rows; going on with {paths.journal}")
    if total and not journal.is_empty and not rows.matched_count:
        logger.warning(
            "no row of %s is in %s: all are sent, and paid again if they were answered under other names; was it "
            "another input, or another field that names the rows (id_field, --id-field)?",
            rows.source.name,
            journal.path,
        )


def _count_pending(result: BatchResult, total: Optional[int], job: Job) -> None:
    if total is not None and job.retry_failed is False:
        result.rows = total
    result.pending = result.rows - result.succeeded - result.failed


def _re_raise(signal_guard: SignalGuard, result: BatchResult) -> None:
    """Raise the signal that ended a run again, with the result on the KeyboardInterrupt."""
    try:
        signal_guard.re_raise()
    except KeyboardInterrupt as interrupt:
        interrupt.result = result  # type: ignore[attr-defined]  # documented on run
        raise


# -- dry run ----------------------------------------------------------------------------------------------


def _count_tokens(rows: Rows, job: Job, paths: Paths, result: BatchResult) -> None:
    """Count the rows that would be sent and estimate their tokens; nothing is written.

    Raises:
        ConfigurationError: a line cannot be used.
    """
    if os.path.exists(paths.journal):
        with Journal(paths.journal) as journal:
            tokens = _count_pending_tokens(rows, job, journal, result)
    else:
        tokens = _count_pending_tokens(rows, job, None, result)
    if rows.input_error is not None:
        raise rows.input_error
    bill = job.bill()
    for model, count in tokens.items():
        bill.add(Usage(math.ceil(count), 0, math.ceil(count)), model)
    result.estimated_tokens = bill.usage.prompt_tokens
    result.cost, result.unpriced = bill.cost, bill.note()


def _count_pending_tokens(
    rows: Rows, job: Job, journal: Optional[Journal], result: BatchResult
) -> Dict[Optional[str], float]:
    """Count the rows, and return the estimated tokens of those to be sent, by model."""
    is_stream, retries_failed = rows.source.is_stream, job.retry_failed is not False
    if not is_stream:
        rows.check(journal, dry_run=True)
        check_fields(job, rows.columns)
    tokens: Dict[Optional[str], float] = {}
    for row_request in rows.row_requests():
        if journal is not None and is_stream:
            recalled = rows.recall(row_request, journal, dry_run=True)
            row_request.wanted = recalled.wanted
            if not (retries_failed or row_request.wanted):
                result.ended_before(recalled.state == OK)
        elif journal is None:
            row_request.wanted = not retries_failed
        result.rows += row_request.wanted or not retries_failed
        if row_request.wanted:
            result.pending += 1
            if row_request.request is not None:
                model = row_request.request.model
                tokens[model] = tokens.get(model, 0.0) + prompt_tokens(row_request.request)
    return tokens
