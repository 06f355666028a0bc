"""The reviewer of answers: they are accepted, parsed, asked for again, or refused."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Dict, FrozenSet, Optional

from .._engine import Review
from .._reentrancy import runs_user_code
from .._typing import Parse
from .._wire.request import reask_request
from .._wire.response import CONTENT_FILTER, HTTP_OK, LENGTH, TOOL_CALLS, FinishReason, finish_reason_of
from ..errors import APIError, APIResponseError, ContentFilterError, LengthError, ParseError
from ..types import ChatCompletion, ChatRequest
from .json_text import can_be_mended
from .parse import parser_of, reason_of

__all__ = ["PARSE_FAILED", "AnswerReview"]

PARSE_FAILED = "parse failed"
"""The reason of a :class:`~chatpool._engine.Review` where another answer may be better."""


class AnswerReview:
    """Review answers, in any number of threads; values that are no :class:`~chatpool.ChatCompletion` are accepted.

    Args:
        parse: see :func:`~chatpool._structured.parse.parser_of`; it makes ``.parsed``. None makes nothing.
        max_reasks: how often a call is asked again at most.
        accept: the finish reasons of answers that are accepted.
    """

    def __init__(self, parse: Optional[Parse], max_reasks: int, accept: FrozenSet[Optional[str]]) -> None:
        self._parser = None if parse is None else parser_of(parse)
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
