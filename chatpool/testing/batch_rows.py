"""The rows of a batch: how a file of requests is checked, and how its rows are answered.

Sources: the API's guide to batches, and the error codes in Azure's and OpenAI's documentation of failed batches.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..errors import ConfigurationError
from .http_parts import parse_response
from .http_server import Send
from .received import Headers, RawRequest, ReceivedRequest, embedding_inputs, prompt_of
from .routing import Content
from .scenarios import BatchScenario
from .steps import Answerer, Step

__all__ = [
    "BatchLimits",
    "Row",
    "RowResult",
    "answer_row",
    "batch_error",
    "check_rows",
    "enqueued_tokens",
    "unfinished_rows",
]

_UNFINISHED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}
_TIMEOUT = {"code": "request_timeout", "message": "The request to the model timed out."}

Row = Dict[str, Any]


@dataclass(frozen=True)
class BatchLimits:
    """Limits of a :class:`FakeServer` for batches.

    Args:
        rows: the rows of one batch. A batch with more is made, and fails with the code ``too_many_tasks``.
        file_bytes: the size of a file for batches. A larger one is refused with a 400.
        enqueued_tokens: the tokens (words, that is) of the prompts of all batches of a model that have not ended. A
            batch that would go beyond is made, and fails with the code ``token_limit_exceeded``. None: no limit.

    Raises:
        ConfigurationError: a value below 1.
    """

    rows: int = 50_000
    file_bytes: int = 200_000_000
    enqueued_tokens: Optional[int] = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} must be at least 1, got {value!r}")


def check_rows(content: bytes, endpoint: str, max_rows: int) -> Tuple[List[Row], List[Dict[str, Any]]]:
    """Return the rows of an input file, and ``errors.data`` of the batch: if it is not empty, the batch fails."""
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    if not lines:
        return [], [batch_error("empty_file", "The input file is empty. Please ensure that the batch has requests.")]
    if len(lines) > max_rows:
        return [], [batch_error("too_many_tasks", f"The batch has {len(lines)} requests; the limit is {max_rows}.")]
    rows: List[Row] = []
    errors: List[Dict[str, Any]] = []
    checks = _RowChecks(endpoint)
    for number, line in lines:
        row = _parsed_row(line)
        error = checks.error(row)
        if error is None:
            rows.append(row)
        else:
            errors.append(batch_error(*error, line=number))
    return rows, errors


def batch_error(code: str, message: str, param: Optional[str] = None, line: Optional[int] = None) -> Dict[str, Any]:
    """Return an entry of ``errors.data``."""
    return {"code": code, "message": message, "param": param, "line": line}


def _parsed_row(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


class _RowChecks:
    """Checks one row after the other: each by itself, and against those before it."""

    def __init__(self, endpoint: str) -> None:
        self._path = _below_v1(endpoint)
        self._ids: Set[str] = set()
        self._model: Optional[str] = None

    def error(self, row: Any) -> Optional[Tuple[str, str, Optional[str]]]:
        """Return code, message and parameter of what is wrong with a row; None if it is valid."""
        if not isinstance(row, dict):
            return "invalid_json_line", "This line is not parseable as valid JSON.", None
        for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            if not isinstance(row.get(name), kind):
                return "invalid_request", f"Missing required parameter: '{name}'.", name
        if row["custom_id"] in self._ids:
            return "duplicate_custom_id", f"The custom_id {row['custom_id']!r} has been used before.", "custom_id"
        self._ids.add(row["custom_id"])
        if row["method"] != "POST":
            return "invalid_request", "The only method of batches is POST.", "method"
        if _below_v1(row["url"]) != self._path:
            return "url_mismatch", "The URL of this request is not the endpoint of the batch.", "url"
        model = row["body"].get("model")
        if self._model not in (None, model):
            return "model_mismatch", f"The model {model!r} is not that of the first request.", "body.model"
        self._model = model
        return None


def _below_v1(url: str) -> str:
    return url[len("/v1") :] if url.startswith("/v1/") else url


def enqueued_tokens(rows: Sequence[Row]) -> int:
    """Return the words of the prompts and texts of all rows."""
    return sum(_body_tokens(row["body"]) for row in rows)


def _body_tokens(body: Dict[str, Any]) -> int:
    text = prompt_of(body) or " ".join(str(text) for text in embedding_inputs(body))
    return len(text.split())


class RowResult(NamedTuple):
    """A line of an output file or, if ``failed``, of an error file."""

    failed: bool
    line: Dict[str, Any]


def answer_row(row: Row, number: int, scenario: BatchScenario, model: Answerer) -> RowResult:
    """Return the result of one row, whose number in the batch is ``number``."""
    path = row["url"] if row["url"].startswith("/v1/") else "/v1" + row["url"]
    raw = RawRequest("POST", path, "HTTP/1.1", Headers([]), json.dumps(row["body"]).encode())
    request = ReceivedRequest(raw, number=number, connection=0, time=0.0)
    step = scenario.step_for(row)
    content = model.content(request, None) if step is None else _content_of(step, request, model)
    if content is None:
        return RowResult(True, _line(row, number, None, _TIMEOUT))
    response = {"status_code": content.status, "request_id": f"req_{number}", "body": content.body}
    return RowResult(content.status != 200, _line(row, number, response, None))


def unfinished_rows(rows: Sequence[Row], first: int, end: str) -> Iterator[RowResult]:
    """Yield the results of rows that were not answered before the batch ended; the first has the number ``first``."""
    code, message = _UNFINISHED[end]
    for number, row in enumerate(rows, first):
        yield RowResult(True, _line(row, number, None, {"code": code, "message": message}))


def _content_of(step: Step, request: ReceivedRequest, model: Answerer) -> Optional[Content]:
    """Return the answer that a step gives; None if it gives none, or a part of one."""
    actions = step.actions(request, model)
    sent = b"".join(action.head + action.body for action in actions if isinstance(action, Send))
    try:
        response = parse_response(sent, request.method)
        raw = response.read()
    except (OSError, http.client.HTTPException):
        return None
    try:
        return Content(response.status, json.loads(raw))
    except ValueError:
        return Content(response.status, raw.decode("utf-8", "replace"))


def _line(row: Row, number: int, response: Optional[Dict[str, Any]], error: Any) -> Dict[str, Any]:
    return {"id": f"batch_req_{number}", "custom_id": row["custom_id"], "response": response, "error": error}
