"""What is to be done with an input: which of its rows run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, FrozenSet, Iterable, Mapping, Optional, Sequence, Union

from ..client.failure_limit import FailureLimit, MaxFailures
from ..client.review import AnswerRules
from ..config import positive_int
from ..errors import ConfigurationError
from ..journal import FAILED, RETRY, Record
from ..observe.progress import Progress
from ..prices import Bill, PricesLike, prices_of
from .formats import BATCH, TEXT
from .lines import error_code

__all__ = ["Job", "RetryFailed", "Selection"]

RetryFailed = Union[bool, str, Iterable[str]]

_SEED = 0  # the same rows are drawn again by the same command


@dataclass(frozen=True)
class Job:
    """The options of a batch run, checked; see :func:`chatpool.batch.run`."""

    retry_failed: RetryFailed = False
    limit: Optional[int] = None
    sample: Optional[int] = None
    dry_run: bool = False
    in_order: bool = False
    skip_bad_lines: bool = False
    progress: Progress = None
    prices: Optional[PricesLike] = None
    processes: int = 1
    answers: AnswerRules = AnswerRules()
    collect_stream: bool = False
    max_pack: Optional[int] = None
    format: str = BATCH
    fields: Optional[Sequence[str]] = None
    raw: bool = False
    journal: Optional[str] = None
    lock: bool = True
    max_failures: MaxFailures = "same"

    def __post_init__(self) -> None:
        for name in ("limit", "sample", "processes", "max_pack"):
            if getattr(self, name) is not None or name == "processes":
                positive_int(name, getattr(self, name))
        if not isinstance(self.collect_stream, bool):
            raise TypeError(f"collect_stream must be True or False, got {self.collect_stream!r}")
        if self.limit is not None and self.sample is not None:
            raise ConfigurationError("give limit or sample, not both")
        for name in ("raw", "lock"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.fields is not None:
            object.__setattr__(self, "fields", self._checked_fields(self.fields))
        self.bill()
        FailureLimit(self.max_failures)

    def bill(self) -> Bill:
        """A new count of tokens and money, by the prices.

        Raises:
            TypeError, ConfigurationError: they are none.
        """
        return Bill(None if self.prices is None else prices_of(self.prices))

    def _checked_fields(self, given: Any) -> Sequence[str]:
        fields = given.split(",") if isinstance(given, str) else list(given)
        names = [name.strip() if isinstance(given, str) else name for name in fields]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigurationError(f"fields must be names of columns, such as 'id,answer', got {given!r}")
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise ConfigurationError(f"fields has {twice!r} twice: name each column once")
        if not self.is_table:
            raise ConfigurationError(
                "fields chooses the columns of a table; lines of the Batch API have none: write to a .csv, .parquet, "
                ".db or .txt, or choose the format jsonl"
            )
        if self.format == TEXT and len(names) > 1:
            raise ConfigurationError(f"a text has one field a line, got {', '.join(names)}")
        return names

    @property
    def is_table(self) -> bool:
        """Whether the output is a table, with the input's columns."""
        return self.format != BATCH

    @property
    def kinds(self) -> FrozenSet[str]:
        """The kinds of failures to run again, in lower case; empty for all."""
        given = self.retry_failed
        if isinstance(given, bool):
            return frozenset()
        words = given.split(",") if isinstance(given, str) else given
        return frozenset(word.strip().lower() for word in words if word.strip())

    def wants(self, state: Optional[str], record: Optional[Record]) -> bool:
        """Whether a row that ended so, the last time, runs in this run."""
        if self.retry_failed is False:
            return state in (None, RETRY)
        if state not in (FAILED, RETRY) or record is None:
            return False
        return not self.kinds or not self.kinds.isdisjoint(_words(record.error or {}))


def _words(error: Mapping[str, Any]) -> FrozenSet[str]:
    """What a failure may be called: its class, HTTP status, code or type."""
    names = [error.get(name) for name in ("class", "status_code", "code", "type")]
    return frozenset(str(name).lower() for name in [*names, error_code(error)] if name is not None)


class Selection:
    """Which rows of the input are selected, by their place among the well-formed ones.

    Args:
        job: says ``limit`` or ``sample``.
        total: how many there are; needed for a sample.
    """

    def __init__(self, job: Job, total: Optional[int]) -> None:
        self._limit = job.limit
        self._sample: Optional[FrozenSet[int]] = None
        if job.sample is not None:
            count = total or 0
            self._sample = frozenset(random.Random(_SEED).sample(range(count), min(job.sample, count)))

    def has(self, place: int) -> bool:
        """Whether the row at this place is selected."""
        return self._sample is None or place in self._sample

    def is_over(self, place: int) -> bool:
        """Whether neither this place nor a later one is selected."""
        return self._limit is not None and place >= self._limit
