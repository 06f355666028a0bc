"""``chatpool run``: its options, and how its result is shown."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
from argparse import Namespace
from typing import Any, Dict, Iterator, Mapping, Optional

from .. import ChatPool
from .._client.failures import FailureLimit, MaxFailures
from .._structured.validation import AnswerRules
from ..batch import BatchResult
from ..batch.api import run_job
from ..batch.job import Job
from ..batch.jsonl import json_text
from ..batch.output_formats import FORMATS, STDOUT, format_of
from ..errors import ConfigurationError
from ..prices import dollars
from .ask import open_pool
from .command_parser import CommandParser
from .shared_options import QUIET, add_call_options, add_version, number
from .terminal import FATAL, OK, SOME_FAILED, complain

__all__ = [
    "INPUT_OPTIONS",
    "add_answer_rules",
    "add_encoding_format",
    "add_failures",
    "add_input_options",
    "add_max_failures",
    "add_requests",
    "add_retry_failed",
    "add_row_choice",
    "add_run",
    "add_samples",
    "add_table_options",
    "answer_rules",
    "job_of",
    "run_rows",
    "say_nothing",
    "show_end",
    "show_result",
    "told_if_interrupted",
]

INPUT_OPTIONS = ("url", "template", "column", "id_field", "attach", "attach_folder", "delimiter", "encoding")


def add_run(commands: argparse._SubParsersAction[CommandParser], exits_text: str) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "run",
        usage="%(prog)s IN -o OUT [options]",
        help="answer every row of a file",
        description=(
            "Answer every row of a file. The same command again goes on where this one ended, however it ended. "
            "Answers go to OUT.jsonl in the shape of the Batch API's output, failures to OUT.errors.jsonl; OUT.journal "
            "keeps everything. By its ending OUT is a table instead, with the input's columns. The key is read from "
            "OPENAI_API_KEY."
        ),
        epilog=exits_text,
    )
    add_version(command)
    _add_files(command)
    add_input_options(command)
    _add_selection(command)
    add_answer_rules(command)
    _add_output(command)
    add_requests(command)
    add_call_options(command, "say what was done as one JSON object on stdout")
    command.set_defaults(run=_run)


def _add_files(command: CommandParser) -> None:
    group = command.add_argument_group("files")
    group.add_argument(
        "input",
        metavar="IN",
        help="OpenAI batch lines, objects with messages, prompt or input, a text of one prompt a line, or CSV; "
        "compressed by gzip or not; Excel and Parquet with the extra tables; a folder of sounds; - is standard input",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file of answers: .jsonl (lines of the Batch API), .csv, .tsv, .parquet, .db, .txt, or .npy for "
        "embeddings; - is standard output",
    )


def add_input_options(command: CommandParser) -> None:
    """Add the options that say how an input is read."""
    group = command.add_argument_group("what the rows are")
    group.add_argument("--template", metavar="TEXT", help='prompts from fields: "Translate: {text}"')
    group.add_argument(
        "--column",
        metavar="NAME",
        help="the field or column that is the prompt, or the path of a sound (default: file)",
    )
    group.add_argument("--id-field", metavar="NAME", help="the field that names a row (default: custom_id)")
    group.add_argument(
        "--attach",
        metavar="COLUMN",
        action="append",
        help="the column that names a file or a URL to send with the prompt: an image, sound, PDF or text; may be "
        "repeated",
    )
    group.add_argument(
        "--attach-folder",
        metavar="FOLDER",
        help="the folder that relative paths are below, those of sounds too (default: that of the input)",
    )
    group.add_argument(
        "--delimiter", metavar="CHAR", help="what separates the columns of CSV, or tab (default: found in the file)"
    )
    group.add_argument("--encoding", metavar="NAME", help="the encoding of the text, say cp1252 (default: utf-8)")
    group.add_argument(
        "--endpoint",
        "--url",
        dest="url",
        metavar="NAME",
        help="where rows go that do not say it: embeddings, responses, /v1/completions ...; transcriptions or "
        "translations, whose rows are paths of sounds; speech",
    )
    group.add_argument("--skip-bad-lines", action="store_true", help="leave out lines that cannot be used")


def add_row_choice(group: argparse._ArgumentGroup) -> None:
    """Add the options that choose some of the rows."""
    group.add_argument("--limit", metavar="N", type=number("rows", whole=True), help="the first N rows")
    group.add_argument(
        "--sample",
        metavar="N",
        type=number("rows", whole=True),
        help="N rows drawn at random, the same ones every time",
    )


def _add_selection(command: CommandParser) -> None:
    group = command.add_argument_group("which rows run")
    add_row_choice(group)
    add_failures(group)
    group.add_argument("--allow-empty", action="store_true", help="an input without rows is no error")
    group.add_argument("--dry-run", action="store_true", help="send nothing; say what would be sent")


def add_failures(group: argparse._ArgumentGroup) -> None:
    """Add the options about rows that have failed."""
    add_retry_failed(group)
    add_max_failures(group)


def add_retry_failed(group: argparse._ArgumentGroup) -> None:
    """Add the option that selects rows that have failed before."""
    group.add_argument(
        "--retry-failed",
        metavar="KINDS",
        nargs="?",
        const=True,
        default=False,
        help="only rows that failed before, all or of these kinds (429,timeout,BadRequestError)",
    )


def add_max_failures(group: argparse._ArgumentGroup) -> None:
    """Add the option that ends a run in which too much fails."""
    group.add_argument(
        "--max-failures",
        metavar="N",
        type=_max_failures,
        default="same",
        help="end the run when N rows of it have failed, or a share of those that have ended (0.2, 20%%), from the "
        "20th on; none: never (default: when the first 50 are all refused in the same words)",
    )


def _max_failures(text: str) -> MaxFailures:
    """Return the value of ``--max-failures``."""
    word = text.strip().lower()
    if word in ("none", "same"):  # the default, which argparse passes too
        return None if word == "none" else word
    try:
        if word.endswith("%"):
            limit: MaxFailures = float(word[:-1]) / 100
        else:
            limit = float(word) if "." in word else int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number of rows, a share (0.2, 20%) or none, got {text!r}"
        ) from None
    try:
        FailureLimit(limit)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return limit


def add_answer_rules(command: CommandParser) -> None:
    """Add the options that say which answers are taken."""
    group = command.add_argument_group("what answers have to be")
    group.add_argument(
        "--schema", metavar="FILE", help="JSON that this JSON schema allows; the schema is not sent (needs jsonschema)"
    )
    group.add_argument(
        "--max-reasks",
        metavar="N",
        type=number("answers", whole=True),
        help="how often another answer is asked for, with --schema (default: 2)",
    )
    group.add_argument(
        "--accept",
        metavar="REASONS",
        help="finish reasons of answers that are taken (default: stop,tool_calls with --schema, otherwise all)",
    )


def _add_output(command: CommandParser) -> None:
    group = command.add_argument_group("what is written")
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="the form of OUT, whatever its ending (default: what the ending says; batch for standard output)",
    )
    add_table_options(group)
    group.add_argument(
        "--in-order", action="store_true", help="put lines into the order of the input at the end; a table always is"
    )
    group.add_argument(
        "--journal", metavar="FILE", help="what keeps everything, to go on from (default: beside OUT; none for -)"
    )
    group.add_argument(
        "--no-lock", action="store_true", help="run where nothing keeps a second run from the same files"
    )


def add_table_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that say what is in a table."""
    group.add_argument(
        "--fields",
        metavar="NAMES",
        help="the columns of a table, say id,answer (default: the input's, answer or its fields, error, tokens); also "
        "row, model, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, finish_reason, status, "
        "attempts, elapsed, fallback, request_id",
    )
    group.add_argument(
        "--raw",
        action="store_true",
        help="leave texts as they are that a spreadsheet would take for formulas, and line breaks in .txt",
    )


def add_requests(command: CommandParser) -> None:
    """Add the options that say how requests are made of the rows."""
    group = command.add_argument_group("how requests are made")
    group.add_argument(
        "--processes",
        metavar="N",
        type=number("processes", whole=True),
        default=1,
        help="share the work among N processes (default: 1)",
    )
    group.add_argument(
        "--max-pack",
        metavar="N",
        type=number("texts", whole=True),
        help="at most N texts to embed in one request (default: 2,048)",
    )
    add_samples(group)
    group.add_argument(
        "--save-to", metavar="FOLDER", help="the folder for the sounds of --endpoint speech, each named by its row"
    )
    add_encoding_format(group)


def add_samples(group: argparse._ArgumentGroup) -> None:
    """Add the option that asks for several answers to each row."""
    group.add_argument(
        "--samples",
        metavar="N",
        type=number("answers", whole=True),
        default=1,
        help="N answers to each row, as its choices; in a table, as a list (default: 1)",
    )


def add_encoding_format(group: argparse._ArgumentGroup) -> None:
    """Add the option that says how vectors are sent."""
    group.add_argument(
        "--encoding-format",
        metavar="FORM",
        choices=("float", "base64"),
        help="how the server sends vectors, float or base64; base64 is a quarter of the size",
    )


def _run(arguments: Namespace) -> int:
    """Run the rows of a file, and return the exit code."""
    if arguments.json and arguments.output == STDOUT:
        raise ConfigurationError("--json and the answers would share standard output: leave it out, or name a file")
    job = job_of(arguments)
    input_options: Dict[str, Any] = {name: getattr(arguments, name) for name in INPUT_OPTIONS}
    with told_if_interrupted(arguments), open_pool(arguments, needs_model=False) as pool:
        result = run_rows(pool, arguments, job, arguments.input, arguments.output, input_options)
    return _show_dry_run(result, arguments) if arguments.dry_run else show_end(result, arguments)


@contextlib.contextmanager
def told_if_interrupted(arguments: Namespace) -> Iterator[None]:
    """Within the block, a signal that ends a run is told with its counts, and the command that goes on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        result: Optional[BatchResult] = getattr(interrupt, "result", None)
        if result is not None:
            complain(result.summary())
        _say_next_command(arguments)
        raise


def run_rows(
    pool: ChatPool,
    arguments: Namespace,
    job: Job,
    input_path: str,
    output_path: str,
    input_options: Mapping[str, Any],
) -> BatchResult:
    """Run the rows of a file; Ctrl-C and SIGTERM end that in good order."""
    return run_job(
        input_path,
        output_path,
        job,
        input_options,
        pool,
        {} if arguments.encoding_format is None else {"encoding_format": arguments.encoding_format},
        say=say_nothing if arguments.verbosity == QUIET else complain,
        signals=(signal.SIGINT, signal.SIGTERM),
    )


def job_of(arguments: Namespace) -> Job:
    """Return the options of a run."""
    return Job(
        retry_failed=arguments.retry_failed,
        limit=arguments.limit,
        sample=arguments.sample,
        dry_run=arguments.dry_run,
        in_order=arguments.in_order,
        skip_bad_lines=arguments.skip_bad_lines,
        prices=arguments.prices,
        processes=arguments.processes,
        answers=answer_rules(arguments),
        max_pack=arguments.max_pack,
        samples=arguments.samples,
        format=format_of(arguments.output, arguments.format),
        fields=arguments.fields,
        raw=arguments.raw,
        journal=arguments.journal,
        save_to=arguments.save_to,
        lock=not arguments.no_lock,
        max_failures=arguments.max_failures,
        progress=False if arguments.verbosity == QUIET else None,
        run_timeout=arguments.run_timeout,
        allows_empty=arguments.allow_empty,
    )


def say_nothing(text: str) -> None:
    """Take a message of no importance, with ``--quiet``."""


def answer_rules(arguments: Namespace) -> AnswerRules:
    """Return the rules of ``--schema``, ``--max-reasks`` and ``--accept``.

    Raises:
        ConfigurationError: one of them cannot work.
    """
    accept = None
    if arguments.accept is not None:
        accept = [reason for reason in map(str.strip, arguments.accept.split(",")) if reason]
        if not accept:
            raise ConfigurationError(
                "--accept names no finish reason, so that no answer would be taken: name some (stop)"
            )
    if arguments.schema is None:
        if arguments.max_reasks is not None:
            raise ConfigurationError("--max-reasks has no effect without --schema")
        return AnswerRules(accept=accept)
    if (arguments.max_reasks or 0) < 0:
        raise ConfigurationError(f"--max-reasks must be 0 or more, got {arguments.max_reasks}")
    try:
        with open(arguments.schema, encoding="utf-8") as file:
            schema = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--schema {arguments.schema} cannot be read: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigurationError(f"--schema {arguments.schema} is no JSON schema: it must be an object")
    return AnswerRules(schema, arguments.max_reasks, accept)


def _show_dry_run(result: BatchResult, arguments: Namespace) -> int:
    done = f", {result.done_before:,} are done" if result.done_before else ""
    parts = [f"{result.pending:,} rows would be sent{done}, about {result.estimated_tokens:,} tokens of prompts"]
    if result.cost is not None:
        parts.append(f"{dollars(result.cost)} to have them read")
    if result.unpriced:
        parts.append(result.unpriced)
    if result.blank_rows:
        parts.append(f"{result.blank_rows:,} blank {'row is' if result.blank_rows == 1 else 'rows are'} left out")
    show_result(result, arguments, ", ".join(parts))
    _say_bad_lines(result)
    return OK


def show_end(result: BatchResult, arguments: Namespace, **facts: Any) -> int:
    """Say how a run has ended, and return the exit code.

    Args:
        result: the run.
        arguments: the options of the command.
        facts: what ``--json`` shows before the counts.
    """
    _say_bad_lines(result)
    show_result(result, arguments, result.summary(), **facts)
    if result.fatal is not None:
        complain(f"{type(result.fatal).__name__}: {result.fatal}")
    if result.fatal is not None or result.pending:
        _say_next_command(arguments)
        return FATAL
    return SOME_FAILED if result.failed else OK


def show_result(result: BatchResult, arguments: Namespace, text: str, **facts: Any) -> None:
    """Show the counts of a run: as JSON on stdout if that was asked for, else as text."""
    if arguments.json:
        print(json_text({**facts, **_json_fields(result)}), flush=True)
    elif arguments.verbosity != QUIET or result.failed or result.pending:
        complain(text)


def _json_fields(result: BatchResult) -> Dict[str, Any]:
    fields = {**vars(result), "usage": vars(result.usage)}
    fields["fatal"] = None if result.fatal is None else f"{type(result.fatal).__name__}: {result.fatal}"
    return fields


def _say_bad_lines(result: BatchResult) -> None:
    for line, reason in result.bad_lines:
        complain(f"line {line} was left out: {reason}")
    more = result.bad_line_count - len(result.bad_lines)
    if more > 0:
        complain(f"{more:,} more lines were left out")


def _say_next_command(arguments: Namespace) -> None:
    if arguments.output == STDOUT and arguments.journal is None:
        return
    complain(f"to go on: {' '.join(map(_quoted, ['chatpool', *arguments.command_line]))}")


def _quoted(word: str) -> str:
    """Return a word as a shell reads it; what a terminal does not show as it is becomes an escape of ``$'...'``."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_escaped(character) for character in word) + "'"


def _escaped(character: str) -> str:
    if character.isprintable() and character not in "\\'":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
