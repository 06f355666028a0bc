"""Shards: a large input in parts, each a batch run of its own, for several hosts or the workers of a task queue.

A plan is a folder.  Its ``shards/`` has the parts of the input and ``manifest.json``, and is made in one step; its
``answers/`` has a folder for each shard, with the output and the journal.  Any process that can reach the plan may run
any shard, at any time and again: the journal knows what is done, and a lease keeps other processes away, on all hosts.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, TypeVar, Union

from .._files import atomic_replace
from .._journal import (
    FAILED,
    OK,
    RETRY,
    FolderLease,
    Record,
    count_states,
    decode_value,
    is_leased,
    newest_journal,
    read_journal,
)
from ..clock import current_clock
from ..errors import ConfigurationError
from ..prices import Bill, Prices, PricesLike, prices_of
from .api import run as run_batch
from .job import BatchResult
from .jsonl import answer_line, charges_of, error_line
from .output_files import Paths
from .output_formats import BATCH, STDOUT, format_of
from .shard_plan import ANSWERS, INPUT_OPTIONS, SHARDS, Folder, Plan, Shard, fingerprint, load, split

__all__ = ["Plan", "Shard", "ShardStatus", "bill", "load", "merge", "run", "split", "status"]

_PLANNED_OPTIONS = ("input", "output", "journal", "lock", "format", "fields", "raw", "rows_before")
_SHOWN_SHARDS = 5

T = TypeVar("T")


# -- run --------------------------------------------------------------------------------------------------


def run(plan: Union[Plan, Folder], index: int, **options: Any) -> Dict[str, Any]:
    """Run one shard.  The same call again goes on from where this one ended, and sends nothing that is done.

    Args:
        plan: the plan, or its folder.
        index: the number of the shard, from 0.
        options: those of :func:`chatpool.batch.run` which say how to send, not how to read the input or where to write:
            ``pool`` or the arguments of a pool, ``retry_failed``, ``progress``, body fields and others.

    Returns:
        What :meth:`chatpool.batch.BatchResult.to_dict` returns, and the ``shard``, as JSON has them.

    Raises:
        JournalBusyError: another process runs this shard. One on another host of which nothing was heard for a minute
            is watched for 20 s more, and then this one goes on in its place.
        JournalLostError: a JournalBusyError: that has happened to this process, which was stopped or cut off for so
            long. What it had written by then is kept.
        ConfigurationError: there is no such shard, its file has changed, or an option cannot be used.
        KeyboardInterrupt, OSError: as for :func:`chatpool.batch.run`.
    """
    plan = _plan_of(plan)
    check_run(options)
    result = run_by(functools.partial(run_batch, **options), plan, index)
    return {"shard": index, **result.to_dict()}


def check_run(options: Mapping[str, Any]) -> None:
    """Refuse options that :func:`run` does not take.

    Raises:
        TypeError: one is said by the plan.
    """
    for name in (*INPUT_OPTIONS, *_PLANNED_OPTIONS):
        if name in options:
            advice = "pass it to split, for all shards" if name in INPUT_OPTIONS else "the plan says it"
            raise TypeError(f"{name}= is no option of one shard: {advice}")


def run_by(run_rows: Callable[..., BatchResult], plan: Plan, index: int) -> BatchResult:
    """Run one shard by a function that takes its input, its output and, by name, how they are read.

    Args:
        run_rows: :func:`chatpool.batch.run`, say.
        plan, index: as for :func:`run`, which has its errors.
    """
    shard = _unchanged(_shard_of(plan, index))
    given = dict(plan.options)
    # Said here, so that nothing about a shard is detected in its first lines.
    given.update(encoding="utf-8", delimiter=plan.delimiter, rows_before=shard.rows_before)
    with FolderLease(shard.answers) as lease:
        return run_rows(shard.path, lease.path(".jsonl"), lock=lease, **given)


def _plan_of(plan: Union[Plan, Folder]) -> Plan:
    return plan if isinstance(plan, Plan) else load(plan)


def _shard_of(plan: Plan, index: int) -> Shard:
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"index must be the number of a shard, got {index!r}")
    if not 0 <= index < len(plan.shards):
        raise ConfigurationError(f"index must be 0 to {len(plan.shards) - 1}, the shards of {plan.folder}, got {index}")
    return plan.shards[index]


def _unchanged(shard: Shard) -> Shard:
    """Return the shard, if its file is the one that was written."""
    try:
        found = fingerprint(shard.path)[:2]
    except OSError as error:
        raise ConfigurationError(f"cannot read {shard.path}: {error.strerror or error}") from error
    if found != (shard.size, shard.sha256):
        raise ConfigurationError(
            f"{shard.path} is not the file that split has written: it was changed, or cut short; split the input into "
            "another folder"
        )
    return shard


# -- status and merge -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardStatus:
    """State of a shard, by its journal.

    Attributes:
        index: its number.
        rows: how many rows it has.
        done: how many have an answer.
        failed: how many have failed.
        pending: how many have neither.
        is_running: whether a process runs it, as far as can be seen: one on another host was heard of within a minute.
    """

    index: int
    rows: int
    done: int
    failed: int
    pending: int
    is_running: bool


def status(plan: Union[Plan, Folder]) -> List[ShardStatus]:
    """Return the state of every shard; nothing is sent and nothing changed.

    Raises:
        ConfigurationError: there is no such plan.
    """
    return list(statuses(_plan_of(plan)))


def statuses(plan: Plan) -> Iterator[ShardStatus]:
    """Yield the state of every shard, as it is when it is asked for."""
    return map(_status_of, plan.shards)


def _status_of(shard: Shard) -> ShardStatus:
    is_running = is_leased(shard.answers)
    ended = _read_newest(shard, count_states) or {OK: 0, FAILED: 0, RETRY: 0}
    failed = ended[FAILED] + ended[RETRY]
    return ShardStatus(shard.index, shard.rows, ended[OK], failed, max(0, shard.rows - ended[OK] - failed), is_running)


def _records(shard: Shard) -> List[Record]:
    """Return the last record of each row of a shard that has ended."""
    return _read_newest(shard, _ended_in) or []


def _ended_in(journal: str) -> List[Record]:
    return [record for record, is_last in read_journal(journal) if is_last]


def _read_newest(shard: Shard, read: Callable[[str], T]) -> Optional[T]:
    """Return what ``read`` reads in the journal that counts; None without one."""
    journal = newest_journal(shard.answers)
    while journal is not None:
        try:
            return read(journal)
        except FileNotFoundError:  # another process goes on with the shard, in a file of its own
            journal = newest_journal(shard.answers)
    return None


def bill(plan: Union[Plan, Folder], index: int, prices: Optional[PricesLike] = None) -> Bill:
    """Return what all runs of a shard have spent, by its journal: answers that were replaced since are included.

    Args:
        plan: the plan, or its folder.
        index: the number of the shard, from 0.
        prices: dollars per million tokens, as for :func:`chatpool.batch.run`.

    Returns:
        A bill whose ``usage`` has the tokens, and ``cost`` the dollars, None without prices.
    """
    checked = None if prices is None else prices_of(prices)
    shard = _shard_of(_plan_of(plan), index)
    return _read_newest(shard, functools.partial(_bill_of, checked)) or Bill(checked)


def _bill_of(prices: Optional[Prices], journal: str) -> Bill:
    bill = Bill(prices)
    for record, _ in read_journal(journal):
        _add(bill, record)
    return bill


def _add(bill: Bill, record: Record) -> None:
    bill.add_all(charges_of(record, decode_value(record.value)))


def merge(plan: Union[Plan, Folder], output: Folder, *, allow_missing: bool = False) -> BatchResult:
    """Write the answers of all shards to one file, in the order of the input; failures go to ``.errors.jsonl`` beside.

    A second call writes the same files again.  Its memory is that of one shard's answers.

    Args:
        plan: the plan, or its folder.
        output: the file of answers, in the Batch API's lines: ``OUT.jsonl``. It is replaced whole.
        allow_missing: leave out rows that have not ended; otherwise they are an error.

    Returns:
        The counts of all shards, as of one run, with the merged files; ``missing`` has the shards that are not done.

    Raises:
        ConfigurationError: shards are not done (the message names them), or the output cannot be used.
        OSError: the output could not be written.
    """
    started = current_clock().now()
    plan = _plan_of(plan)
    paths = merged_paths(plan, os.fspath(output))
    unfinished = [each for each in status(plan) if each.pending or each.is_running]
    if unfinished and not allow_missing:
        raise _unfinished_error(plan, unfinished)
    assert paths.errors is not None
    missing = [each.index for each in unfinished]
    result = BatchResult(plan.rows, output=paths.answers, errors=paths.errors, missing=missing)
    bill = Bill(None)
    with atomic_replace(paths.answers) as answers, atomic_replace(paths.errors) as errors:
        for shard in plan.shards:
            for record in sorted(_records(shard), key=lambda record: record.row):
                (answers.write(answer_line(record)) if record.state == OK else errors.write(error_line(record)))
                _count(result, bill, record)
    result.pending = max(0, result.rows - result.succeeded - result.failed)
    result.count(bill)
    result.elapsed = current_clock().now() - started
    return result


def _count(result: BatchResult, bill: Bill, record: Record) -> None:
    _add(bill, record)
    if record.state == OK:
        result.succeeded += 1
        return
    result.failed += 1
    cause = str((record.error or {}).get("class"))
    result.causes[cause] = result.causes.get(cause, 0) + 1


def merged_paths(plan: Plan, output: str) -> Paths:
    """Return the files that :func:`merge` writes.

    Raises:
        ConfigurationError: the output cannot be used.
    """
    paths = Paths.of(output, format_of(output, None))
    if paths.format != BATCH or paths.npy is not None or output == STDOUT:
        raise ConfigurationError(f"shards are merged to lines of the Batch API, got {output!r}: name a .jsonl")
    inside = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(output))), "")
    folders = tuple(os.path.join(os.path.realpath(os.path.join(plan.folder, name)), "") for name in (SHARDS, ANSWERS))
    if inside.startswith(folders) or os.path.realpath(output) == os.path.realpath(plan.source):
        raise ConfigurationError(f"{output} is a file of the plan, or its input: choose another output")
    return paths


def _unfinished_error(plan: Plan, unfinished: List[ShardStatus]) -> ConfigurationError:
    told = [
        f"{each.index} ({each.pending:,} of {each.rows:,} rows pending{', running' if each.is_running else ''})"
        for each in unfinished[:_SHOWN_SHARDS]
    ]
    more = "" if len(unfinished) <= _SHOWN_SHARDS else f" and {len(unfinished) - _SHOWN_SHARDS:,} more"
    return ConfigurationError(
        f"{len(unfinished):,} of {len(plan.shards):,} shards of {plan.folder} are not done: {', '.join(told)}{more}; "
        "run them, or merge what there is (allow_missing, --allow-missing)"
    )
