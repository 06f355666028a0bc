"""The Batch API's calls: files up and down, batches begun, looked at, looked for and cancelled.

Beginning something at the server may not be repeated blindly: the answer to a request can be lost after the server has
acted on it.  So these calls are sent once, and whatever is left open by their end is looked up before anything is sent
again: a file by its name, a batch by its metadata.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NoReturn, Optional, TypeVar
from urllib.parse import urlsplit

from .._client.batch_support import ChatPool, base_urls, timeout_of, with_response_limit
from .._redaction import printable
from ..clock import Clock, current_clock
from ..errors import (
    APIError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
)
from .submission_journal import Submission
from .submission_objects import Batch, batch_of, id_in, id_of, is_limit, is_named, is_passing
from .submission_part import Part

__all__ = ["BatchService", "refuse_metadata", "sleep"]

_MAX_METADATA, _NAME_CHARACTERS, _VALUE_CHARACTERS = 16, 64, 512  # of the API
_METADATA = ("chatpool_submission", "chatpool_part", "chatpool_try")
_LOOK_AGAIN_SECONDS = (2.0, 10.0, 30.0)  # after an answer was lost
_SECOND_LOOK_SECONDS = 10.0  # after one that has found nothing
_TRANSFER_SECONDS = 3600.0  # for 200 MB and more over a slow line, at least; limits of a pool are for answers
_MAX_FILE_BYTES = 50_000_000_000  # of answers
_FILE_READY_SECONDS = 600.0  # for which Azure may check a file, at most
_FILE_POLL_SECONDS = 2.0
_PENDING_FILE = frozenset({"pending", "running", "notRunning"})
_PAGE_BATCHES = 100
_MAX_PAGES = 1000
_CLOCK_DIFFERENCE_SECONDS = 86400.0  # between the server and this host, at most
_PROBLEM_CHARACTERS = 800
_AZURE_HOSTS = (".azure.com", ".azure.us", ".azure.cn")

ValueT = TypeVar("ValueT")


class BatchService:
    """The Batch API of a pool's server.

    Args:
        pool: makes the calls.

    Attributes:
        server: the base URL.
        is_azure: whether it is Azure's.

    Raises:
        ConfigurationError: the pool has several endpoints, or one that has no files and batches.
    """

    def __init__(self, pool: ChatPool) -> None:
        urls = base_urls(pool)
        if len(urls) > 1:
            raise ConfigurationError(
                f"the pool has {len(urls)} endpoints, and a batch belongs to one server: pass a pool with one"
            )
        if "/deployments/" in f"{urls[0].path}/":
            raise ConfigurationError(
                "files and batches are not below a deployment of Azure: leave deployment out "
                "(ChatPool.azure(endpoint)), and name it as the model"
            )
        self.server = urls[0].geturl()
        self.is_azure = (urls[0].hostname or "").endswith(_AZURE_HOSTS) or urls[0].path.startswith("/openai")
        self._pool = pool
        calls = timeout_of(pool)
        seconds = max(calls.attempt, _TRANSFER_SECONDS)
        self._transfer_timeout = replace(calls, attempt=seconds, total=max(calls.total, 2 * seconds))
        self._clock = current_clock()

    @classmethod
    def of(cls, pool: ChatPool, submission: Submission) -> BatchService:
        """Return the Batch API that a submission is at.

        Raises:
            ConfigurationError: the pool is one of another server.
        """
        service = cls(pool)
        assert submission.plan is not None
        if service.server != submission.plan.server:
            raise ConfigurationError(
                f"the batches are at {submission.plan.server}, and this pool is for {service.server}: pass the "
                "base_url that they were submitted with"
            )
        return service

    # -- files ----------------------------------------------------------------------------------------------

    def upload(self, submission: Submission, part: Part, *, in_doubt: bool) -> str:
        """Upload the input file of a part and return its id, once it can be used.

        Args:
            submission, part: whose file.
            in_doubt: whether an earlier upload may have succeeded: then it is looked for first.

        Raises:
            ChatPoolError: the server refuses it, or cannot be reached.
        """
        path = Path(submission.input_path(part.number))

        def look() -> Optional[Dict[str, Any]]:
            return next(
                (file for file in self._pages("/files", {"purpose": "batch"}) if is_named(file, path.name)), None
            )

        def send() -> Dict[str, Any]:
            answer = self._request("/files", {"purpose": "batch"}, files={"file": path}, timeout=self._transfer_timeout)
            id_in(answer, "/files")
            return dict(answer)

        return self._ready(self._once(look, send, in_doubt=in_doubt))

    def _ready(self, file: Mapping[str, Any]) -> str:
        """Return the id of an uploaded file once it is checked: Azure takes no batch of it before."""
        file_id, ends_at = id_in(file, "/files"), self._clock.now() + _FILE_READY_SECONDS
        while file.get("status") in _PENDING_FILE:
            if self._clock.now() >= ends_at:
                raise APIError(f"the uploaded file {file_id} is not ready after {_FILE_READY_SECONDS:g} s", body=file)
            sleep(self._clock, _FILE_POLL_SECONDS)
            answer = self._pool.request(f"/files/{file_id}", method="GET")
            file = answer if isinstance(answer, dict) else {}
        if file.get("status") == "error":
            details = printable(str(file.get("status_details") or "without a reason"))[:_PROBLEM_CHARACTERS]
            raise APIError(f"the server cannot use the uploaded file {file_id}: {details}", body=file)
        return file_id

    def download(self, file_id: str, path: str) -> bool:
        """Write the content of a file to ``path``; return False if the server has no such file.

        Raises:
            ChatPoolError: it cannot be fetched.
        """
        # The limit of a pool is for answers in memory, and 50,000 embeddings are a gigabyte.
        with with_response_limit(self._pool, _MAX_FILE_BYTES) as pool:
            try:
                pool.request(
                    f"/files/{file_id}/content", method="GET", response=Path(path), timeout=self._transfer_timeout
                )
            except NotFoundError:
                return False
            return True

    # -- batches --------------------------------------------------------------------------------------------

    def create(self, submission: Submission, part: Part, *, in_doubt: bool) -> Batch:
        """Create the batch of a part, or find the one that was created already.

        Args:
            submission, part: whose batch.
            in_doubt: whether an earlier call may have succeeded: then it is looked for first.

        Raises:
            ChatPoolError: the server refuses it, or cannot be reached.
        """
        assert submission.plan is not None
        plan, own = submission.plan, _own_metadata(submission, part)
        body = {
            "input_file_id": part.file_id,
            "endpoint": part.url,
            "completion_window": plan.completion_window,
            "metadata": {**plan.metadata, **own},
        }
        # Not every server knows the header; where it does, even two requests make one batch.
        headers = {"Idempotency-Key": "-".join(("chatpool", *own.values()))}
        return self._once(
            lambda: self.find(submission, part),
            lambda: batch_of(self._request("/batches", body, headers=headers)),
            in_doubt=in_doubt,
        )

    def find(self, submission: Submission, part: Part) -> Optional[Batch]:
        """Return the batch of a part that was created although no answer came; None if there is none.

        Raises:
            ChatPoolError: the server cannot be reached.
        """
        assert submission.plan is not None
        own = _own_metadata(submission, part)
        for batch in self._pages("/batches", {"limit": str(_PAGE_BATCHES)}, since=submission.plan.at):
            metadata = batch.get("metadata")
            if isinstance(metadata, dict) and metadata:
                is_own = {name: metadata.get(name) for name in own} == own
            else:  # a server may keep none; no other batch is of this file
                is_own = batch.get("input_file_id") == part.file_id and batch.get("id") not in part.former_ids
            if is_own:
                return batch_of(batch)
        return None

    def look_at(self, batch_id: str) -> Batch:
        """Return a batch as it is now.

        Raises:
            ChatPoolError: the server does not know it, or cannot be reached.
        """
        try:
            return batch_of(self._pool.request(f"/batches/{batch_id}", method="GET"))
        except NotFoundError as error:
            raise _with_advice(
                error, f"the server knows no batch {batch_id}: is the key one of the project that has submitted it?"
            ) from error

    def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch; one that has ended meanwhile is returned as it is.

        Raises:
            ChatPoolError: the server cannot be reached.
        """
        try:
            return batch_of(self._pool.request(f"/batches/{batch_id}/cancel", {}))
        except (BadRequestError, ConflictError):
            return self.look_at(batch_id)

    # -- calls ----------------------------------------------------------------------------------------------

    def _once(self, look: Callable[[], Optional[ValueT]], send: Callable[[], ValueT], *, in_doubt: bool) -> ValueT:
        """Return what ``send`` makes, or what ``look`` finds where an earlier one may have made it."""
        found = self._look_twice(look) if in_doubt else None
        if found is not None:
            return found
        for pause in (*_LOOK_AGAIN_SECONDS, None):
            try:
                return send()
            except APIError as error:
                if pause is None or is_limit(error) or not is_passing(error):
                    raise
            sleep(self._clock, pause)
            found = self._look_twice(look)
            if found is not None:
                return found
        raise AssertionError("the last try returns or raises")

    def _look_twice(self, look: Callable[[], Optional[ValueT]]) -> Optional[ValueT]:
        """Look, and once more after a pause: the server may still be at work on the request."""
        found = look()
        if found is None:
            sleep(self._clock, _SECOND_LOOK_SECONDS)
            found = look()
        return found

    def _request(self, path: str, body: Mapping[str, Any], **options: Any) -> Any:
        """Send a request that begins something, once."""
        try:
            return self._pool.request(path, body, retry=0, **options)
        except NotFoundError as error:
            self._refuse_missing(path, error)

    def _refuse_missing(self, path: str, error: NotFoundError) -> NoReturn:
        raise _with_advice(
            error,
            f"{urlsplit(self.server).netloc} has no Batch API (POST {path}: 404), or base_url lacks its /v1: answer "
            "the rows with chatpool run; vLLM's own form of it is the program vllm run-batch",
        ) from error

    def _pages(self, path: str, query: Mapping[str, str], since: Optional[float] = None) -> Iterator[Dict[str, Any]]:
        """Yield the entries of a list, the newest first, down to those that are older than ``since``."""
        after: Dict[str, str] = {}
        for _ in range(_MAX_PAGES):
            answer = self._pool.request(path, method="GET", query={**query, **after})
            entries = answer.get("data") if isinstance(answer, dict) else None
            page: List[Dict[str, Any]] = [each for each in entries or () if isinstance(each, dict)]
            yield from page
            last = page[-1] if page else {}
            created = last.get("created_at")
            if since is not None and isinstance(created, (int, float)) and created < since - _CLOCK_DIFFERENCE_SECONDS:
                return
            last_id = id_of(last.get("id"))
            if not answer.get("has_more") or last_id is None or last_id == after.get("after"):
                return
            after = {"after": last_id}


def refuse_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse metadata that a batch cannot have beside ours.

    Raises:
        TypeError, ConfigurationError: it has another form, too many names, or a text that is too long or taken.
    """
    room = _MAX_METADATA - len(_METADATA)
    if len(metadata) > room:
        raise ConfigurationError(f"metadata must have {room} names at most, got {len(metadata)}")
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"metadata must map texts to texts, got {name!r}: {value!r}")
        if len(name) > _NAME_CHARACTERS or len(value) > _VALUE_CHARACTERS or name in _METADATA:
            raise ConfigurationError(
                f"metadata must have names of {_NAME_CHARACTERS} characters and texts of {_VALUE_CHARACTERS} at most, "
                f"and none of {', '.join(_METADATA)}: {name[:_NAME_CHARACTERS]!r} is not so"
            )


def _own_metadata(submission: Submission, part: Part) -> Dict[str, str]:
    """Return the metadata by which a batch is found again."""
    assert submission.plan is not None
    facts = (submission.plan.name, str(part.number), str(part.refusals + 1))
    return dict(zip(_METADATA, facts))


def sleep(clock: Clock, seconds: float) -> None:
    """Wait on a clock; Ctrl-C ends it."""
    ends_at, condition = clock.now() + seconds, threading.Condition()
    while True:
        left = ends_at - clock.now()
        if left <= 0:
            return
        with condition:
            clock.wait(condition, left)


def _with_advice(error: APIError, message: str) -> APIError:
    copy = type(error)(message)
    copy.__dict__.update(error.__dict__)
    return copy
