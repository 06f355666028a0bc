"""The way of a submission through the Batch API, step by step: upload, create, look, and once more what was refused.

Every step is in the journal before it is taken, and after it.  So a process that is killed anywhere is followed by one
that knows what may have happened, and looks before it repeats it.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional, Tuple

from .._client.batch_support import seconds_left
from .._observe.progress import RunProgress
from .._values import Waiting
from ..clock import current_clock
from ..errors import APIError, ChatPoolError, DeadlineExceededError
from .submission_journal import Submission
from .submission_objects import Batch, is_limit, is_passing
from .submission_part import VALIDATING, Part
from .submission_service import BatchService, sleep

__all__ = ["Driver"]

logger = logging.getLogger("chatpool")

_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS, _POLL_GROWTH = 2.0, 60.0, 1.5
_REFUSED_AGAIN_SECONDS = 300.0  # after a refusal, while no batch of this submission holds the limit


class Driver:
    """Moves a submission on.

    Args:
        submission: it is locked.
        service: the Batch API.
    """

    def __init__(self, submission: Submission, service: BatchService) -> None:
        self._submission = submission
        self._service = service
        self._clock = current_clock()

    # -- steps ----------------------------------------------------------------------------------------------

    def submit(self) -> bool:
        """Upload and create what may be created now; return whether anything was.

        Raises:
            ChatPoolError: the server refuses it, or cannot be reached.
        """
        has_moved = False
        for part in self._submission.parts:
            if part.is_waiting and self._may_create(part):
                has_moved = self._create(part) or has_moved
        return has_moved

    def _may_create(self, part: Part) -> bool:
        """Return whether the limit of enqueued tokens may have room for a part.

        All are tried at first.  Of those that were refused, one at a time goes again: when another batch of its model
        has been accepted or has ended since, or after some minutes if none is under way.
        """
        parts = [each for each in self._submission.parts if each.model == part.model]
        refused = [each for each in parts if each.is_waiting and each.refused_at is not None]
        if not refused:
            return True
        first = refused[0]
        if part is not first or any(each.is_live and each.status == VALIDATING for each in parts):
            return False
        assert first.refused_at is not None
        if self._submission.headway(part.model) > first.refused_at:
            return True
        is_alone = not any(each.is_live for each in parts)
        return is_alone and self._clock.wall() >= first.refused_time + _REFUSED_AGAIN_SECONDS

    def _create(self, part: Part) -> bool:
        """Create the batch of a part, its file uploaded if need be; return False if it was refused for now."""
        submission, service = self._submission, self._service
        if part.file_id is None:
            in_doubt = part.is_uploading
            submission.note(part, "uploading")
            submission.note(part, "uploaded", file_id=service.upload(submission, part, in_doubt=in_doubt))
        in_doubt = part.is_creating
        submission.note(part, "creating")
        try:
            batch = service.create(submission, part, in_doubt=in_doubt)
        except APIError as error:
            if not is_limit(error):
                raise
            self._note_refused(part, error.message)
            return False
        self._note(part, batch)
        return part.batch_id is not None

    def look(self) -> bool:
        """Look at every batch that may change; return whether one has.

        Raises:
            ChatPoolError: the server cannot be reached.
        """
        has_moved = False
        for part in self._submission.parts:
            if part.is_live:
                assert part.batch_id is not None
                has_moved = self._note(part, self._service.look_at(part.batch_id)) or has_moved
        return has_moved

    def look_again(self, part: Part) -> None:
        """Look at a batch that is over and has answered rows, but has told of no file of answers."""
        if part.batch_id is not None:
            self._note(part, self._service.look_at(part.batch_id))

    def cancel(self) -> None:
        """Cancel every batch that has not ended.

        Raises:
            ChatPoolError: the server cannot be reached.
        """
        for part in self._submission.parts:
            found = self._service.find(self._submission, part) if part.is_creating else None
            if found is not None:
                self._note(part, found)
            if part.batch_id is not None and part.is_live:
                self._note(part, self._service.cancel(part.batch_id))
            if part.is_waiting:
                self._submission.note(part, "dropped")

    def _note(self, part: Part, batch: Batch) -> bool:
        """Write to the journal what has changed of a batch; return whether anything has."""
        if batch.is_refused:
            if part.batch_id is None:
                self._submission.note(part, "batch", **batch.facts())
            self._note_refused(part, batch.problem)
            return True
        facts = batch.facts()
        changed = {name for name, value in facts.items() if getattr(part, name) != value}
        if changed <= {"completed", "failed"}:  # of which the server tells at any time
            part.apply({"event": "batch", **facts})
            return False
        self._submission.note(part, "batch", **facts)
        return "status" in changed

    def _note_refused(self, part: Part, problem: str) -> None:
        submission = self._submission
        submission.note(part, "refused", problem=problem, headway=submission.headway(part.model))
        if not any(each.is_live for each in submission.parts if each.model == part.model):
            logger.warning(
                "the limit of enqueued tokens refuses a batch of %s rows (about %s tokens), and no other batch of this "
                "submission is under way: it is tried again until others of the account have ended; if it never fits, "
                "cancel, and submit smaller batches (tokens_per_batch, --tokens-per-batch): %s",
                f"{part.rows:,}",
                f"{part.tokens:,}",
                problem,
            )

    # -- waiting --------------------------------------------------------------------------------------------

    def wait(self, timeout: Optional[float], progress: Optional[RunProgress], report: Callable[[], None]) -> None:
        """Move on until every batch has ended, or the time is over.

        Args:
            timeout: seconds; None for no limit but that of a deadline around.
            progress: shows the rows that have ended.
            report: called after every look.

        Raises:
            ChatPoolError: the server refuses something; a server that cannot be reached is asked again.
        """
        ends_at = self._end_of(timeout)
        pause, shown = _FIRST_POLL_SECONDS, (0, 0)
        if progress is not None:
            progress.open(self.waiting)
        while True:
            has_moved = self._move_on()
            if progress is not None:
                shown = self._show(progress, shown)
            report()
            left = None if ends_at is None else ends_at - self._clock.now()
            if self._submission.is_over or (left is not None and left <= 0):
                return
            sleep(self._clock, pause if left is None else min(pause, left))
            pause = _FIRST_POLL_SECONDS if has_moved else min(pause * _POLL_GROWTH, _MAX_POLL_SECONDS)

    def _end_of(self, timeout: Optional[float]) -> Optional[float]:
        limits = [limit for limit in (timeout, seconds_left()) if limit is not None]
        return self._clock.now() + min(limits) if limits else None

    def _move_on(self) -> bool:
        try:
            return self.look() | self.submit()
        except ChatPoolError as error:
            # A wait lasts for hours: it survives an outage of any length.
            is_lasting = isinstance(error, APIError) and not is_passing(error)
            if is_lasting or not isinstance(error, (APIError, DeadlineExceededError)):
                raise
            logger.warning("the server cannot be asked for now, and is asked again: %s", error)
            return False

    def _show(self, progress: RunProgress, shown: Tuple[int, int]) -> Tuple[int, int]:
        """Show the rows that have ended since; return how many have succeeded and failed in all."""
        parts = self._submission.parts
        failed = sum(part.rows - part.completed if part.is_over else part.failed for part in parts)
        counts = sum(part.completed for part in parts), failed
        progress.advance(*(max(0, count - before) for count, before in zip(counts, shown)))
        return counts

    def waiting(self) -> Waiting:
        """Return why nothing moves, for a progress bar."""
        parts = self._submission.parts
        live = [part for part in parts if part.is_live]
        refused = sum(part.is_waiting and part.refused_at is not None for part in parts)
        reason = f"{len(live):,} of {len(parts):,} batches under way" if live else "no batch under way"
        if refused:
            reason += f", {refused:,} held back by the limit of enqueued tokens"
        return Waiting(reason, 0)
