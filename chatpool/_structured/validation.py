"""``parse=``, ``accept=`` and ``max_reasks=``: what an answer has to be, and what follows when it is not."""

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

__all__ = ["MAX_REASKS", "PARSE_FAILED", "Accept", "AnswerReview", "AnswerRules", "reviewer_of"]

Accept = Union[str, Collection[Optional[str]]]
"""The finish reasons of answers that are taken; None in it is a missing one."""

MAX_REASKS = 2

PARSE_FAILED = "parse failed"
"""The reason of a :class:`~chatpool._engine.Review` where another answer may be better."""

_ACCEPT = (STOP, TOOL_CALLS)


class AnswerRules(NamedTuple):
    """The three keywords as they were given, for another place or another process."""

    parse: Optional[Parse] = None
    max_reasks: Optional[int] = None
    accept: Optional[Accept] = None

    def reviewer(self) -> Optional[Reviewer]:
        """See :func:`reviewer_of`."""
        return reviewer_of(*self)


def reviewer_of(
    parse: Optional[Parse], max_reasks: Optional[int] = None, accept: Optional[Accept] = None
) -> Optional[Reviewer]:
    """What looks at answers, None where all are taken.

    Args:
        parse: see :func:`~chatpool._structured.parse.parser_of`; None makes nothing of them.
        max_reasks: how often an answer that makes no value is asked again; None: twice.
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
    return AnswerReview(parser, MAX_REASKS if max_reasks is None else max_reasks, reasons)


def _reasons(accept: Any) -> FrozenSet[Optional[str]]:
    given: Tuple[Any, ...] = (accept,) if isinstance(accept, str) or not isinstance(accept, Collection) else (*accept,)
    if not given or not all(isinstance(reason, (str, type(None))) for reason in given):
        raise TypeError(f"accept must be finish reasons such as ('stop', 'tool_calls'), got {accept!r}")
    return frozenset(given)


class AnswerReview:
    """Looks at answers, in any number of threads; values that are no :class:`~chatpool.ChatCompletion` are taken.

    Args:
        parser: makes a value of an answer's text, for ``.parsed``; None makes none.
        max_reasks: how often a call is asked again at most.
        accept: the finish reasons of answers that are taken.
    """

    def __init__(self, parser: Optional[Parser], max_reasks: int, accept: FrozenSet[Optional[str]]) -> None:
        self._parser = parser
        self._max_reasks = max_reasks
        self._accept = accept

    def __call__(self, request: ChatRequest, value: Any, reasks: int) -> Review:
        """What becomes of an answer; see :data:`~chatpool._engine.call.Reviewer`."""
        if not isinstance(value, ChatCompletion):
            return Review(value)
        ending = finish_reason_of(value)
        if not self._accepts(value.finish_reason, ending):
            return Review(error=self._not_accepted(value, ending), reason=f"ended by {ending.meaning[:40]}")
        # An answer that calls tools is not the last word; what it says besides is no value.
        if self._parser is None or value.tool_calls or ending.meaning == TOOL_CALLS:
            return Review(value)
        failure = self._parse(value)
        return Review(value) if failure is None else self._after(failure, request, value, reasks)

    def _accepts(self, said: Optional[str], ending: FinishReason) -> bool:
        return ending.meaning in self._accept or (said in self._accept and not ending.refusal)

    def _not_accepted(self, value: ChatCompletion, ending: FinishReason) -> APIError:
        facts: Dict[str, Any] = {"completion": value, "status_code": HTTP_OK, "request_id": value.request_id}
        if ending.meaning == LENGTH:
            return LengthError(f"the answer was cut at the token limit; {LengthError.advice}", **facts)
        if ending.refusal:
            message = f"the model refused to answer; {ContentFilterError.advice}"
            return ContentFilterError(message, text=ending.refusal, **facts)
        if ending.meaning == CONTENT_FILTER:
            return ContentFilterError(f"a content filter cut the answer; {ContentFilterError.advice}", **facts)
        del facts["completion"]
        accepted = ", ".join(sorted(map(repr, self._accept)))
        message = f"the answer ended with finish_reason {value.finish_reason!r}; accept= takes {accepted}"
        return APIResponseError(message, **facts)

    @runs_user_code
    def _parse(self, value: ChatCompletion) -> Optional[BaseException]:
        assert self._parser is not None
        try:
            value.parsed = self._parser(value.text)
            self._parse_further(value)
            return None
        except BaseException as error:
            # A SystemExit of a callback's ends no worker; Ctrl-C, which comes to the main thread only, passes.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            return error

    @runs_user_code
    def _parse_further(self, value: ChatCompletion) -> None:
        """Make values of the other choices' texts (``n=``), where that is possible: the first decides on the answer."""
        assert self._parser is not None
        for choice in value.choices[1:]:
            with contextlib.suppress(Exception):
                choice.parsed = self._parser(choice.text)

    def _after(self, failure: BaseException, request: ChatRequest, value: ChatCompletion, reasks: int) -> Review:
        reason, is_of_answer = reason_of(failure), can_be_mended(failure)
        if is_of_answer and reasks < self._max_reasks:
            again = reask_request(request, value, reason)
            if again is not None:
                return Review(request=again, reason=PARSE_FAILED)
        times = "" if not reasks else f", asked {reasks + 1} times"
        if is_of_answer:
            message = f"parse= could make nothing of the answer{times}: {reason}"
        else:
            message = f"parse= raised {reason}{times}; the answer is kept (.text), and the model is not asked again"
        error = ParseError(message, reason=reason, completion=value, status_code=HTTP_OK, request_id=value.request_id)
        error.__cause__ = failure
        return Review(error=error, reason=PARSE_FAILED if is_of_answer else "parse raised")
