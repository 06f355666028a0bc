"""The plan of a submission: rows of an input as input files of the Batch API.

The Batch API takes files of one endpoint and one model, of 50,000 rows and 200 MB at most
(https://platform.openai.com/docs/guides/batch).  Everything that it would refuse is refused here, before anything is
uploaded.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from typing import IO, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .._client.batch_support import payload_of, prompt_tokens, sampled_request
from .._files import SAFE_OPEN_FLAGS
from .._journal import text_or_null
from .._wire.operations import RESPONSES
from ..config import positive_int
from ..errors import ConfigurationError
from ..types import ChatRequest
from .jsonl import EmptyCell, is_embedding, json_text
from .rows import RowRequest, Rows
from .submission_journal import Submission
from .submission_part import Part

__all__ = ["MAX_ROWS", "InputLimits", "Planner", "RowName", "read_names"]

MAX_ROWS = 50_000
"""Rows of one batch; of embeddings, the texts in them."""

_MAX_BYTES = 200_000_000  # of an input file
_MAX_GROUPS = 100  # each has open files

_ENDPOINTS = (
    "/responses",
    "/chat/completions",
    "/embeddings",
    "/completions",
    "/moderations",
    "/images/generations",
)


class InputLimits(NamedTuple):
    """The largest input file.

    Attributes:
        rows: how many rows it may have.
        tokens: how many tokens its prompts may have, as they are estimated; None for any number.
        size: how many bytes it may have.
    """

    rows: int = MAX_ROWS
    tokens: Optional[int] = None
    size: int = _MAX_BYTES

    @classmethod
    def of(cls, rows_per_batch: int, tokens_per_batch: Optional[int]) -> InputLimits:
        """Check and return limits of the user's.

        Raises:
            ConfigurationError, TypeError: one is no whole number above 0, or more than the Batch API takes.
        """
        positive_int("rows_per_batch", rows_per_batch)
        if rows_per_batch > MAX_ROWS:
            raise ConfigurationError(f"rows_per_batch must be {MAX_ROWS:,} at most, got {rows_per_batch:,}")
        if tokens_per_batch is not None:
            positive_int("tokens_per_batch", tokens_per_batch)
        return cls(rows_per_batch, tokens_per_batch)


class RowName(NamedTuple):
    """The facts of a row that are needed when its answer has come: its place, the hash of its request, its metadata."""

    number: int
    hash: str
    meta: Any


class _OpenPart:
    """A part that takes rows, with its open files."""

    def __init__(self, part: Part, input_path: str, names_path: str) -> None:
        self.part = part
        self.weight = self.size = 0
        self.tokens = 0.0
        self._lines, self._names = _created(input_path), _created(names_path)

    def fits(self, size: int, weight: int, tokens: float, limits: InputLimits) -> bool:
        """Return whether there is room for another row."""
        return (
            self.size + size <= limits.size
            and self.weight + weight <= limits.rows
            and (limits.tokens is None or self.tokens + tokens <= limits.tokens)
        )

    def add(self, line: bytes, name: bytes, weight: int, tokens: float) -> None:
        self._lines.write(line)
        self._names.write(name)
        self.part.rows += 1
        self.weight += weight
        self.size += len(line)
        self.tokens += tokens
        self.part.tokens = math.ceil(self.tokens)

    def close(self) -> None:
        self._lines.close()
        self._names.close()


def _created(path: str) -> IO[bytes]:
    """Create a file that nobody else reads; one that a killed process has left is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_OPEN_FLAGS
    return open(os.open(path, flags, 0o600), "wb", buffering=1 << 18)


class Planner:
    """Makes the parts of a submission: each gets an input file, and a file with the names of its rows.

    Args:
        submission: whose folder takes the files.
        name: the name of the plan.
        limits: of the input files.
        is_azure: whether endpoints are named as Azure does, without ``/v1``.
        samples: how many answers each row gets, by ``n``: a row of a batch is one request.
    """

    def __init__(
        self, submission: Submission, name: str, limits: InputLimits, *, is_azure: bool, samples: int = 1
    ) -> None:
        self._submission = submission
        self._name = name
        self._limits = limits
        self._is_azure = is_azure
        self._samples = samples
        self._open: Dict[Tuple[str, str], _OpenPart] = {}
        self._first_number = 1 + max((part.number for part in submission.parts), default=0)
        self.parts: List[Part] = []

    def write(self, rows: Rows, on_invalid: Callable[[RowRequest], None]) -> List[Part]:
        """Write the files of the rows that are wanted, and return the parts.

        Args:
            rows: checked rows of an input.
            on_invalid: takes rows that are to fail on their own, as those with an empty prompt.

        Raises:
            ConfigurationError: a row that the Batch API would refuse.
            OSError: a file cannot be written.
        """
        self._remove_leftovers()
        try:
            with self._submission.new_rows() as note:
                for row_request in rows.row_requests():
                    if not row_request.wanted:
                        note(row_request.key, rows.row_request(row_request.row).hash)
                        continue
                    note(row_request.key, row_request.hash)
                    if isinstance(row_request.problem, EmptyCell):
                        on_invalid(row_request)
                    else:
                        self._add(row_request, rows.location_of(row_request.row))
        except BaseException:
            self._discard()
            raise
        for part in self._open.values():
            part.close()
        return self.parts

    def _add(self, row_request: RowRequest, place: str) -> None:
        request = row_request.request
        if request is None:
            raise ConfigurationError(f"{place} cannot be put into a batch: {row_request.problem}")
        url, model = self._url_of(request, place), _model_of(request, place)
        try:
            request = sampled_request(request, self._samples)
        except ConfigurationError as error:
            raise ConfigurationError(f"{place} cannot be put into a batch: {error}") from error
        head = f'{{"custom_id": {text_or_null(row_request.row.custom_id)}, "method": "POST", "url": "{url}", "body": '
        line = head.encode("ascii") + _payload_of(request) + b"}\n"
        row = row_request.row
        name = json_text([row.custom_id, row.number, row_request.hash, row.meta]).encode("ascii") + b"\n"
        weight, tokens = _weight_of(request), prompt_tokens(request)
        self._refuse_too_large(place, len(line), weight, tokens)
        part = self._open.get((url, model))
        if part is None or not part.fits(len(line), weight, tokens, self._limits):
            part = self._next_part(url, model)
        part.add(line, name, weight, tokens)

    def _refuse_too_large(self, place: str, size: int, weight: int, tokens: float) -> None:
        limits = self._limits
        for what, found, most in (
            ("bytes", size, limits.size),
            ("texts to embed", weight, limits.rows),
            ("tokens, by estimate", math.ceil(tokens), limits.tokens),
        ):
            if most is not None and found > most:
                raise ConfigurationError(f"{place} has {found:,} {what}, and a batch takes {most:,}: leave it out")

    def _next_part(self, url: str, model: str) -> _OpenPart:
        full = self._open.pop((url, model), None)
        if full is not None:
            full.close()
        if len(self._open) >= _MAX_GROUPS:
            raise ConfigurationError(
                f"the rows go to more than {_MAX_GROUPS} different models and endpoints, and a batch holds one of "
                "each: submit them in several inputs"
            )
        part = Part(self._first_number + len(self.parts), 0, url, model, 0)
        self.parts.append(part)
        opened = _OpenPart(part, *self._paths_of(part))
        self._open[url, model] = opened
        return opened

    def _paths_of(self, part: Part) -> Tuple[str, str]:
        return self._submission.input_path(part.number, self._name), self._submission.names_path(part.number)

    def _url_of(self, request: ChatRequest, place: str) -> str:
        path = request.path.removeprefix("/v1")
        if path not in _ENDPOINTS:
            raise ConfigurationError(
                f"{place} goes to {request.path}, and batches are for {', '.join(f'/v1{path}' for path in _ENDPOINTS)}"
            )
        return path if self._is_azure and path != RESPONSES else f"/v1{path}"

    def _remove_leftovers(self) -> None:
        """Remove input files of a process that was killed before its plan was whole."""
        for name in os.listdir(self._submission.folder):
            if name.startswith("chatpool-"):
                os.unlink(os.path.join(self._submission.folder, name))

    def _discard(self) -> None:
        for opened in self._open.values():
            opened.close()
        for part in self.parts:
            for path in self._paths_of(part):
                with contextlib.suppress(OSError):
                    os.unlink(path)
        self.parts = []


def _payload_of(request: ChatRequest) -> bytes:
    """Return the body of a request, with the content of the files that are attached."""
    payload = payload_of(request)
    if isinstance(payload, bytes):
        return payload
    with payload.opened() as opened:
        return opened if isinstance(opened, bytes) else bytes(opened.read())


def _model_of(request: ChatRequest, place: str) -> str:
    model = request.body.get("model")
    if not (isinstance(model, str) and model):
        raise ConfigurationError(f"{place} names no model: pass model= (--model NAME)")
    return model


def _weight_of(request: ChatRequest) -> int:
    """Return how many of the rows of a batch a request counts for: of embeddings, its texts."""
    texts = request.body.get("input")
    if not (is_embedding(request.path) and isinstance(texts, list) and texts):
        return 1
    return 1 if isinstance(texts[0], int) else len(texts)  # the tokens of one text


def read_names(path: str) -> Iterator[Tuple[str, RowName]]:
    """Yield the custom_id and the rest of each row of a part.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    with open(path, "rb", buffering=1 << 18) as file:
        for line in file:
            custom_id, number, hash_, meta = json.loads(line)
            yield custom_id, RowName(number, hash_, meta)
