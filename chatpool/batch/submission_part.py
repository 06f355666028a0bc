"""A part of a submission: the rows that go into one batch, and how far they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional

__all__ = ["OVER", "PLANNED_FIELDS", "VALIDATING", "Part"]

OVER = frozenset({"completed", "failed", "expired", "cancelled"})
"""Statuses of a batch that does not change any more."""

VALIDATING, _FAILED = "validating", "failed"


@dataclass
class Part:
    """Rows of a submission that go into one batch.

    Attributes:
        number: its number, from 1.
        rows: how many rows it has.
        url: where they go, as the Batch API is told.
        model: their model.
        tokens: the tokens of their prompts, as they are estimated.
        file_id: the uploaded input file.
        is_uploading: whether an upload was begun whose end is not known.
        batch_id: its last batch.
        is_creating: whether a batch was begun of which nothing is known.
        former_ids: batches that were refused because of the limit of enqueued tokens.
        refusals: how often that has happened, before a batch had an id as well.
        status: the last batch's status, by the API's name.
        completed, failed: how many of its rows were answered, or have failed, by the server's account.
        output_file_id, error_file_id: the files of answers and errors.
        problem: why the batch has failed, for a person.
        refused_at: how far the batches of this model were when one of this part was refused; None if none was, or
            if there is another one since. See :meth:`Submission.headway`.
        refused_time: when that was, in seconds since the epoch.
        is_collected: whether its answers are in the journal of the run.
        was_accepted: whether a batch of it got beyond the check of the input.
    """

    number: int
    rows: int
    url: str
    model: str
    tokens: int
    file_id: Optional[str] = None
    is_uploading: bool = False
    batch_id: Optional[str] = None
    is_creating: bool = False
    former_ids: List[str] = field(default_factory=list)
    refusals: int = 0
    status: str = ""
    completed: int = 0
    failed: int = 0
    output_file_id: Optional[str] = None
    error_file_id: Optional[str] = None
    problem: str = ""
    refused_at: Optional[int] = None
    refused_time: float = 0.0
    is_collected: bool = False
    was_accepted: bool = False

    @property
    def is_live(self) -> bool:
        """True while there is a batch that may change."""
        return self.batch_id is not None and self.status not in OVER

    @property
    def is_over(self) -> bool:
        """True if the batch has ended, whatever its end, or there will be none."""
        return self.status in OVER

    @property
    def is_waiting(self) -> bool:
        """True while there is no batch, and there is to be one."""
        return self.batch_id is None and not self.is_over

    def apply(self, event: Mapping[str, Any]) -> None:
        """Change as an event of the journal says."""
        kind = event["event"]
        if kind == "uploading":
            self.is_uploading = True
        elif kind == "uploaded":
            self.file_id, self.is_uploading = str(event["file_id"]), False
        elif kind == "creating":
            self.is_creating = True
        elif kind == "batch":
            self.is_creating, self.refused_at = False, None
            values = {name: event[name] for name in _BATCH_FIELDS if name in event}
            self.__dict__.update(values)
            self.was_accepted = self.was_accepted or self.status not in (VALIDATING, _FAILED)
        elif kind == "refused":
            self.is_creating = False
            self.refusals += 1
            self.former_ids += [self.batch_id] if self.batch_id is not None else []
            self.batch_id, self.status, self.completed, self.failed = None, "", 0, 0
            self.problem, self.refused_at = str(event["problem"]), int(event["headway"])
            self.refused_time = float(event["at"])
        elif kind == "dropped":
            self.status, self.is_creating = "cancelled", False
        elif kind == "collected":
            self.is_collected = True


_BATCH_FIELDS = ("batch_id", "status", "completed", "failed", "output_file_id", "error_file_id", "problem")
PLANNED_FIELDS = ("number", "rows", "url", "model", "tokens")
"""Fields of a part that a plan sets."""
