"""Errors of chatpool: one tree.

Every class can be raised with nothing but a message, carries its facts as attributes,
and survives pickling with them.  A message says what happened, to which call, and what to do next.
"""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Dict, Optional, Type

from ._redaction import printable

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "CacheMissError",
    "CallCancelledError",
    "ChatPoolError",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterError",
    "DayLimitError",
    "DeadlineExceededError",
    "InsufficientQuotaError",
    "InternalServerError",
    "JournalBusyError",
    "JournalLostError",
    "LengthError",
    "NotFoundError",
    "ParseError",
    "PermissionDeniedError",
    "PoolClosedError",
    "RateLimitError",
    "Reask",
    "TooManyFailuresError",
    "TruncatedStreamError",
    "UnprocessableEntityError",
    "from_dict",
    "status_error_class",
]


class ChatPoolError(Exception):
    """Root of every error that chatpool raises for a call.

    Characters that a terminal might obey, and halves of surrogate pairs, are escapes in the message; other attributes
    have the server's text as it came.

    Attributes:
        attempts: exchanges that were sent for the call before it failed (0: none was sent).
        results: the :class:`~chatpool.Results` of the run, on an error raised by a run
            (``on_error="raise"``, :meth:`~chatpool.Results.raise_on_failure`); otherwise None.
        samples: of an item that was to get several answers (``samples=``) and did not get all: those that came, as the
            choices of one :class:`~chatpool.ChatCompletion`; otherwise None.
        advice: what a person can do about errors of this class (:meth:`~chatpool.Results.explain` shows it).
    """

    advice: ClassVar[str] = "read the message"
    attempts: int = 0
    results: Optional[Any] = None
    samples: Optional[Any] = None

    def __init__(self, message: str = "", *, attempts: int = 0) -> None:
        super().__init__(printable(str(message)))
        self.attempts = attempts

    @property
    def message(self) -> str:
        """The message, which says what happened and what to do next."""
        return str(self.args[0]) if self.args else ""

    def copied(self, prefix: str = "") -> ChatPoolError:
        """Return the same error for another call that ends because of it, with ``prefix`` before its message.

        This error is the copy's cause; the copy's ``attempts`` are 0.
        """
        copy = type(self)(prefix + self.message)
        copy.__dict__.update({name: value for name, value in self.__dict__.items() if name != "results"})
        copy.attempts = 0
        copy.__cause__ = self
        return copy

    def to_dict(self) -> Dict[str, Any]:
        """Return the error as a dict that JSON has a form for; :func:`~chatpool.errors.from_dict` makes it again.

        It has the class's name as ``error``, the ``message``, and those attributes that are a str, a number, True or
        False.  It has no answer, no server's body and no results.
        """
        facts = {name: value for name, value in self.__dict__.items() if name not in _CONTENT and _is_plain(value)}
        return {"error": type(self).__name__, "message": self.message, **facts}

    def __reduce__(self) -> Any:
        # The classes that are OSErrors or ValueErrors too would each reduce in their own way.
        return _rebuild, (type(self), self.args), self.__dict__


# Large, or none of a log's business.
_CONTENT = frozenset({"body", "completion", "prompt", "results", "samples", "text"})


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))


def from_dict(facts: Mapping[str, Any]) -> ChatPoolError:
    """Return the error that :meth:`ChatPoolError.to_dict` described.

    Names that are not known, of a later version for instance, do no harm: an unknown class gives a
    :class:`ChatPoolError`, and facts that the class does not have are left out.

    Args:
        facts: what ``to_dict`` returned, also after it has been JSON.

    Raises:
        TypeError: ``facts`` is no mapping.
    """
    if not isinstance(facts, Mapping):
        raise TypeError(f"facts must be a dict from ChatPoolError.to_dict(), got {type(facts).__name__}")
    cls = globals().get(str(facts.get("error")))
    if not (isinstance(cls, type) and issubclass(cls, ChatPoolError)):
        cls = ChatPoolError
    error = cls(str(facts.get("message", "")))
    known = {name for base in cls.__mro__ for name in getattr(base, "__annotations__", ())} - _CONTENT - {"advice"}
    error.__dict__.update({name: facts[name] for name in known if name in facts and _is_plain(facts[name])})
    return error


def _rebuild(cls: Type[ChatPoolError], args: Any) -> ChatPoolError:
    return cls(*args)


class APIError(ChatPoolError):
    """A call that reached for the server and did not get a usable answer.

    Attributes:
        status_code: HTTP status of the response, None when there was none.
        request_id: the server's ``x-request-id``, if it sent one.
        code: the server's machine-readable ``error.code`` (str, int or None).
        type: the server's ``error.type``.
        param: the server's ``error.param``: the request field it complains about.
        body: the decoded error body (a dict, or text cut to 2,000 characters), None without one. Of a good answer that
            is not JSON, to a path that is not known to answer with JSON (``pool.request``): all its bytes.
        retry_after: seconds the server asked to wait before the next attempt, None without a hint.
    """

    advice = "see the server's message"

    status_code: Optional[int]
    request_id: Optional[str]
    code: Any
    type: Optional[str]
    param: Optional[str]
    body: Any
    retry_after: Optional[float]

    def __init__(
        self,
        message: str = "",
        *,
        attempts: int = 0,
        status_code: Optional[int] = None,
        request_id: Optional[str] = None,
        code: Any = None,
        type: Optional[str] = None,  # noqa: A002 - the API's own name for it
        param: Optional[str] = None,
        body: Any = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message, attempts=attempts)
        self.status_code = status_code
        self.request_id = request_id
        self.code = code
        self.type = type
        self.param = param
        self.body = body
        self.retry_after = retry_after


class APIConnectionError(APIError):
    """No response: the server could not be reached, or the connection broke."""

    advice = "check that the server runs and that base_url and the proxy settings are right"


class APITimeoutError(APIConnectionError, TimeoutError):
    """One attempt took longer than ``Timeout.connect``, ``.read`` or ``.attempt`` allows."""

    advice = "raise timeout, ask for shorter answers, or lower max_workers"


class APIResponseError(APIError):
    """An answer that cannot be used: not JSON, an error inside a 200, or the expected field missing."""

    advice = "check that base_url points at an OpenAI-compatible API and not at a web page"


class TruncatedStreamError(APIError):
    """A stream that ended before the model had finished: cut off, reset, or broken by something that is no chunk.

    Attributes:
        text: the part of the answer that had arrived, "" for nothing.  It is not the whole answer.
    """

    advice = "run the failed items again; if all break at the same time, look for a proxy that cuts connections"

    text: str

    def __init__(self, message: str = "", *, text: str = "", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.text = text


class _RejectedAnswer(APIError):
    """A whole answer that the call rejects: it was paid for and is kept."""

    text: str
    completion: Optional[Any]

    def __init__(self, message: str = "", *, text: str = "", completion: Optional[Any] = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.text = text or getattr(completion, "text", "")
        self.completion = completion


class ParseError(_RejectedAnswer):
    """``parse=`` could not use the answer, nor those of the ``max_reasks`` reasks.

    An exception of ``parse=`` that is not about the answer ends the call at once: :class:`Reask`, ``ValueError``,
    ``TypeError``, ``LookupError`` and ``AssertionError`` are about it, a database's are not.  It is the ``__cause__``,
    and the model does not get it.

    Attributes:
        text: the last answer's text.
        completion: the last answer (:class:`~chatpool.ChatCompletion`), None where there is none.
        reason: the fault of the answer, as the model got it; or what ``parse=`` raised.
    """

    advice = "look at the answer (.text) and at what parse= made of it (.reason), or raise max_reasks"

    reason: str

    def __init__(self, message: str = "", *, reason: str = "", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.reason = reason


class Reask(Exception):
    """Raise it in ``parse=`` for a reask: ``raise chatpool.Reask("The title must be in French.")``.

    The model gets its message whole, after "Your answer cannot be used:" and before the request for the whole answer,
    put right.  After ``max_reasks`` further answers the call ends with a :class:`ParseError`.

    Args:
        words: message for the model. Default: that the answer is not what was asked for.
    """

    def __init__(self, words: str = "") -> None:
        super().__init__(words)


class LengthError(_RejectedAnswer):
    """The answer ended at the token limit (``finish_reason`` ``"length"``), which ``accept=`` rejects.

    Attributes:
        text: the answer's text as far as it goes.
        completion: the answer (:class:`~chatpool.ChatCompletion`), None where there is none.
    """

    advice = "raise max_tokens (or max_completion_tokens), ask for a shorter answer, or accept 'length'"


class ContentFilterError(_RejectedAnswer):
    """A content filter cut the answer (``finish_reason`` ``"content_filter"``), which ``accept=`` rejects.

    Attributes:
        text: the answer's text as far as it goes.
        completion: the answer (:class:`~chatpool.ChatCompletion`), None where there is none.
    """

    advice = "change the prompt, or accept 'content_filter'"


class APIStatusError(APIError):
    """The server answered with an error status for which there is no other class."""

    advice = "see the server's message"


class BadRequestError(APIStatusError):
    """400: the request is wrong, for instance longer than the model's context."""

    advice = "change the request: it is refused as it is"


class AuthenticationError(APIStatusError):
    """401: the key is missing or not accepted."""

    advice = "check the API key (OPENAI_API_KEY or api_key=)"


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""

    advice = "use a key that may use this model from this place"


class NotFoundError(APIStatusError):
    """404: no such model or path; the base_url may lack its ``/v1``."""

    advice = "check the model name and that base_url ends as the server expects, usually in /v1"


class ConflictError(APIStatusError):
    """409: a conflict on the server; it is retried."""

    advice = "run the failed items again"


class UnprocessableEntityError(APIStatusError):
    """422: the body has the right form but a wrong content."""

    advice = "change the request: a field has a value the server does not take"


class RateLimitError(APIStatusError):
    """429: too many requests or tokens."""

    advice = "lower max_workers, or run the failed items again later"


class DayLimitError(RateLimitError):
    """A limit per day is used up, or one for longer: the server's, or that of the pool's own ``Limits``.

    The call was not sent, or refused, and counts as not sent in journals: the same run goes on with it later.

    Attributes:
        resume_at: when there is room again, in seconds since the epoch; None where that is not known.
    """

    advice = "run what is left again at the time that the message names, or pass wait_for_day=True"

    resume_at: Optional[float]

    def __init__(self, message: str = "", *, resume_at: Optional[float] = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.resume_at = resume_at


class InsufficientQuotaError(RateLimitError):
    """No credit left: waiting does not help, a person has to act."""

    advice = "add credit to the account, then run the failed items again"


class InternalServerError(APIStatusError):
    """Any 5xx: the server or a gateway before it failed."""

    advice = "run the failed items again later"


class DeadlineExceededError(ChatPoolError, TimeoutError):
    """``Timeout.total``, ``run_timeout`` or :func:`chatpool.deadline` ran out before the call had an answer."""

    advice = "raise timeout (total), run_timeout or the deadline that the message names"


class CallCancelledError(ChatPoolError, concurrent.futures.CancelledError):
    """The call was cancelled: with its run, by Ctrl-C, an exception or another call's failure, or with its pool, which
    was shut down before it was sent.

    Attributes:
        text: of a stream that was left before its end: what had come of it. "" for all others.
    """

    advice = "run the cancelled items again"

    text: str = ""


class PoolClosedError(ChatPoolError, RuntimeError):
    """The pool is closed, or was aborted while the call was under way."""

    advice = "make a new pool"


class BudgetExceededError(ChatPoolError):
    """The pool's ``budget=`` is used up; the call was not sent."""

    advice = "raise the budget (budget=) and run the remaining items again"


class CacheMissError(ChatPoolError):
    """``Cache(offline=True)`` sends nothing, and there is no answer to the request in its file.

    Attributes:
        path: the path of the request.
        model: its model, None without one.
        prompt: the beginning of its prompt, "" where it has none.
    """

    advice = "make the call once without offline=True, so that its answer is kept"

    path: str
    model: Optional[str]
    prompt: str

    def __init__(
        self, message: str = "", *, attempts: int = 0, path: str = "", model: Optional[str] = None, prompt: str = ""
    ) -> None:
        super().__init__(message, attempts=attempts)
        self.path = path
        self.model = model
        self.prompt = prompt


class TooManyFailuresError(ChatPoolError):
    """Too many items of a run failed (``max_failures=``): the others were not sent.

    Its cause is the error of the last item that had failed.
    """

    advice = "put right what the items' errors say, or raise max_failures (None: however many fail)"


class ConfigurationError(ChatPoolError, ValueError):
    """A setting or an argument that cannot work; the message names it and what to do."""

    advice = "correct the argument that the message names"


class JournalBusyError(ConfigurationError):
    """The output or the journal of a run is in use by another process; nothing was sent.

    Attributes:
        path: the file that is in use, or the folder of a shard's answers.
        pid: the process that uses it, None where that is not known.
        host: the host of that process, None where that is not known.
    """

    advice = "wait until the other run has ended, or choose another output"

    path: str
    pid: Optional[int]
    host: Optional[str]

    def __init__(
        self,
        message: str = "",
        *,
        attempts: int = 0,
        path: str = "",
        pid: Optional[int] = None,
        host: Optional[str] = None,
    ) -> None:
        super().__init__(message, attempts=attempts)
        self.path = path
        self.pid = pid
        self.host = host


class JournalLostError(JournalBusyError):
    """A shard was taken over by another process, as this one was stopped or cut off for a minute.

    Whatever waits while another process has a shard may do so here, too: what this process had written by then is kept,
    and the other one goes on from there.  Requests that were in flight are sent again.
    """

    advice = "nothing: the other process goes on with the shard"


# OpenAI's class names by HTTP status (https://platform.openai.com/docs/guides/error-codes).
_BY_STATUS: Dict[int, Type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status: int) -> Type[APIStatusError]:
    """Return the class for an HTTP error status: OpenAI's name for it, :class:`APIStatusError` for the rest."""
    if status >= 500:
        return InternalServerError
    return _BY_STATUS.get(status, APIStatusError)
