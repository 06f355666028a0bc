"""The answers of the Batch API on their way into the journal of a run.

Lines of its output and error files become the same records as outcomes of a run.  So whatever is made of a run's
journal is made of these: outputs in every form, a report, and a run that goes on.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from .._client.batch_support import record_of, state_of
from .._journal import BATCH_API, OK, Journal, Record, key_of
from .._redaction import printable
from .._wire.response import UnusableAnswer, answering_model, decode_response, usage_of
from ..clock import current_clock
from ..errors import APIError, APIResponseError, status_error_class
from ..prices import Bill
from ..types import Attempt, ChatCompletion, ChatRequest, Outcome
from .jsonl import BATCH_API_SHARE, ResultLine, error_code, read_result
from .submission_journal import Submission
from .submission_part import Part
from .submission_plan import RowName, read_names

__all__ = ["AnswerTaker"]

logger = logging.getLogger("chatpool")


class AnswerTaker:
    """Takes the answers of parts into the journal of a run.

    Args:
        journal: the run's.
        bill: counts tokens and money.
        review: reviews answers by the run's rules; None without any.

    Attributes:
        failures: how many rows have failed, by cause.
    """

    def __init__(self, journal: Journal, bill: Bill, review: Optional[Callable[[ChatRequest, Any, int], Any]]) -> None:
        self._journal = journal
        self._bill = bill
        self._review = review
        self._clock = current_clock()
        self.failures: Counter[str] = Counter()

    def take(self, submission: Submission, part: Part) -> None:
        """Take the answers of a part from its files, as far as they are there.

        Raises:
            OSError: a file cannot be read, or the journal cannot be written.
        """
        names = dict(read_names(submission.names_path(part.number)))
        counts: Counter[str] = Counter()
        ended: Dict[str, str] = {}  # by custom_id, why without an answer; "" with one
        for kind in ("output", "errors"):
            for result in _results_in(submission.answer_path(part.number, kind), counts):
                self._take(part, result, names, ended, counts)
        self.failures.update(filter(None, ended.values()))
        counts["missing"] = len(names) - len(ended)
        _tell(part, counts)

    def _take(
        self,
        part: Part,
        result: ResultLine,
        names: Dict[str, RowName],
        ended: Dict[str, str],
        counts: Counter[str],
    ) -> None:
        custom_id = result.custom_id
        name = names.get(custom_id) if isinstance(custom_id, str) else None
        if name is None or custom_id is None:
            counts["unknown"] += 1
            return
        if custom_id in ended:
            counts["duplicate"] += 1
            if not (ended[custom_id] and result.ok):
                return
        record = self._record_of(part, result, name)
        ended[custom_id] = "" if record.state == OK else _cause_of(record)
        if record.state == OK or self._journal.state(record.key, record.hash) != OK:  # it may have an answer by now
            self._journal.append(record)

    def _record_of(self, part: Part, result: ResultLine, name: RowName) -> Record:
        """Return the record of a line, and count its tokens."""
        request = ChatRequest({"model": part.model}, part.url)
        value, error = self._value_of(request, result) if result.ok else (None, _error_of(result))
        usage = usage_of(result.body)
        self._bill.add(usage, part.model, answering_model(result.body), share=BATCH_API_SHARE)
        request_id = result.request_id if isinstance(result.request_id, str) else None
        reason = "ok" if error is None else (error_code({"class": "APIError", "code": error.code}))
        status = result.status if isinstance(result.status, int) else None
        history = (Attempt(printable(reason), status, None, 0.0, request_id, BATCH_API),)
        if error is not None:
            error.attempts = 1
        outcome = Outcome(0, None, request, value, error, history, 0.0, usage)
        state, key = state_of(outcome), key_of(str(result.custom_id))
        assert state is not None  # it was sent
        return record_of(
            outcome,
            state,
            key,
            name.hash,
            at=self._clock.wall(),
            custom_id=result.custom_id,
            row=name.number,
            meta=name.meta,
        )

    def _value_of(self, request: ChatRequest, result: ResultLine) -> Tuple[Any, Optional[APIError]]:
        """Return the value of an answer, as a run has it, or the error that it is by the run's rules."""
        try:
            value = decode_response(request, result.body, result.request_id)
        except UnusableAnswer as problem:
            message = f"the answer {problem}; run the row again"
            return None, APIResponseError(message, status_code=result.status, request_id=result.request_id)
        if not isinstance(value, ChatCompletion):
            return result.body, None
        if self._review is None:
            return value, None
        review = self._review(request, value, _LAST_ANSWER)
        return (review.value, None) if review.error is None else (None, review.error)


_LAST_ANSWER = 1 << 30  # a number of answers after which none is asked for again


def _results_in(path: str, counts: Counter[str]) -> Iterator[ResultLine]:
    """Yield the lines of a file of answers or errors; those that are none are counted."""
    if not os.path.exists(path):
        return
    with open(path, "rb", buffering=1 << 18) as file:
        for line in file:
            if line.isspace():
                continue
            try:
                yield read_result(line.decode("utf-8"))
            except (ValueError, RecursionError):
                counts["damaged"] += 1


def _error_of(result: ResultLine) -> APIError:
    """Return the error of a row: the server's response, or the reason why there was none."""
    status = result.refused_with
    message = result.message or result.code or "without a reason"
    error_in_body = result.body.get("error") if isinstance(result.body, dict) else None
    facts: Dict[str, Any] = error_in_body if isinstance(error_in_body, dict) else {}
    if status is None:
        return APIError(message, code=result.code, request_id=result.request_id)
    return status_error_class(status)(
        message,
        status_code=status,
        request_id=result.request_id,
        code=facts.get("code"),
        type=facts.get("type") if isinstance(facts.get("type"), str) else None,
        param=facts.get("param") if isinstance(facts.get("param"), str) else None,
        body=result.body,
    )


def _cause_of(record: Record) -> str:
    error = record.error or {}
    return error_code(error) if error.get("class") == "APIError" else str(error.get("class"))


_TOLD = {
    "missing": "{count} of its rows have no answer and no error in its files: they stay pending",
    "unknown": "{count} lines of its files name no row of it, and are left out",
    "duplicate": "{count} lines of its files name a row again",
    "damaged": "{count} lines of its files cannot be read",
}


def _tell(part: Part, counts: Counter[str]) -> None:
    told = [text.format(count=f"{counts[name]:,}") for name, text in _TOLD.items() if counts[name]]
    if part.batch_id is None:
        logger.warning(
            "part %d was cancelled before it was submitted: its %s rows stay pending", part.number, part.rows
        )
        return
    if part.problem:
        told.insert(0, f"it has failed: {part.problem}")
    if told:
        logger.warning("batch %s (%s): %s", part.batch_id, printable(part.status), "; ".join(told))
