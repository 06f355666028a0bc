"""``n`` of requests, where the pool itself asks for several answers: lowered to what each server gives.

Servers refuse ``n``, or more than a number of their own, or ignore it; models of one server differ in that.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Union

from .._values import LazyBody
from .._wire import is_success
from .._wire.sampling import MAX_CHOICES, TOO_MANY, choices_wanted, may_refuse_choices, with_choices
from ..types import ChatRequest
from .call import Call, UpstreamKey

__all__ = ["ChoiceLimits"]

_Encode = Callable[[ChatRequest], Union[bytes, LazyBody]]


class ChoiceLimits:
    """The number of answers that each upstream gives to one request, as far as its answers have shown.

    It is shared by all workers without a lock: each step is atomic, and none depends on the one before.
    """

    def __init__(self) -> None:
        self._most: Dict[UpstreamKey, int] = {}
        self._given: Dict[UpstreamKey, int] = {}

    def most(self, key: UpstreamKey) -> int:
        """Return how many answers one request may ask an upstream for."""
        return self._most.get(key, MAX_CHOICES)

    def note(self, key: UpstreamKey, asked: int, given: int) -> None:
        """Note an answer.  Fewer choices than ``asked`` may be a fault of this one; a single one is ignorance of n."""
        if given > 1:
            self._given[key] = max(given, self._given.get(key, 1))
        elif asked > 1 and key not in self._given:
            self._most[key] = 1

    def exchange(self, call: Call, send: Callable[[], Any], encode: _Encode, count: Callable[[], None]) -> Any:
        """Send a call that asks for several answers; again for fewer, down to one, where the server refuses it.

        If it refuses the request for one answer too, the number was not the cause.

        Args:
            call: the call, whose request becomes the one that was answered.
            send: sends it, and returns its response or its open stream.
            encode: makes the payload of a request.
            count: counts one more request, before each that follows the first.
        """
        key = call.upstream_key
        _lower(call, self.most(key), encode)
        answer, request = send(), call.request
        while may_refuse_choices(answer.status, getattr(answer, "content", b"")):
            # What was given once is given again, unless the prompt is longer than that one.
            least = 1 if answer.status == TOO_MANY else self._given.get(key, 1)
            if choices_wanted(call.request) <= least:
                break
            _lower(call, max(choices_wanted(call.request) // 2, least), encode)
            count()
            answer = send()
        if call.request is not request:
            if is_success(answer.status):
                self._most[key] = choices_wanted(call.request)
            else:
                _put(call, request, encode)
        return answer


def _lower(call: Call, most: int, encode: _Encode) -> None:
    if choices_wanted(call.request) > most:
        _put(call, with_choices(call.request, most), encode)


def _put(call: Call, request: ChatRequest, encode: _Encode) -> None:
    call.request, call.payload = request, encode(request)
    if call.size is not None:
        call.size = call.size._replace(choices=choices_wanted(request))
