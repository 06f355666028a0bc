"""The batches of a :class:`FakeServer`: they move on when they are asked for, or when the server is told."""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .batch_rows import (
    BatchLimits,
    Row,
    RowResult,
    answer_row,
    batch_error,
    check_rows,
    enqueued_tokens,
    unfinished_rows,
)
from .files import FileStore, unix_time
from .received import ReceivedRequest
from .routing import Content, Handler, Routes, invalid_request, json_handler, list_page, not_found
from .scenarios import BatchScenario, Course, ScenarioQueue, ScenarioRule
from .steps import Answerer

__all__ = ["Batches"]

_LIST_LIMIT = 20
_WINDOW_SECONDS = 24 * 3600
_ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
)
_EMPTY_AT_FIRST = (
    "errors",
    "output_file_id",
    "error_file_id",
    *(f"{state}_at" for state in ("in_progress", "finalizing", "completed")),
    *(f"{state}_at" for state in ("failed", "expired", "cancelling", "cancelled")),
    "model",
    "usage",
)
_COURSES = {
    "completed": ("in_progress", "finalizing", "completed"),
    "expired": ("in_progress", "finalizing", "expired"),
    "cancelled": ("in_progress", "cancelling", "cancelled"),
    "failed": ("failed",),
}


class _Batch(Course):
    """One batch.

    Args:
        shown: the API's object.
        scenario: its course.
        content: the bytes of its input file.

    Attributes:
        rows: the rows; empty before the input file is checked.
        results: the results of those that are done, once the batch is no longer in progress.
    """

    def __init__(self, shown: Dict[str, Any], scenario: BatchScenario, content: bytes) -> None:
        super().__init__(shown, scenario.polls, _COURSES[scenario.end])
        self.scenario = scenario
        self.content = content
        self.rows: List[Row] = []
        self.results: List[RowResult] = []

    def counts(self) -> Dict[str, int]:
        """Return the numbers of all rows, of those with an answer, and of those that were refused."""
        failed = sum(result.failed for result in self.results)
        return _counts(len(self.rows), len(self.results) - failed, failed)

    def poll(self) -> None:
        """Count a poll, and show how far the rows are."""
        if self.status == "in_progress":
            self.update(request_counts=_counts(len(self.rows), self.done(), 0))
        self.seen += 1

    def done(self) -> int:
        """Return how many rows of a batch in progress are answered."""
        if self.scenario.done is not None:
            return min(self.scenario.done, len(self.rows))
        if self.course[-1] == "expired":
            return len(self.rows) // 2
        return len(self.rows) * self.seen // (self.polls + 1) if self.polls else 0


class Batches:
    """Answers the paths of ``/batches``.

    Args:
        files: the files of the server.
        model: answers the rows.
        scenarios: the courses of batches.
        limits: the limits for all batches.
    """

    def __init__(
        self, files: FileStore, model: Answerer, scenarios: ScenarioRule[BatchScenario], limits: BatchLimits
    ) -> None:
        self._files = files
        self._model = model
        self._scenarios = ScenarioQueue("batches", scenarios, BatchScenario())
        self._limits = limits
        # Functions of the test are called while it is held, and may ask the server for its batches: shown() is without.
        self._lock = threading.RLock()
        self._batches: Dict[str, _Batch] = {}
        self.routes: Routes = {
            ("POST", "/batches"): json_handler(self._create),
            ("GET", "/batches"): self._list,
            ("GET", "/batches/{id}"): self._of(self._poll),
            ("POST", "/batches/{id}/cancel"): self._of(self._cancel),
        }

    def shown(self) -> List[Dict[str, Any]]:
        """Return the API's objects, the oldest first; no batch moves on by that."""
        return [batch.shown for batch in list(self._batches.values())]

    def advance(self, only: Optional[str]) -> int:
        """Move on every batch that has not ended, or ``only`` the one with this id; return how many there were."""
        with self._lock:
            moving = [batch for batch in self._batches.values() if batch.course and only in (None, batch.shown["id"])]
            for batch in moving:
                self._advance(batch)
            return len(moving)

    # -- requests ---------------------------------------------------------------------------------------------

    def _create(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        body = request.body
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                return invalid_request(f"Missing required parameter: '{name}'.", name)
        if body["endpoint"] not in _ENDPOINTS and f"/v1{body['endpoint']}" not in _ENDPOINTS:
            return invalid_request(f"Invalid value: '{body['endpoint']}'. It must be one of {_ENDPOINTS}.", "endpoint")
        if body["completion_window"] != "24h":
            return invalid_request("Invalid value for 'completion_window': it must be '24h'.", "completion_window")
        file = self._files.find(body["input_file_id"])
        if file is None or file.purpose != "batch":
            return invalid_request(f"Invalid 'input_file_id': {body['input_file_id']}.", "input_file_id")
        with self._lock:
            batch_id = f"batch_{len(self._batches) + 1}"
            batch = _Batch(_batch_object(batch_id, body), self._scenarios.take(body), file.content)
            self._batches[batch_id] = batch
            return Content(200, batch.shown)

    def _list(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        return list_page(self.shown()[::-1], request.query, default_limit=_LIST_LIMIT)

    def _of(self, change: Callable[[_Batch], Optional[Content]]) -> Handler:
        def handle(request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
            with self._lock:
                batch = self._batches.get(id_in_path)
                if batch is None:
                    return not_found("Batch object", id_in_path)
                return change(batch) or Content(200, batch.shown)

        return handle

    def _poll(self, batch: _Batch) -> None:
        while batch.is_due():
            self._advance(batch)
        batch.poll()

    def _cancel(self, batch: _Batch) -> Optional[Content]:
        if not batch.course:
            return invalid_request(f"Cannot cancel a batch with status '{batch.status}'.", status=409)
        if batch.status != "cancelling":
            batch.course = ["cancelling", "cancelled"]
            self._advance(batch)
        return None

    # -- states -----------------------------------------------------------------------------------------------

    def _advance(self, batch: _Batch) -> None:
        """Move on by one state.  Functions of the test come first: if one raises, the batch is as it was."""
        following = batch.course[0]
        if following == "in_progress":
            errors = self._check(batch)
            if errors:
                self._fail(batch, errors)
                return
        elif following == "failed":
            self._fail(batch, [dict(error) for error in batch.scenario.errors] or [_FAILURE])
            return
        elif batch.status == "in_progress":
            batch.results = self._answered(batch)
            batch.update(request_counts=batch.counts())
        del batch.course[0]
        if not batch.course:
            self._write(batch, following)
        batch.enter(following, **{f"{following}_at": unix_time()})

    def _check(self, batch: _Batch) -> List[Dict[str, Any]]:
        """Read the rows, and return why the batch fails: an empty list if it does not."""
        rows, errors = check_rows(batch.content, batch.shown["endpoint"], self._limits.rows)
        if errors:
            return errors
        model, limit = rows[0]["body"].get("model"), self._limits.enqueued_tokens
        others = [other for other in self._batches.values() if other.course and other.shown["model"] == model]
        if limit is not None and sum(enqueued_tokens(other.rows) for other in others) + enqueued_tokens(rows) > limit:
            message = (
                f"Enqueued token limit reached for {model} in organization org-fake. Limit: {limit:,} enqueued tokens. "
                "Please try again once some in_progress batches have been completed."
            )
            return [batch_error("token_limit_exceeded", message)]
        batch.rows = rows
        batch.update(model=model, request_counts=_counts(len(rows), 0, 0))
        return []

    def _fail(self, batch: _Batch, errors: Sequence[Dict[str, Any]]) -> None:
        batch.course = []
        batch.enter("failed", errors={"object": "list", "data": list(errors)}, failed_at=unix_time())

    def _answered(self, batch: _Batch) -> List[RowResult]:
        """Return the results of the rows that are done when the batch stops being in progress."""
        done = len(batch.rows) if batch.course[-1] == "completed" else batch.done()
        return [answer_row(row, number, batch.scenario, self._model) for number, row in enumerate(batch.rows[:done], 1)]

    def _write(self, batch: _Batch, end: str) -> None:
        """Write the files of a batch that has ended."""
        results = batch.results
        answered, failed = [result for result in results if not result.failed], [r for r in results if r.failed]
        if end != "completed":
            failed += unfinished_rows(batch.rows[len(results) :], len(results) + 1, end)
        batch.update(
            usage=_usage([result.line["response"]["body"] for result in answered]),
            output_file_id=self._write_file(batch, "output", answered, batch.scenario.output_file),
            error_file_id=self._write_file(batch, "error", failed, batch.scenario.error_file),
        )

    def _write_file(self, batch: _Batch, kind: str, results: Sequence[RowResult], fate: str) -> Optional[str]:
        if not results or fate == "missing":
            return None
        # Not in the order of the input, and never the same for two rows or more.
        lines = [json.dumps(result.line) for result in (*results[1::2], *results[::2])]
        content = "".join(f"{line}\n" for line in lines).encode()
        file = self._files.add(f"{batch.shown['id']}_{kind}.jsonl", "batch_output", content)
        if fate == "deleted":
            self._files.remove(file.id)
        return file.id


_FAILURE = batch_error("server_error", "The batch could not be processed.")


def _batch_object(batch_id: str, body: Dict[str, Any]) -> Dict[str, Any]:
    now = unix_time()
    return {
        "id": batch_id,
        "object": "batch",
        "endpoint": body["endpoint"],
        "input_file_id": body["input_file_id"],
        "completion_window": body["completion_window"],
        "status": "validating",
        "created_at": now,
        "expires_at": now + _WINDOW_SECONDS,
        "request_counts": _counts(0, 0, 0),
        "metadata": body.get("metadata"),
        **dict.fromkeys(_EMPTY_AT_FIRST),
    }


def _counts(total: int, completed: int, failed: int) -> Dict[str, int]:
    return {"total": total, "completed": completed, "failed": failed}


def _usage(bodies: Sequence[Any]) -> Dict[str, Any]:
    """Return the usage of all rows together."""
    read = written = 0
    for body in bodies:
        usage = body.get("usage") if isinstance(body, dict) else None
        tokens = _tokens(usage) if isinstance(usage, dict) else (0, 0)
        read, written = read + tokens[0], written + tokens[1]
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }


def _tokens(usage: Dict[str, Any]) -> Tuple[int, int]:
    """Return the tokens that an answer's usage says were read and written."""
    read = usage.get("input_tokens", usage.get("prompt_tokens")) or 0
    return read, usage.get("output_tokens", usage.get("completion_tokens")) or 0
