"""The state of a submission, as users get it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Tuple

from .._display import short
from .submission_journal import Submission
from .submission_part import Part

__all__ = ["BatchStatus", "SubmissionStatus", "status_of"]

_REPR_CHARACTERS = 320


@dataclass(frozen=True)
class BatchStatus:
    """State of one batch of a submission.

    Attributes:
        number: its number, from 1.
        rows: how many rows it has.
        url: where they go, for instance ``"/v1/chat/completions"``.
        model: their model.
        batch_id: the server's name of the batch, None before there is one.
        status: the server's word: ``"validating"``, ``"in_progress"``, ``"finalizing"``, ``"completed"``,
            ``"expired"``, ``"cancelling"``, ``"cancelled"``, ``"failed"``; or, before there is a batch, ``"waiting"``
            (to be submitted) and ``"held back"`` (the limit of enqueued tokens had no room for it).
        completed: how many of its rows have an answer, by the server's account.
        failed: how many have failed, by the server's account.
        problem: why it has failed or was held back, for a person; "" if it was not.
        is_over: whether it does not change any more.
        is_collected: whether its answers were collected.
    """

    number: int
    rows: int
    url: str
    model: str
    batch_id: Optional[str]
    status: str
    completed: int
    failed: int
    problem: str
    is_over: bool
    is_collected: bool


@dataclass(frozen=True)
class SubmissionStatus:
    """State of the batches that an input was submitted in.

    Attributes:
        input: the file.
        output: where the answers are to go.
        batches: one :class:`BatchStatus` each; empty if every row had ended before.
    """

    input: str
    output: str
    batches: Tuple[BatchStatus, ...]

    @property
    def rows(self) -> int:
        """The number of rows that were submitted."""
        return sum(batch.rows for batch in self.batches)

    @property
    def completed(self) -> int:
        """The number of them that have an answer, by the server's account."""
        return sum(batch.completed for batch in self.batches)

    @property
    def failed(self) -> int:
        """The number of them that have failed, by the server's account."""
        return sum(batch.failed for batch in self.batches)

    @property
    def is_over(self) -> bool:
        """True if no batch changes any more."""
        return all(batch.is_over for batch in self.batches)

    @property
    def is_collected(self) -> bool:
        """True if all answers were collected."""
        return all(batch.is_collected for batch in self.batches)

    def to_dict(self) -> Dict[str, Any]:
        """Return the state as a dict that JSON has a form for."""
        counts = {"rows": self.rows, "completed": self.completed, "failed": self.failed}
        flags = {"is_over": self.is_over, "is_collected": self.is_collected}
        batches = [asdict(batch) for batch in self.batches]
        return {"input": self.input, "output": self.output, **counts, **flags, "batches": batches}

    def summary(self) -> str:
        """Return the counts, for a person, on one line."""
        if not self.batches:
            return "every row has ended: there is nothing to submit"
        words: Dict[str, int] = {}
        for batch in self.batches:
            word = "collected" if batch.is_collected else batch.status
            words[word] = words.get(word, 0) + 1
        batches = ", ".join(f"{count:,} {word}" for word, count in words.items())
        return (
            f"{self.completed:,} of {self.rows:,} rows answered, {self.failed:,} failed; "
            f"{len(self.batches):,} {'batch' if len(self.batches) == 1 else 'batches'}: {batches}"
        )

    def __repr__(self) -> str:
        return f"<SubmissionStatus: {short(self.summary(), _REPR_CHARACTERS)}>"


def status_of(submission: Submission, output: str) -> SubmissionStatus:
    """Return the state of a submission, as its journal has it."""
    assert submission.plan is not None
    return SubmissionStatus(submission.plan.input, output, tuple(map(_batch_status, submission.parts)))


def _batch_status(part: Part) -> BatchStatus:
    word = part.status or ("waiting" if part.refused_at is None else "held back")
    return BatchStatus(
        part.number,
        part.rows,
        part.url,
        part.model,
        part.batch_id,
        word,
        part.completed,
        part.failed,
        part.problem,
        part.is_over,
        part.is_collected,
    )
