"""``chatpool run``."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
from argparse import Namespace
from typing import Any, Dict, Optional, Tuple

from ..batch import BatchResult
from ..batch.api import run_job
from ..batch.job import Job
from ..batch.lines import json_text
from ..client.review import AnswerRules
from ..errors import ConfigurationError
from . import exits
from .ask import open_pool
from .terminal import complain

__all__ = ["add_run", "prices", "run"]

_READING = ("url", "template", "column", "id_field")


def add_run(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser, exits_text: str
) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "run",
        parents=[common],
        help="answer every row of a file",
        description=(
            "Answer every row of a file. The same command again goes on where this one ended, however it ended. "
            "Answers go to OUT in the shape of the Batch API's output, failures to OUT.errors.jsonl; OUT.journal keeps "
            "everything. The key is read from OPENAI_API_KEY."
        ),
        epilog=exits_text,
    )
    command.add_argument(
        "input",
        metavar="IN",
        help="OpenAI batch lines, objects with messages, prompt or input, a text of one prompt a line, or CSV; "
        "compressed by gzip or not; - is standard input",
    )
    command.add_argument("-o", "--output", metavar="OUT", required=True, help="the file of answers, say out.jsonl")
    _add_reading(command)
    _add_choice(command)
    _add_answers(command)
    command.add_argument(
        "--in-order", action="store_true", help="put the output into the order of the input at the end"
    )
    command.add_argument(
        "--prices", metavar="IN,OUT", type=prices, help="dollars per million tokens read and written, for the cost"
    )
    command.add_argument(
        "--processes", metavar="N", type=int, default=1, help="share the work among N processes (default: 1)"
    )
    command.add_argument(
        "--max-pack", metavar="N", type=int, help="at most N texts to embed in one request (default: 2,048)"
    )
    command.set_defaults(run=run)


def _add_reading(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what the rows are")
    group.add_argument("--template", metavar="TEXT", help='prompts from fields: "Translate: {text}"')
    group.add_argument("--column", metavar="NAME", help="the field or column that is the prompt")
    group.add_argument("--id-field", metavar="NAME", help="the field that names a row (default: custom_id)")
    group.add_argument("--url", metavar="URL", help="where rows go that do not say it, say /v1/embeddings")
    group.add_argument("--skip-bad-lines", action="store_true", help="leave out lines that cannot be used")


def _add_choice(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("which rows run")
    group.add_argument("--limit", metavar="N", type=int, help="the first N rows")
    group.add_argument("--sample", metavar="N", type=int, help="N rows drawn at random, the same ones every time")
    group.add_argument(
        "--retry-failed",
        metavar="KINDS",
        nargs="?",
        const=True,
        default=False,
        help="only rows that failed before, all or of these kinds (429,timeout,BadRequestError)",
    )
    group.add_argument("--dry-run", action="store_true", help="send nothing; say what would be sent")


def _add_answers(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what answers have to be")
    group.add_argument(
        "--schema", metavar="FILE", help="JSON that this JSON schema allows; the schema is not sent (needs jsonschema)"
    )
    group.add_argument(
        "--max-reasks", metavar="N", type=int, help="how often another answer is asked for, with --schema (default: 2)"
    )
    group.add_argument(
        "--accept",
        metavar="REASONS",
        help="finish reasons of answers that are taken (default: stop,tool_calls with --schema, otherwise all)",
    )


def _answers(arguments: Namespace) -> AnswerRules:
    """What ``--schema``, ``--max-reasks`` and ``--accept`` say.

    Raises:
        ConfigurationError: one of them cannot work.
    """
    accept = None if arguments.accept is None else [reason.strip() for reason in arguments.accept.split(",")]
    if arguments.schema is None:
        if arguments.max_reasks is not None:
            raise ConfigurationError("--max-reasks has no effect without --schema")
        return AnswerRules(accept=accept)
    if (arguments.max_reasks or 0) < 0:
        raise ConfigurationError("--max-reasks must be 0 or more")
    try:
        with open(arguments.schema, encoding="utf-8") as file:
            schema = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--schema {arguments.schema} cannot be read: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigurationError(f"--schema {arguments.schema} is no JSON schema: it must be an object")
    return AnswerRules(schema, arguments.max_reasks, accept)


def prices(text: str) -> Tuple[float, float]:
    """Two prices of the command line.

    Raises:
        argparse.ArgumentTypeError: they are no two numbers.
    """
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("it takes two numbers, for instance 0.15,0.60") from None
    return read, written


def run(arguments: Namespace) -> int:
    """Run the rows of a file; returns the exit code."""
    job = Job(
        retry_failed=arguments.retry_failed,
        limit=arguments.limit,
        sample=arguments.sample,
        dry_run=arguments.dry_run,
        in_order=arguments.in_order,
        skip_bad_lines=arguments.skip_bad_lines,
        prices=arguments.prices,
        processes=arguments.processes,
        answers=_answers(arguments),
        max_pack=arguments.max_pack,
    )
    reading: Dict[str, Optional[str]] = {name: getattr(arguments, name) for name in _READING}
    try:
        with open_pool(arguments, needs_model=False) as pool:
            result = run_job(
                arguments.input,
                arguments.output,
                job,
                reading,
                pool,
                {},
                say=complain,
                signals=(signal.SIGINT, signal.SIGTERM),
            )
    except KeyboardInterrupt as interrupt:
        done: Optional[BatchResult] = getattr(interrupt, "result", None)
        if done is not None:
            complain(done.summary())
        _say_how_to_go_on(arguments)
        raise
    return _dry(result, arguments) if arguments.dry_run else _ended(result, arguments)


def _dry(result: BatchResult, arguments: Namespace) -> int:
    done = f", {result.done_before:,} are done" if result.done_before else ""
    parts = [f"{result.pending:,} rows would be sent{done}, about {result.estimated_tokens:,} tokens of prompts"]
    if result.prices is not None:
        parts.append(f"${result.estimated_tokens * result.prices[0] / 1e6:,.2f} to have them read")
    _show(result, arguments, ", ".join(parts))
    _say_bad_lines(result)
    return exits.OK


def _ended(result: BatchResult, arguments: Namespace) -> int:
    _say_bad_lines(result)
    _show(result, arguments, result.summary())
    if result.fatal is not None:
        complain(f"{type(result.fatal).__name__}: {result.fatal}")
    if result.fatal is not None or result.pending:
        _say_how_to_go_on(arguments)
        return exits.FATAL
    return exits.SOME_FAILED if result.failed else exits.OK


def _show(result: BatchResult, arguments: Namespace, words: str) -> None:
    if arguments.json:
        print(json_text(_facts(result)), flush=True)
    else:
        complain(words)


def _facts(result: BatchResult) -> Dict[str, Any]:
    facts = {**vars(result), "usage": vars(result.usage)}
    facts["fatal"] = None if result.fatal is None else f"{type(result.fatal).__name__}: {result.fatal}"
    return facts


def _say_bad_lines(result: BatchResult) -> None:
    for number, reason in result.bad_lines:
        complain(f"line {number} was left out: {reason}")
    more = result.bad_line_count - len(result.bad_lines)
    if more > 0:
        complain(f"{more:,} more lines were left out")


def _say_how_to_go_on(arguments: Namespace) -> None:
    complain(f"to go on: {shlex.join(['chatpool', *arguments.given])}")
