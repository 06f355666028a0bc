"""The fallbacks of a method call, in order, and what is known of them in its run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..errors import ChatPoolError
from ..types import ChatRequest

__all__ = ["Alternative", "Fallback", "Fallbacks"]


class Fallback(NamedTuple):
    """One entry of ``fallbacks=``.

    Attributes:
        changes: body fields that are other ones than in the request; None for one that is left out.
        endpoint: the name of the only endpoint that it goes to; None for the endpoints of the request.
    """

    changes: Mapping[str, Any]
    endpoint: Optional[str] = None

    def applied_to(self, request: ChatRequest) -> ChatRequest:
        """Return the request that is sent in the place of ``request``."""
        if not self.changes:
            return request
        body = {name: value for name, value in {**request.body, **self.changes}.items() if self._keeps(name, value)}
        return replace(request, body=body)

    def _keeps(self, name: str, value: Any) -> bool:
        return value is not None or name not in self.changes


class Alternative(NamedTuple):
    """The request of a call, or a fallback.

    Attributes:
        number: of the fallback, 0 for the request itself.
        request: what is sent.
        endpoint: the only one that it goes to; None for the pool's choice.
    """

    number: int
    request: ChatRequest
    endpoint: Optional[str] = None


_FIELD_CODES = frozenset({"unknown_parameter", "unsupported_parameter", "unsupported_value"})


class _Refusal(NamedTuple):
    error: ChatPoolError
    fields: Mapping[str, Any]  # of the requests that it concerns; all, where it is empty


class Fallbacks:
    """The fallbacks of the calls of one method call; of those of a run also which requests are refused for all of them.

    Args:
        entries: the fallbacks, in order.
        is_of_run: whether they are those of a run.
    """

    def __init__(self, entries: Sequence[Fallback], *, is_of_run: bool = False) -> None:
        self.entries = tuple(entries)
        self._is_of_run = is_of_run
        self._refusals: Dict[Tuple[str, Optional[str], int], _Refusal] = {}

    def alternatives(self, request: ChatRequest) -> Iterator[Alternative]:
        """Return a request and its fallbacks, in order."""
        yield Alternative(0, request)
        for number, entry in enumerate(self.entries, 1):
            yield Alternative(number, entry.applied_to(request), entry.endpoint)

    def for_run(self) -> Fallbacks:
        """Return the same for the calls of a new run."""
        return Fallbacks(self.entries, is_of_run=True)

    def remember(self, request: ChatRequest, number: int, error: ChatPoolError, *, for_all: bool) -> None:
        """Note that the server refuses a fallback of a request. A single call tells nothing about others.

        Args:
            request: the caller's.
            number: of the fallback, 0 for the request itself.
            error: the refusal.
            for_all: whether it concerns every call of its model. If the error names a field that the server does not
                take, it concerns those that have it with the same value.
        """
        if not self._is_of_run or self.refusal(request, number) is not None:
            return
        field, fields = str(getattr(error, "param", None) or "").partition(".")[0].partition("[")[0], {}
        if getattr(error, "code", None) in _FIELD_CODES and field in request.body:
            fields[field] = request.body[field]
        if for_all or fields:
            self._refusals[request.path, request.model, number] = _Refusal(error, fields)

    def reason_to_skip(self, request: ChatRequest, number: int) -> Optional[ChatPoolError]:
        """Return why a fallback of a request is not worth sending, None where it is to be sent.

        If all that follow are refused too, and it is for a field, it is sent: each request with the field has its own
        failure, and those without it are none the worse.
        """
        rest = range(number + 1, len(self.entries) + 1)
        is_worthless = self.refuses_all(request, number) or any(self.refusal(request, other) is None for other in rest)
        return self.refusal(request, number) if is_worthless else None

    def refusal(self, request: ChatRequest, number: int) -> Optional[ChatPoolError]:
        """Return why the server refuses the fallback of a request with this number, None where it is not known to."""
        refusal = self._refusals.get((request.path, request.model, number)) if self._refusals else None
        if refusal is None or any(request.body.get(name) != value for name, value in refusal.fields.items()):
            return None
        return refusal.error

    def refuses_all(self, request: ChatRequest, number: int) -> bool:
        """Return whether the server refuses that fallback of every request to the model, and not for a field."""
        refusal = self._refusals.get((request.path, request.model, number))
        return refusal is not None and not refusal.fields
