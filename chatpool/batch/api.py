"""``chatpool.batch.run``.

What a run would do.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
import os
import signal
import tempfile
from collections import Counter
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Type, Union

from .._client.batch_support import (
    ChatPool,
    MaxFailures,
    has_version_in_url,
    model_of,
    prompt_tokens,
    request_maker,
    with_answer_rules,
)
from .._journal import OK, AppendOnly, Journal
from .._observe.progress import Progress, RowProgress
from .._structured.parse import Parse
from .._structured.validation import Accept, AnswerRules
from ..clock import current_clock
from ..errors import ConfigurationError
from ..prices import PricesLike
from ..types import Usage
from .batch_format import is_embedding
from .input_files import Source
from .job import BatchResult, Job, RetryFailed
from .output_files import BatchOutputs, Outputs, Paths, PrintedOutputs, refuse_before_start
from .output_formats import STDOUT, format_of
from .output_tables import TableOutputs, check_fields
from .process_pool import ProcessPoolRunner
from .rows import InputFormat, Rows
from .runner import Runner, ThreadRunner, refuse_without_model
from .signals import SignalGuard, stopping_on

__all__ = ["count_tokens", "run"]


def count_tokens(rows: Rows, job: Job, paths: Paths, result: BatchResult) -> None:
    """Count the rows that would be sent and estimate their tokens; nothing is written.

    Raises:
        ConfigurationError: a line cannot be used.
    """
    if os.path.exists(paths.journal):
        with Journal(paths.journal) as journal:
            _count(rows, job, journal, result)
    else:
        _count(rows, job, None, result)


def _count(rows: Rows, job: Job, journal: Optional[Journal], result: BatchResult) -> None:
    is_stream, again = rows.source.is_stream, job.retry_failed is not False
    if not is_stream:
        rows.check(journal, dry=True)
        check_fields(job, rows.columns)
    tokens: Counter[Optional[str]] = Counter()  # by model
    for work in rows.works():
        if journal is not None and is_stream:
            found = rows.recall(work, journal, dry=True)
            work.wanted = found.wanted
            if not (again or work.wanted):
                result.ended_before(found.state == OK)
        elif journal is None:
            work.wanted = not again
        result.rows += work.wanted or not again
        if work.wanted:
            result.pending += 1
            if work.request is not None:
                tokens[work.request.model] += prompt_tokens(work.request)  # type: ignore[assignment]  # a float
    if rows.trouble is not None:
        raise rows.trouble
    bill = job.bill()
    for model, count in tokens.items():
        bill.add(Usage(math.ceil(count), 0, math.ceil(count)), model)
    result.estimated_tokens = bill.usage.prompt_tokens
    result.cost, result.unpriced = bill.cost, bill.note()


logger = logging.getLogger("chatpool")

Say = Callable[[str], None]

_OF_THE_POOL = frozenset(inspect.signature(ChatPool).parameters)


def run(
    input: Union[str, os.PathLike[str]],  # noqa: A002 - the Batch API's word for it
    output: Union[str, os.PathLike[str]],
    *,
    pool: Optional[ChatPool] = None,
    url: Optional[str] = None,
    template: Optional[str] = None,
    column: Optional[str] = None,
    id_field: Optional[str] = None,
    delimiter: Optional[str] = None,
    encoding: Optional[str] = None,
    retry_failed: RetryFailed = False,
    limit: Optional[int] = None,
    sample: Optional[int] = None,
    dry_run: bool = False,
    in_order: bool = False,
    skip_bad_lines: bool = False,
    progress: Progress = None,
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
    **options: Any,
) -> BatchResult:
    r"""Answer every row of a file and keep every outcome.  The same call again goes on where this one ended.

    Args:
        input: OpenAI batch lines, request bodies (the cookbook script's lines), objects with ``messages``,
            ``prompt`` or ``input``, a text file of one prompt a line, or CSV; compressed by gzip or not; ``"-"`` is
            standard input. What it is, is recognised from its name and its first line. Excel workbooks (their first
            sheet) and Parquet files need the extra ``tables``.
        output: the file of answers, say ``OUT.jsonl``; failures go to ``OUT.errors.jsonl``, and ``OUT.journal`` keeps
            everything. By its ending it is a table instead: ``.csv``, ``.tsv``, ``.parquet`` (needs pyarrow), ``.db``
            (SQLite), with failures in its column ``error``, or ``.txt``, with an answer a line; ``OUT.csv.journal``
            keeps everything then. One that ends in ``.npy`` is a matrix of embeddings, one row per row (needs numpy).
            ``"-"`` is standard output.
        pool: makes the calls. Default: one that is made of ``options``, and closed at the end.
        url: where rows go that do not say it, for instance ``"/v1/embeddings"``. Default: chat, except that an
            ``input`` goes to the Responses API, or to embeddings where the model's name says so.
        template: a prompt with places for the row's fields, ``"Translate: {text}"``; the field of a line of text is
            ``text``.
        column: the field that is the prompt. Default, of a table: ``prompt``, or the only one.
        id_field: the field that names a row. Default: ``custom_id``; rows without one are named by their number: blank
            lines have none, the first line of a table has the first.
        delimiter: what separates the columns of CSV: a character, or ``"tab"``, ``"comma"``, ``"semicolon"``,
            ``"pipe"``. Default: what a line ``sep=;`` says, or what the first lines have.
        encoding: of the text, as Python calls it (``"cp1252"``). Default: UTF-8.
        retry_failed: run only what has failed before: True, or kinds of failures (class, status or code).
        limit: only the first so many rows.
        sample: only so many rows, drawn at random, always the same ones.
        dry_run: send nothing; say what would be sent.
        in_order: put the output into the order of the input at the end. Otherwise it has the order of completion.
        skip_bad_lines: leave out lines that cannot be used, instead of refusing the input.
        progress: None shows a bar on a terminal and logs a line a minute elsewhere; True, False, or a dict of tqdm's
            options.
        prices: dollars per million tokens, for the cost: ``(read, written)``, with a third figure for those read from
            the prompt cache, or one number for embeddings; by model ``{"model": (read, written)}``; or the name of a
            file of prices in LiteLLM's form. What a server states that an answer cost goes before them.
        processes: how many processes share the work; more than one where Python itself is the limit.
        parse, max_reasks, accept: what answers have to be, as in :meth:`~chatpool.ChatPool.chat`. A row whose answer
            is not taken in the end is a failure that runs again with ``retry_failed`` only.
        collect_stream: collect answers from streams, as in :meth:`~chatpool.ChatPool.chat`, where the path has them.
        max_pack: how many texts to embed go out in one request at most, as in :meth:`~chatpool.ChatPool.embed`.
        format: the form of the output, whatever its ending: ``"batch"`` (the Batch API's lines), ``"jsonl"``,
            ``"csv"``, ``"parquet"``, ``"sqlite"`` (a table ``answers``) or ``"text"``.
        fields: the columns of a table, as names or ``"id,answer"``. Default: the input's columns, then ``answer`` (the
            fields of answers with ``parse``), ``error`` and ``tokens``. There are also ``id``, ``row``,
            ``prompt_tokens``, ``completion_tokens``, ``cached_tokens``, ``reasoning_tokens``, ``model``,
            ``finish_reason``, ``status``, ``attempts``, ``elapsed`` (seconds) and ``request_id``. A name that
            the input has already gets a number.
        raw: leave texts as they are that a spreadsheet would take for formulas, which get a ``'`` otherwise, and line
            breaks within a text, which are written as ``\\n`` otherwise.
        journal: the file that keeps everything. Default: beside the output; for standard output there is none, and
            nothing can go on.
        lock: refuse to run where no lock keeps a second run from the same files. False runs, with a warning.
        max_failures: how many rows of this run may fail before it ends as fatal, as in :meth:`~chatpool.ChatPool.map`:
            a number, a share (0.2) of those that have ended, from the 20th on, or None. Default: it ends when the
            server refuses the first 50 that are sent in the same words. The rows that were not sent stay pending.
        options: arguments of :class:`~chatpool.ChatPool` (not with ``pool``), and body fields for every row.

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
        lock=lock,
        max_failures=max_failures,
    )
    if not isinstance(input, (str, os.PathLike)):
        raise TypeError(
            f"input must be the path of a file, got {type(input).__name__}; for rows in memory use pool.map"
        )
    reading = {"url": url, "template": template, "column": column, "id_field": id_field}
    reading.update(delimiter=delimiter, encoding=encoding)
    return run_job(os.fspath(input), os.fspath(output), job, reading, pool, options)


def run_job(
    input_path: str,
    output_path: str,
    job: Job,
    reading: Mapping[str, Optional[str]],
    pool: Optional[ChatPool],
    options: Mapping[str, Any],
    *,
    say: Say = logger.info,
    signals: Sequence[int] = (signal.SIGINT,),
) -> BatchResult:
    """What :func:`run` does, for whoever wants to hear of it.

    Args:
        input_path, output_path, job, reading, pool, options: as in :func:`run`.
        say: takes what a person may want to know.
        signals: what ends the run in good order.
    """
    paths = Paths.of(output_path, job.format, job.journal)
    result = BatchResult(
        output=paths.matrix or paths.answers, errors=paths.errors, journal=paths.journal, prices=job.prices
    )
    clock = current_clock()
    started = clock.now()
    with contextlib.ExitStack() as end:
        calls, extra = end.enter_context(_pool(pool, options))
        calls = with_answer_rules(calls, job.answers, collect_stream=job.collect_stream, max_pack=job.max_pack)
        end.callback(lambda: setattr(result, "elapsed", clock.now() - started))
        reading = dict(reading)
        source = Source(
            input_path, reading.get("column"), reading.pop("delimiter", None), reading.pop("encoding", None)
        )
        model = extra.get("model") or model_of(calls)
        lines = InputFormat(source, keep_version=not has_version_in_url(calls), model=model, **reading)
        recognised = functools.cache(lambda: say(f"{source.name}: {result.kind}"))
        rows = Rows(source, lines, job, request_maker(calls, extra), result, recognised)
        if job.dry_run:
            count_tokens(rows, job, paths, result)
        else:
            refuse_before_start(paths, input_path)
            if not paths.journal:
                paths = _without_journal(paths, end)
                result.journal = None
            _run(calls, rows, job, paths, result, say, signals)
    return result


def _without_journal(paths: Paths, end: contextlib.ExitStack) -> Paths:
    """Where a run writes to that nobody can go on with."""
    logger.warning(
        "the answers go to standard output and nothing keeps them: what this run does not finish cannot go on; name a "
        "file for that (journal=, --journal FILE)"
    )
    folder = end.enter_context(tempfile.TemporaryDirectory(prefix="chatpool-"))
    return paths._replace(journal=os.path.join(folder, "run.journal"))


@contextlib.contextmanager
def _pool(pool: Optional[ChatPool], options: Mapping[str, Any]) -> Iterator[Tuple[ChatPool, Dict[str, Any]]]:
    """The pool, and the body fields among the options."""
    extra = {name: value for name, value in options.items() if name not in _OF_THE_POOL}
    of_the_pool = {name: value for name, value in options.items() if name in _OF_THE_POOL}
    if pool is None:
        with ChatPool(**of_the_pool) as own:
            yield own, extra
        return
    if of_the_pool:
        names = ", ".join(f"{name}=" for name in of_the_pool)
        raise TypeError(f"with pool= the options of a pool have no effect: leave out {names}")
    yield pool, extra


def _run(
    pool: ChatPool, rows: Rows, job: Job, paths: Paths, result: BatchResult, say: Say, signals: Sequence[int]
) -> None:
    if not job.is_table and paths.answers != STDOUT:
        # Before the lock: who reads the output of a run that is refused finds it empty.
        with contextlib.suppress(OSError):  # said of the journal, or when it is written to
            AppendOnly(paths.answers).close()
    with Journal(paths.journal, needs_lock=job.lock and result.journal is not None) as journal:
        total = _checked(pool, rows, job, journal, paths, result)
        outputs = _outputs(paths, journal, rows, job)
        if total is not None:
            say(f"{total:,} rows" if journal.is_empty else f"{total:,} rows; going on with {paths.journal}")
        if total and not journal.is_empty and not rows.known_count:
            logger.warning(
                "no row of %s is in %s: all are sent, and paid again if they were answered under other names; was it "
                "another input, or another field that names the rows (id_field, --id-field)?",
                rows.source.name,
                journal.path,
            )
        kind: Type[Runner] = ThreadRunner if job.processes == 1 else ProcessPoolRunner
        runner = kind(pool, rows, job, journal, outputs, result)
        progress = RowProgress(job.progress, total, bill=runner.bill, say=say)
        try:
            with contextlib.ExitStack() as end:
                end.callback(_settle, result, total, job)
                end.callback(progress.close)
                end.enter_context(outputs)
                stopper = end.enter_context(stopping_on(signals, runner.stop))
                runner.run(stopper, progress)
                if total is None and rows.is_read and result.fatal is None and stopper.number is None:
                    rows.set_aside_removed(journal)
                outputs.finish(whole=stopper.number is None)
        except KeyboardInterrupt:
            if stopper.number is None:
                raise
    if stopper.number is None and rows.trouble is not None:
        raise rows.trouble
    result.signal = stopper.number
    _let_through(stopper, result)


def _outputs(paths: Paths, journal: Journal, rows: Rows, job: Job) -> Outputs:
    if job.is_table:
        return TableOutputs(paths, journal, rows, job)
    if paths.answers == STDOUT:
        return PrintedOutputs(journal, in_order=job.in_order)
    return BatchOutputs(paths, journal, in_order=job.in_order or paths.matrix is not None)


def _let_through(stopper: SignalGuard, result: BatchResult) -> None:
    """Let a signal that ended the run have its usual effect; KeyboardInterrupt tells what was done."""
    try:
        stopper.let_it_through()
    except KeyboardInterrupt as interrupt:
        interrupt.result = result  # type: ignore[attr-defined]  # documented on run
        raise


def _checked(
    pool: ChatPool, rows: Rows, job: Job, journal: Journal, paths: Paths, result: BatchResult
) -> Optional[int]:
    """Look at the input before anything is sent; returns how many rows are selected, None of standard input."""
    if rows.source.is_stream:
        if job.sample is not None:
            raise ConfigurationError("a sample cannot be drawn from standard input: write it to a file first")
        return None
    total = rows.check(journal)
    check_fields(job, rows.columns)
    first = next(rows.works(), None)
    if first is not None:
        refuse_without_model(pool, rows, first)
        if paths.matrix is not None and first.request is not None and not is_embedding(first.request.path):
            raise ConfigurationError(
                f"{paths.matrix} is to be a matrix of embeddings, and the rows go to {first.request.path}: choose "
                "another output, or another url (--url /v1/embeddings)"
            )
    return total


def _settle(result: BatchResult, total: Optional[int], job: Job) -> None:
    """What was not reached is pending."""
    if total is not None and job.retry_failed is False:
        result.rows = total
    result.pending = result.rows - result.succeeded - result.failed
