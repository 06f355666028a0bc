"""Batches, files and errors of the Batch API, as servers send them; nothing in them is trusted."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from .._redaction import printable
from ..errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    ConflictError,
    InsufficientQuotaError,
    InternalServerError,
    RateLimitError,
)

__all__ = ["Batch", "batch_of", "id_in", "id_of", "is_limit", "is_named", "is_passing"]

_PROBLEM_CHARACTERS, _STATUS_CHARACTERS = 800, 40


class Batch(NamedTuple):
    """A batch, as the server tells of it; the fields are those of a part."""

    batch_id: str
    status: str
    completed: int
    failed: int
    output_file_id: Optional[str]
    error_file_id: Optional[str]
    problem: str
    is_refused: bool

    def facts(self) -> Dict[str, Any]:
        """Return what the journal keeps of it."""
        facts = self._asdict()
        del facts["is_refused"]
        return facts


_LIMIT_CODE = "token_limit_exceeded"
_LIMIT_WORDS = "enqueued token"


def is_limit(error: APIError) -> bool:
    """Return whether a batch was refused because too many tokens are enqueued already."""
    return error.code == _LIMIT_CODE or _LIMIT_WORDS in error.message.lower()


def batch_of(answer: Any) -> Batch:
    """Return the batch in an answer.

    Raises:
        APIResponseError: there is none.
    """
    counts = answer.get("request_counts") if isinstance(answer, dict) else None
    counts = counts if isinstance(counts, dict) else {}
    batch_id = id_in(answer, "/batches")
    problems = _problems_in(answer.get("errors"))
    status = printable(_text(answer.get("status")) or "")[:_STATUS_CHARACTERS]
    return Batch(
        batch_id,
        status,
        _count(counts.get("completed")),
        _count(counts.get("failed")),
        id_of(answer.get("output_file_id")),
        id_of(answer.get("error_file_id")),
        "; ".join(_shown_problem(problem) for problem in problems[:3]),
        status == "failed" and any(_is_of_limit(problem) for problem in problems),
    )


def _problems_in(errors: Any) -> List[Dict[str, Any]]:
    data = errors.get("data") if isinstance(errors, dict) else errors
    return [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []


def _is_of_limit(problem: Mapping[str, Any]) -> bool:
    return problem.get("code") == _LIMIT_CODE or _LIMIT_WORDS in str(problem.get("message")).lower()


def _shown_problem(problem: Mapping[str, Any]) -> str:
    line = problem.get("line")
    where = f"line {line}: " if isinstance(line, int) else ""
    text = problem.get("message") or problem.get("code") or "no reason given"
    return printable(f"{where}{text}")[:_PROBLEM_CHARACTERS]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None


_ID = re.compile(r"(?=.*\w)[\w.:=~+-]{1,1000}", re.ASCII)


def id_of(value: Any) -> Optional[str]:
    """Return an id, which becomes a part of paths; None for what cannot be one."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def id_in(answer: Any, path: str) -> str:
    """Return the id in an answer.

    Raises:
        APIResponseError: it has none that could be.
    """
    found = id_of(answer.get("id")) if isinstance(answer, dict) else None
    if found is None:
        raise APIResponseError(f"the answer of {path} has no id", body=answer)
    return found


def is_named(file: Mapping[str, Any], name: str) -> bool:
    """Return whether a file that can be used was uploaded under this name."""
    return file.get("filename") == name and id_of(file.get("id")) is not None


def is_passing(error: APIError) -> bool:
    """Return whether the same request may have another end later; the server may have acted on it all the same."""
    passing = (APIConnectionError, APIResponseError, InternalServerError, ConflictError, RateLimitError)
    return isinstance(error, passing) and not isinstance(error, InsufficientQuotaError)
