"""The keywords ``parse=``, ``accept=`` and ``max_reasks=``: what they take, and the reviewer that they stand for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, FrozenSet, NamedTuple, Optional, Tuple, Union

from .._engine import Reviewer
from .._typing import Parse
from .._wire.response import STOP, TOOL_CALLS

__all__ = ["Accept", "AnswerRules", "reviewer_of"]

Accept = Union[str, Collection[Optional[str]]]
"""The finish reasons of answers that are accepted; None in it is a missing one."""

_MAX_REASKS = 2

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
    from .answer_review import AnswerReview  # the parsers: programs that parse nothing need not import them

    reasons = frozenset(_ACCEPT) if accept is None else _reasons(accept)
    return AnswerReview(parse, _MAX_REASKS if max_reasks is None else max_reasks, reasons)


def _reasons(accept: Any) -> FrozenSet[Optional[str]]:
    is_one = isinstance(accept, str) or not isinstance(accept, Collection)
    reasons: Tuple[Any, ...] = (accept,) if is_one else (*accept,)
    if not reasons or not all(isinstance(reason, (str, type(None))) for reason in reasons):
        raise TypeError(f"accept must be finish reasons such as ('stop', 'tool_calls'), got {accept!r}")
    return frozenset(reasons)
