"""``parse=``, ``accept=`` and ``max_reasks=``: answers are accepted, parsed, asked for again, or refused."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Collection, Dict, FrozenSet, NamedTuple, Optional, Tuple, Union

from .._engine import Review, Reviewer
from .._reentrancy import runs_user_code
from .._wire.request import reask_request
from .._wire.response import CONTENT_FILTER, HTTP_OK, LENGTH, STOP, TOOL_CALLS, FinishReason, finish_reason_of
from ..errors import APIError, APIResponseError, ContentFilterError, LengthError, ParseError
from ..types import ChatCompletion, ChatRequest
from .json_text import can_be_mended
from .parse import Parse, Parser, parser_of, reason_of

__all__ = ["PARSE_FAILED", "Accept", "AnswerRules", "reviewer_of"]

Accept = Union[str, Collection[Optional[str]]]
"""The finish reasons of answers that are accepted; None in it is a missing one."""

_MAX_REASKS = 2

PARSE_FAILED = "parse failed"
"""The reason of a :class:`~chatpool._engine.Review` where another answer may be better."""

_ACCEPT = (STOP, TOOL_CALLS)


class AnswerRules(NamedTuple):
    """The three keywords as the caller passed them, for another process, say."""

    parse: Optional[Parse] = None
    max_reasks: Optional[int] = None
    accept: Optional[Accept] = None

    def reviewer(self) -> Optional[Reviewer]:
        """Return the reviewer; see :func:`reviewer_of`."""
        return reviewer_of(*self)


def reviewer_of(
    parse: Optional[Parse], max_reasks: Optional[int] = None, accept: Optional[Accept] = None
) -> Optional[Reviewer]:
    """Return the reviewer of answers, None if all of them are accepted.

    Args:
        parse: see :func:`~chatpool._structured.parse.parser_of`; None makes nothing of them.
        max_reasks: how often a call is asked again for an answer that can be parsed; None: twice.
        accept: finish reasons; None: ``("stop", "tool_calls")`` with ``parse``, and all without.

    Raises:
        TypeError, ConfigurationError: a value that cannot work; the message names the keyword.
    """
    if max_reasks is not None:
        if isinstance(max_reasks, bool) or not isinstance(max_reasks, int) or max_reasks < 0:
            raise TypeError(f"max_reasks must be a whole number, 0 or more, got {max_reasks!r}")
        if parse is None:
            raise TypeError("max_reasks has no effect without parse=")
    if parse is None and accept is None:
        return None
    parser = None if parse is None else parser_of(parse)
    reasons = frozenset(_ACCEPT) if accept is None else _reasons(accept)
    return _AnswerReview(parser, _MAX_REASKS if max_reasks is None else max_reasks, reasons)


def _reasons(accept: Any) -> FrozenSet[Optional[str]]:
    is_one = isinstance(accept, str) or not isinstance(accept, Collection)
    reasons: Tuple[Any, ...] = (accept,) if is_one else (*accept,)
    if not reasons or not all(isinstance(reason, (str, type(None))) for reason in reasons):
        raise TypeError(f"accept must be finish reasons such as ('stop', 'tool_calls'), got {accept!r}")
    return frozenset(reasons)


class _AnswerReview:
    """Review answers, in any number of threads; values that are no :class:`~chatpool.ChatCompletion` are accepted.

    Args:
        parser: makes a value of an answer's text, for ``.parsed``; None makes none.
        max_reasks: how often a call is asked again at most.
        accept: the finish reasons of answers that are accepted.
    """

    def __init__(self, parser: Optional[Parser], max_reasks: int, accept: FrozenSet[Optional[str]]) -> None:
        self._parser = parser
        self._max_reasks = max_reasks
        self._accept = accept

    def __call__(self, request: ChatRequest, value: Any, reasks: int) -> Review:
        """Review an answer; see :data:`~chatpool._engine.call.Reviewer`."""
        if not isinstance(value, ChatCompletion):
            return Review(value)
        finish_reason = finish_reason_of(value)
        if not self._accepts(value.finish_reason, finish_reason):
            error = self._not_accepted(value, finish_reason)
            return Review(error=error, reason=f"ended by {finish_reason.meaning[:40]}")
        # An answer that calls tools is not the final one: its text is not parsed.
        if self._parser is None or value.tool_calls or finish_reason.meaning == TOOL_CALLS:
            return Review(value)
        failure = self._parse(value)
        return Review(value) if failure is None else self._after(failure, request, value, reasks)

    def _accepts(self, servers_word: Optional[str], finish_reason: FinishReason) -> bool:
        return finish_reason.meaning in self._accept or (servers_word in self._accept and not finish_reason.refusal)

    def _not_accepted(self, value: ChatCompletion, finish_reason: FinishReason) -> APIError:
        error_facts: Dict[str, Any] = {"completion": value, "status_code": HTTP_OK, "request_id": value.request_id}
        if finish_reason.meaning == LENGTH:
            return LengthError(f"the answer was cut at the token limit; {LengthError.advice}", **error_facts)
        if finish_reason.refusal:
            message = f"the model refused to answer; {ContentFilterError.advice}"
            return ContentFilterError(message, text=finish_reason.refusal, **error_facts)
        if finish_reason.meaning == CONTENT_FILTER:
            return ContentFilterError(f"a content filter cut the answer; {ContentFilterError.advice}", **error_facts)
        del error_facts["completion"]
        accepted = ", ".join(sorted(map(repr, self._accept)))
        message = f"the answer ended with finish_reason {value.finish_reason!r}; accept= takes {accepted}"
        return APIResponseError(message, **error_facts)

    @runs_user_code
    def _parse(self, value: ChatCompletion) -> Optional[BaseException]:
        assert self._parser is not None
        try:
            value.parsed = self._parser(value.text)
            self._parse_further(value)
            return None
        except BaseException as error:
            # A SystemExit of a callback must not end a worker; Ctrl-C, which comes to the main thread only, passes.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            return error

    @runs_user_code
    def _parse_further(self, value: ChatCompletion) -> None:
        """Parse the other choices (``n=``) where that is possible: only the first one decides on the answer."""
        assert self._parser is not None
        for choice in value.choices[1:]:
            with contextlib.suppress(Exception):
                choice.parsed = self._parser(choice.text)

    def _after(self, failure: BaseException, request: ChatRequest, value: ChatCompletion, reasks: int) -> Review:
        reason, is_of_answer = reason_of(failure), can_be_mended(failure)
        if is_of_answer and reasks < self._max_reasks:
            next_request = reask_request(request, value, reason)
            if next_request is not None:
                return Review(request=next_request, reason=PARSE_FAILED)
        times = "" if not reasks else f", asked {reasks + 1} times"
        if is_of_answer:
            message = f"parse= could make nothing of the answer{times}: {reason}"
        else:
            message = f"parse= raised {reason}{times}; the answer is kept (.text), and the model is not asked again"
        error = ParseError(message, reason=reason, completion=value, status_code=HTTP_OK, request_id=value.request_id)
        error.__cause__ = failure
        reason = PARSE_FAILED if is_of_answer else "parse raised"
        return Review(error=error, reason=reason, is_of_answer=is_of_answer)
