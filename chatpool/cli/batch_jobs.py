"""``chatpool batch``: the rows of a file by the Batch API, from submitting to collecting."""

from __future__ import annotations

import argparse
import signal
from argparse import Namespace
from typing import Any, Dict

from ..batch import status as batch_status
from ..batch.job import Job
from ..batch.jsonl import json_text
from ..batch.output_formats import FORMATS, format_of
from ..batch.submission_collect import collect_job
from ..batch.submission_jobs import Terms, cancel_job, submit_job, wait_job
from ..batch.submission_journal import folder_of, planned_options, read_submission
from ..batch.submission_plan import MAX_ROWS
from ..batch.submission_status import BatchStatus, SubmissionStatus
from .ask import open_pool
from .command_parser import CommandParser
from .run import (
    INPUT_OPTIONS,
    add_answer_rules,
    add_encoding_format,
    add_input_options,
    add_max_failures,
    add_retry_failed,
    add_row_choice,
    add_samples,
    add_table_options,
    answer_rules,
    say_nothing,
    show_end,
    told_if_interrupted,
)
from .shared_options import (
    QUIET,
    add_address_options,
    add_messages,
    add_submission_options,
    number,
    seconds,
)
from .terminal import BUSY, OK, complain

__all__ = ["add_batch"]

_EXITS = """exit codes: 0 done, 2 wrong usage or configuration, 3 the server has refused something or cannot be reached,
75 another process uses the output"""

# -- options --------------------------------------------------------------------------------------------------


def add_batch(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the commands to the parser."""
    command = commands.add_parser(
        "batch",
        help="answer a file by the Batch API, at half the price",
        description=(
            "Answer the rows of a file by the Batch API: within a day, at half the price. Submit the file, wait, and "
            "collect the answers. Every command may be interrupted and given again: it goes on from there."
        ),
    )
    actions: argparse._SubParsersAction[CommandParser] = command.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    _add_submit(actions)
    _add_status(actions)
    _add_wait(actions)
    _add_collect(actions)
    _add_cancel(actions)


def _add_submit(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = actions.add_parser(
        "submit",
        usage="%(prog)s IN -o OUT [options]",
        help="submit the rows of a file",
        description=(
            "Submit the rows of a file that have no answer in OUT yet. Every row is checked before anything is "
            "uploaded. OUT.batches beside the output keeps what was submitted. The key is read from OPENAI_API_KEY."
        ),
        epilog=_EXITS,
    )
    files = command.add_argument_group("files")
    files.add_argument("input", metavar="IN", help="a file as for chatpool run")
    files.add_argument("-o", "--output", metavar="OUT", required=True, help="where the answers are to go, as for run")
    files.add_argument("--format", choices=FORMATS, help="the form of OUT (default: what its ending says)")
    files.add_argument("--journal", metavar="FILE", help="the journal of a run to OUT (default: beside OUT)")
    add_input_options(command)
    rows = command.add_argument_group("which rows are submitted")
    add_row_choice(rows)
    add_retry_failed(rows)
    rows.add_argument("--allow-empty", action="store_true", help="an input without rows is no error")
    _add_batch_sizes(command)
    add_samples(command.add_argument_group("how requests are made"))
    add_submission_options(command)
    _add_json(command)
    command.set_defaults(run=_submit)


def _add_batch_sizes(command: CommandParser) -> None:
    batches = command.add_argument_group("batches")
    batches.add_argument(
        "--rows-per-batch",
        metavar="N",
        type=number("rows", whole=True),
        default=MAX_ROWS,
        help=f"rows of one batch at most (default: {MAX_ROWS:,})",
    )
    batches.add_argument(
        "--tokens-per-batch",
        metavar="N",
        type=number("tokens", whole=True),
        help="tokens of the prompts of one batch at most, for accounts whose limit of enqueued tokens is small",
    )
    add_encoding_format(batches)


def _add_status(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = _add_action(actions, "status", "say how far the batches are", "Say how far the batches of OUT are.")
    add_address_options(command)
    _add_json(command)
    command.set_defaults(run=_status)


def _add_wait(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = _add_action(
        actions,
        "wait",
        "wait until the batches are over",
        "Wait until the batches of OUT are over, and submit those for which the limit of enqueued tokens had no room. "
        "Ctrl-C leaves everything as it is.",
        f"{_EXITS}, or not all batches are over after --run-timeout",
    )
    add_address_options(command)
    command.add_argument(
        "--run-timeout", metavar="SECONDS", type=seconds, help="wait no longer (default: until all are over)"
    )
    _add_json(command)
    command.set_defaults(run=_wait)


def _add_collect(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = _add_action(
        actions,
        "collect",
        "write the answers to the output",
        "Write the answers of the batches that are over to OUT, in the order of the input, as chatpool run would have "
        "written them; failures go to OUT.errors.jsonl. chatpool run with the same input and output sends what has no "
        "answer.",
        "exit codes: 0 every row has an answer, 1 some have failed, 2 wrong usage or configuration, 3 rows are "
        "pending, 75 another process uses the output",
    )
    command.add_argument(
        "--finish-now",
        action="store_true",
        help="send what has no answer, or whose batch has expired, as chatpool run does, at the full price",
    )
    add_answer_rules(command)
    add_table_options(command.add_argument_group("what is written"))
    add_max_failures(command.add_argument_group("how rows are sent with --finish-now"))
    add_address_options(command, has_limits=True)
    _add_json(command)
    command.set_defaults(run=_collect)


def _add_cancel(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = _add_action(
        actions,
        "cancel",
        "cancel the batches that are not over",
        "Cancel the batches of OUT that are not over. What they have answered by then can be collected.",
    )
    add_address_options(command)
    _add_json(command)
    command.set_defaults(run=_cancel)


def _add_action(
    actions: argparse._SubParsersAction[CommandParser], name: str, summary: str, description: str, exits: str = _EXITS
) -> CommandParser:
    """Add a command that takes an output."""
    command = actions.add_parser(
        name, usage="%(prog)s OUT [options]", help=summary, description=description, epilog=exits
    )
    command.add_argument("output", metavar="OUT", help="the output that was named when the rows were submitted")
    return command


def _add_json(command: CommandParser) -> None:
    add_messages(command).add_argument("--json", action="store_true", help="the counts as one JSON object on stdout")


# -- commands -------------------------------------------------------------------------------------------------


def _submit(arguments: Namespace) -> int:
    """Submit the rows of a file."""
    job = Job(
        retry_failed=arguments.retry_failed,
        limit=arguments.limit,
        sample=arguments.sample,
        skip_bad_lines=arguments.skip_bad_lines,
        format=format_of(arguments.output, arguments.format),
        journal=arguments.journal,
        samples=arguments.samples,
        allows_empty=arguments.allow_empty,
    )
    terms = Terms.of(arguments.rows_per_batch, arguments.tokens_per_batch)
    form = arguments.encoding_format
    body_fields: Dict[str, Any] = {} if form is None else {"encoding_format": form}
    input_options = {name: getattr(arguments, name) for name in INPUT_OPTIONS}
    with told_if_interrupted(arguments), open_pool(arguments, needs_model=False) as pool:
        status = submit_job(
            arguments.input, arguments.output, job, input_options, terms, pool, body_fields, say=_say_of(arguments)
        )
    _show(status, arguments, f"; to wait: chatpool batch wait {status.output}" if status.batches else "")
    return OK


def _status(arguments: Namespace) -> int:
    """Print how far the batches are."""
    with open_pool(arguments, needs_model=False) as pool:
        status = batch_status(arguments.output, pool=pool)
    print(json_text(status.to_dict()) if arguments.json else "\n".join([status.summary(), *map(_line, status.batches)]))
    return OK


def _line(batch: BatchStatus) -> str:
    word = "collected" if batch.is_collected else batch.status
    counts = f"{batch.completed:,} of {batch.rows:,} rows answered, {batch.failed:,} failed"
    problem = f": {batch.problem}" if batch.problem else ""
    return f"  {batch.number} {batch.batch_id or 'no batch yet'} {word}, {counts}{problem}"


def _wait(arguments: Namespace) -> int:
    """Wait for the batches."""
    progress = False if arguments.verbosity == QUIET else None
    with told_if_interrupted(arguments), open_pool(arguments, needs_model=False) as pool:
        status = wait_job(arguments.output, pool, arguments.run_timeout, progress, say=_say_of(arguments))
    next_command = "collect" if status.is_over else "wait"
    _show(status, arguments, f"; to go on: chatpool batch {next_command} {arguments.output}")
    return OK if status.is_over else BUSY


def _collect(arguments: Namespace) -> int:
    """Collect the answers, and return the exit code."""
    job = Job(
        prices=arguments.prices,
        answers=answer_rules(arguments),
        fields=arguments.fields,
        raw=arguments.raw,
        max_failures=arguments.max_failures,
        run_timeout=arguments.run_timeout,
        progress=False if arguments.verbosity == QUIET else None,
        **planned_options(arguments.output),
    )
    arguments.journal = job.journal
    with told_if_interrupted(arguments), open_pool(arguments, needs_model=False) as pool:
        result = collect_job(
            arguments.output,
            job,
            pool,
            finish_now=arguments.finish_now,
            say=_say_of(arguments),
            signals=(signal.SIGINT, signal.SIGTERM),
        )
    if result.pending and read_submission(folder_of(arguments.output)).is_over:
        arguments.command_line = [*arguments.command_line, "--finish-now"]
    return show_end(result, arguments)


def _cancel(arguments: Namespace) -> int:
    """Cancel the batches."""
    with open_pool(arguments, needs_model=False) as pool:
        status = cancel_job(arguments.output, pool)
    _show(status, arguments, f"; to wait for their end: chatpool batch wait {arguments.output}")
    return OK


def _say_of(arguments: Namespace) -> Any:
    return say_nothing if arguments.verbosity == QUIET else complain


def _show(status: SubmissionStatus, arguments: Namespace, advice: str) -> None:
    if arguments.json:
        print(json_text(status.to_dict()), flush=True)
    elif arguments.verbosity != QUIET:
        complain(status.summary() + advice)
