"""``chatpool.batch.run``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import signal
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Type, Union

from ..client import ChatPool
from ..client.batch_runs import has_version_in_url, model_of, request_maker, with_answer_rules
from ..client.parsing import Parse
from ..client.review import Accept, AnswerRules
from ..clock import current_clock
from ..errors import ConfigurationError
from ..journal import Journal
from ..observe.progress import Progress
from ..observe.row_progress import RowProgress
from ..prices import PricesLike
from .crew_runner import CrewRunner
from .dry import count_tokens
from .job import Job, RetryFailed
from .outputs import Outputs, Paths, refuse_before_start
from .reading import Reading
from .result import BatchResult
from .runner import Runner, ThreadRunner, refuse_without_model
from .sources import Source
from .stopping import Stopper, stopping_on
from .work import Rows

__all__ = ["run"]

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
    **options: Any,
) -> BatchResult:
    """Answer every row of a file and keep every outcome.  The same call again goes on where this one ended.

    Args:
        input: OpenAI batch lines, request bodies (the cookbook script's lines), objects with ``messages``,
            ``prompt`` or ``input``, a text file of one prompt a line, or CSV; compressed by gzip or not; ``"-"`` is
            standard input. What it is, is recognised from its name and its first line. Excel workbooks (their first
            sheet) and Parquet files need the extra ``tables``.
        output: the file of answers, say ``OUT.jsonl``; failures go to ``OUT.errors.jsonl``, and ``OUT.journal`` keeps
            everything. An output that ends in ``.npy`` is a matrix of embeddings, one row per row (needs numpy).
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
        options: arguments of :class:`~chatpool.ChatPool` (not with ``pool``), and body fields for every row.

    Returns:
        A :class:`BatchResult`. A fatal error (a refused key, no credit) is on its ``fatal``: the rows that were not
        sent by then stay pending.

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
    paths = Paths.of(output_path)
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
        lines = Reading(source, keep_version=not has_version_in_url(calls), model=model, **reading)
        recognised = functools.cache(lambda: say(f"{source.name}: {result.kind}"))
        rows = Rows(source, lines, job, request_maker(calls, extra), result, recognised)
        if job.dry_run:
            count_tokens(rows, job, paths, result)
        else:
            refuse_before_start(paths, input_path)
            _run(calls, rows, job, paths, result, say, signals)
    return result


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
    with Journal(paths.journal) as journal:
        total = _checked(pool, rows, job, journal, result)
        outputs = Outputs(paths, journal, in_order=job.in_order or paths.matrix is not None)
        if total is not None:
            say(f"{total:,} rows" if journal.is_empty else f"{total:,} rows; going on with {paths.journal}")
        kind: Type[Runner] = ThreadRunner if job.processes == 1 else CrewRunner
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


def _let_through(stopper: Stopper, result: BatchResult) -> None:
    """Let a signal that ended the run have its usual effect; KeyboardInterrupt tells what was done."""
    try:
        stopper.let_it_through()
    except KeyboardInterrupt as interrupt:
        interrupt.result = result  # type: ignore[attr-defined]  # documented on run
        raise


def _checked(pool: ChatPool, rows: Rows, job: Job, journal: Journal, result: BatchResult) -> Optional[int]:
    """Look at the input before anything is sent; returns how many rows are selected, None of standard input."""
    if rows.source.is_stream:
        if job.sample is not None:
            raise ConfigurationError("a sample cannot be drawn from standard input: write it to a file first")
        return None
    total = rows.check(journal)
    first = next(rows.works(), None)
    if first is not None:
        refuse_without_model(pool, rows, first)
    return total


def _settle(result: BatchResult, total: Optional[int], job: Job) -> None:
    """What was not reached is pending."""
    if total is not None and job.retry_failed is False:
        result.rows = total
    result.pending = result.rows - result.succeeded - result.failed
