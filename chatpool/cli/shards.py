"""``chatpool shards``: an input in parts that several machines answer, or the tasks of a scheduler's array."""

from __future__ import annotations

import argparse
import itertools
import os
from argparse import Namespace
from dataclasses import asdict, replace
from typing import Any, Dict, Sequence, Tuple

from .. import ChatPool
from ..batch import BatchResult, shards
from ..batch.jsonl import json_text
from ..batch.output_formats import BATCH
from ..batch.shard_plan import INPUT_OPTIONS
from ..batch.shards import Plan, ShardStatus, run_by, statuses
from ..clock import current_clock
from ..errors import ConfigurationError, JournalBusyError
from .ask import open_pool
from .command_parser import CommandParser
from .run import (
    add_answer_rules,
    add_failures,
    add_input_options,
    add_requests,
    job_of,
    run_rows,
    show_end,
    show_result,
    told_if_interrupted,
)
from .shared_options import QUIET, add_call_options, add_messages, number
from .terminal import BUSY, FATAL, OK, SOME_FAILED, complain

__all__ = ["add_shards"]

_DEFAULT_ROWS = 5000
_JOB_OPTIONS = ("skip_bad_lines", "lock")  # that a plan or its lock decides
_LEAST_SECONDS = 0.001  # a time limit has to be above 0

# The variables in which schedulers say the number of a task, and how the tasks of each are numbered right.
_INDEX_VARIABLES = {
    "SLURM_ARRAY_TASK_ID": "sbatch --array=0-{last}",
    "JOB_COMPLETION_INDEX": "completions: {count}",
    "AWS_BATCH_JOB_ARRAY_INDEX": "--array-properties size={count}",
}


# -- options ----------------------------------------------------------------------------------------------


def add_shards(commands: argparse._SubParsersAction[CommandParser], exits_text: str) -> None:
    """Add the commands to the parser."""
    command = commands.add_parser(
        "shards",
        help="answer a large file in parts, on several machines",
        description=(
            "Answer a large file in parts, each a run of its own: split it, run the parts wherever the folder can be "
            "reached, and merge their answers into one file."
        ),
    )
    actions: argparse._SubParsersAction[CommandParser] = command.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    _add_split(actions)
    _add_run(actions, exits_text)
    _add_status(actions)
    _add_merge(actions)


def _add_split(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = actions.add_parser(
        "split",
        usage="%(prog)s IN FOLDER [options]",
        help="cut a file into parts",
        description=(
            "Cut a file into shards, and check every row before one is sent. The number of shards goes to stdout. The "
            "same command again changes nothing; another input, or one that has changed since, is refused."
        ),
    )
    command.add_argument("input", metavar="IN", help="JSON lines, CSV or text, compressed by gzip or not; Parquet")
    _add_folder(command)
    command.add_argument(
        "--rows",
        metavar="N",
        type=number("rows", whole=True, least=1),
        default=_DEFAULT_ROWS,
        help=f"rows of a shard (default: {_DEFAULT_ROWS:,})",
    )
    add_input_options(command)
    add_messages(command)
    command.set_defaults(run=_split)


def _add_run(actions: argparse._SubParsersAction[CommandParser], exits_text: str) -> None:
    command = actions.add_parser(
        "run",
        usage="%(prog)s FOLDER [options]",
        help="answer the rows of a shard, or of all",
        description=(
            "Answer the rows of one shard. The same command again goes on where this one ended. Without --index and "
            f"--all its number is read from {', '.join(_INDEX_VARIABLES)}. The key is read from OPENAI_API_KEY."
        ),
        epilog=exits_text,
    )
    _add_folder(command)
    group = command.add_argument_group("which rows run")
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--index", metavar="N", type=number("shards", whole=True, least=0), help="the number of the shard, from 0"
    )
    choice.add_argument(
        "--all",
        action="store_true",
        help="every shard that is not done, one after the other, but for those that other processes run",
    )
    add_failures(group)
    add_answer_rules(command)
    add_requests(command)
    add_call_options(command, "say what was done as one JSON object per shard on stdout")
    # Options of chatpool run that the plan decides, or that are for one file; the output has the format of all shards.
    command.set_defaults(limit=None, sample=None, dry_run=False, in_order=False, fields=None, raw=False, journal=None)
    command.set_defaults(output="answers.jsonl", format=BATCH, allow_empty=False, skip_bad_lines=False, no_lock=False)
    command.set_defaults(run=_run)


def _add_status(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = actions.add_parser(
        "status",
        usage="%(prog)s FOLDER [--json]",
        help="say which shards are done",
        description=(
            "Say which shards are done, running or left, and count their rows. Nothing is sent. Numbers are written as "
            "in sbatch --array=0-3,7."
        ),
    )
    _add_folder(command)
    command.add_argument("--json", action="store_true", help="the counts of each shard as one JSON object")
    command.set_defaults(run=_status)


def _add_merge(actions: argparse._SubParsersAction[CommandParser]) -> None:
    command = actions.add_parser(
        "merge",
        usage="%(prog)s FOLDER OUT [options]",
        help="write the answers of all shards to one file",
        description=(
            "Write the answers of all shards to one file, in the order of the input; failures go to OUT.errors.jsonl. "
            "While shards are not done, it is refused and names them."
        ),
        epilog="exit codes: 0 every row has an answer, 1 some have failed or were left out, 2 shards are not done",
    )
    _add_folder(command)
    command.add_argument("output", metavar="OUT", help="the file of answers: .jsonl (lines of the Batch API)")
    command.add_argument("--allow-missing", action="store_true", help="leave out rows that have not ended")
    add_messages(command).add_argument(
        "--json", action="store_true", help="say what was merged as one JSON object on stdout"
    )
    command.set_defaults(run=_merge)


def _add_folder(command: CommandParser) -> None:
    command.add_argument("folder", metavar="FOLDER", help="the folder of the shards and their answers")


# -- split ------------------------------------------------------------------------------------------------


def _split(arguments: Namespace) -> int:
    """Print how many shards there are."""
    options: Dict[str, Any] = {name: getattr(arguments, name) for name in INPUT_OPTIONS}
    plan = shards.split(arguments.input, arguments.folder, rows=arguments.rows, **options)
    count = len(plan.shards)
    if arguments.verbosity != QUIET:
        complain(
            f"{plan.rows:,} rows in {count:,} shards, 0 to {count - 1}; to run them: chatpool shards run "
            f"{arguments.folder} --all, or --index N for one"
        )
    print(count)
    return OK


# -- run --------------------------------------------------------------------------------------------------


def _run(arguments: Namespace) -> int:
    """Run one shard, or all, and return the exit code."""
    plan = shards.load(arguments.folder)
    runs_all = arguments.all and arguments.index is None  # all may be of a file of options
    index = 0 if runs_all else _index_of(arguments, plan)
    with told_if_interrupted(arguments), open_pool(arguments, needs_model=False) as pool:
        runner = _Runner(arguments, plan, pool)
        return runner.run_all() if runs_all else show_end(runner.run(index), arguments, shard=index)


def _index_of(arguments: Namespace, plan: Plan) -> int:
    """Return the number of the shard to run; one that a scheduler has set is added to the command that goes on.

    Raises:
        ConfigurationError: there is none, or no such shard.
    """
    name, index = "--index", arguments.index
    if index is None:
        name, index = _index_in_environment()
        arguments.command_line = [*arguments.command_line, "--index", str(index)]
    count = len(plan.shards)
    if not 0 <= index < count:
        advice = _INDEX_VARIABLES.get(name, "").format(last=count - 1, count=count)
        raise ConfigurationError(
            f"{name} is {index}, and the shards of {arguments.folder} are numbered from 0 to {count - 1}"
            + (f": number the tasks so, {advice}" if advice else "")
        )
    return int(index)


def _index_in_environment() -> Tuple[str, int]:
    """Return the variable that has the number of this task, and the number.

    Raises:
        ConfigurationError: none has one, or several have different ones.
    """
    found = {name: os.environ[name] for name in _INDEX_VARIABLES if os.environ.get(name)}
    if not found:
        raise ConfigurationError(
            "no shard was named: pass --index N, or --all; a scheduler's array of tasks sets one of "
            f"{', '.join(_INDEX_VARIABLES)}"
        )
    for name, text in found.items():
        if not (text.isascii() and text.isdigit()):
            raise ConfigurationError(f"{name} must be the number of a shard, got {text!r}: pass --index N")
    numbers = {name: int(text) for name, text in found.items()}
    if len(set(numbers.values())) > 1:
        told = " and ".join(f"{name} is {number}" for name, number in numbers.items())
        raise ConfigurationError(f"{told}: pass --index N to say which of them is the shard")
    return next(iter(numbers.items()))


class _Runner:
    """Runs shards with one pool, which keeps its connections and what it learns of the server's limits.

    Args:
        arguments: the options of the command. ``--run-timeout`` is the limit of all shards together.
        plan: the plan.
        pool: makes the calls.
    """

    def __init__(self, arguments: Namespace, plan: Plan, pool: ChatPool) -> None:
        self._arguments = arguments
        self._plan = plan
        self._pool = pool
        self._job = job_of(arguments)
        self._clock = current_clock()
        self._started = self._clock.now()

    def run(self, index: int) -> BatchResult:
        """Run one shard."""
        return run_by(self._run_rows, self._plan, index)

    def _run_rows(self, path: str, output: str, **given: Any) -> BatchResult:
        options = {name: given.pop(name) for name in _JOB_OPTIONS if name in given}
        if self._job.run_timeout is not None:
            left = self._started + self._job.run_timeout - self._clock.now()
            options["run_timeout"] = max(left, _LEAST_SECONDS)
        return run_rows(self._pool, self._arguments, replace(self._job, **options), path, output, given)

    def run_all(self) -> int:
        """Run every shard that has rows to run and is free, until one ends early; return the exit code."""
        code, busy = OK, []
        for state in statuses(self._plan):
            ended = SOME_FAILED if state.failed else OK
            if state.failed if self._job.retry_failed else state.pending:
                self._say(f"shard {state.index} of {len(self._plan.shards):,}")
                try:
                    ended = show_end(self.run(state.index), self._arguments, shard=state.index)
                except JournalBusyError:
                    busy.append(state.index)
                    continue
            if ended == FATAL:
                return FATAL
            code = max(code, ended)
        if busy:
            complain(f"other processes run the shards {_ranges(busy)}: the same command again runs what they leave")
            return BUSY
        self._say(f"no shard is left to run; to merge them: chatpool shards merge {self._arguments.folder} OUT.jsonl")
        return code

    def _say(self, text: str) -> None:
        if self._arguments.verbosity != QUIET:
            complain(text)


# -- status and merge -------------------------------------------------------------------------------------


def _status(arguments: Namespace) -> int:
    """Print which shards are done, running and left."""
    states = shards.status(arguments.folder)
    print(
        json_text({**_counts(states), "shards": [asdict(state) for state in states]})
        if arguments.json
        else _text(states)
    )
    return OK


_COUNTED = ("rows", "done", "failed", "pending")


def _counts(states: Sequence[ShardStatus]) -> Dict[str, int]:
    return {name: sum(getattr(state, name) for state in states) for name in _COUNTED}


def _text(states: Sequence[ShardStatus]) -> str:
    running = [state.index for state in states if state.is_running]
    left = [state.index for state in states if state.pending and not state.is_running]
    failed = [state.index for state in states if state.failed]
    done = len(states) - len(running) - len(left)
    counts = {name: f"{count:,}" for name, count in _counts(states).items()}
    shown = "{done} of {rows} rows answered, {failed} failed, {pending} pending".format_map(counts)
    lines = [f"{done:,} of {len(states):,} shards are done; {shown}"]
    for name, numbers in (("running", running), ("left to run", left), ("with failed rows", failed)):
        if numbers:
            lines.append(f"  {name}: {_ranges(numbers)}")
    return "\n".join(lines)


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers in their order as ``"0-3,7"``, the form in which sbatch takes them."""
    texts = []
    # Numbers that follow each other are as far from their places.
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        texts.append(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(texts)


def _merge(arguments: Namespace) -> int:
    """Merge the shards, and return the exit code."""
    result = shards.merge(arguments.folder, arguments.output, allow_missing=arguments.allow_missing)
    show_result(result, arguments, replace(result, elapsed=0.0).summary())  # its rate would be that of the merging
    if result.missing:
        complain(f"the shards {_ranges(result.missing)} are not done: their pending rows are left out")
    return SOME_FAILED if result.failed or result.pending else OK
