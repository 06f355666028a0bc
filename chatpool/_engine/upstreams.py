"""The lines of a pool, and whose turn it is."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from .._policy.budget import BudgetTracker
from .._policy.circuit_breaker import EndpointHealth
from .._reentrancy import defer
from ..config import Limits
from ..errors import ChatPoolError
from .call import Call, UpstreamKey
from .leases import LeaseHolder
from .upstream import CallQueue, Upstream

if TYPE_CHECKING:
    from .._quota import Sharing

__all__ = ["Ejection", "EndpointSpec", "UpstreamFactory", "Upstreams"]

_MOST_IDLE = 500  # lines
_AGEING = 2.5  # seconds: two levels are one priority


class EndpointSpec(NamedTuple):
    """What the scheduler has to know of an endpoint.

    Attributes:
        name: no other endpoint of the pool has it; there is no key in it.
        limits: what may be sent to each of its models per minute, None without limits.
        sharing: makes the limits that are shared with other processes, None without any.
        weight: how much it is preferred to others, as a factor.
    """

    name: str
    limits: Optional[Limits] = None
    sharing: Optional[Sharing] = None
    weight: float = 1.0


class Ejection(NamedTuple):
    """What it means that an endpoint refuses every call.

    Attributes:
        is_new: whether nobody knew.
        reasons: why each endpoint of the model does, by name; empty as long as there is another one for the call.
        scope: what ends then: ``"run"``, ``"model"`` or only the ``"call"``.
    """

    is_new: bool
    reasons: Dict[str, ChatPoolError]
    scope: str = "call"


class UpstreamFactory:
    """Makes the lines of one model: one for each endpoint, all with the same queue.

    Args:
        plans: the endpoints; none for a single one without limits.
        spending: what the pool has spent of its budget, None without one.
    """

    def __init__(self, plans: Sequence[EndpointSpec] = (), spending: Optional[BudgetTracker] = None) -> None:
        self._plans = plans
        self._spending = spending
        self._health: Dict[str, EndpointHealth] = {}

    def health(self, endpoint: str) -> EndpointHealth:
        """What is known of an endpoint."""
        known = self._health.get(endpoint)  # asked for once per call
        return self._health.setdefault(endpoint, EndpointHealth()) if known is None else known

    def __call__(self, key: UpstreamKey) -> List[Upstream]:
        """The lines; ``key`` is that of any of them."""
        queue = CallQueue()
        plans = self._plans or (EndpointSpec(key[0]),)
        queue.lines = [self._line(plan, key[1], queue, several=len(plans) > 1) for plan in plans]
        return queue.lines

    def _line(self, plan: EndpointSpec, model: Optional[str], queue: CallQueue, *, several: bool) -> Upstream:
        key = (plan.name, model)
        grants = None if plan.sharing is None else LeaseHolder(plan.sharing.limit(*key))
        health, weight = self.health(plan.name), plan.weight if several else None
        return Upstream(key, plan.limits, self._spending, grants, queue=queue, endpoint=health, weight=weight)


class _Level:
    """The models with calls of one level.

    Attributes:
        ready: next in turn first.
        passed_over_since: when one of another level was sent while these waited; None since one of these was.
    """

    __slots__ = ("passed_over_since", "ready")

    def __init__(self) -> None:
        self.ready: OrderedDict[CallQueue, None] = OrderedDict()
        self.passed_over_since: Optional[float] = None


class Upstreams:
    """One line for each (endpoint, model), made when it is first needed; models with calls take turns.

    Calls of a higher level go first, over all models.  A level that is passed over counts as one higher after
    each ``_AGEING`` seconds, until a call of it is sent: so none waits for ever (as ageing in operating systems).

    Not thread-safe: the scheduler holds its lock, but for :meth:`known`.

    Args:
        make: makes the lines of a model.
    """

    __slots__ = ("_all", "_levels", "_make", "_tidy_at", "_turns")

    def __init__(self, make: Callable[[UpstreamKey], List[Upstream]]) -> None:
        self._make = make
        self._all: Dict[UpstreamKey, Upstream] = {}
        self._levels: Dict[int, _Level] = {}
        self._turns = 0
        self._tidy_at = _MOST_IDLE

    def __iter__(self) -> Iterator[Upstream]:
        return iter(list(self._all.values()))

    def of(self, call: Call) -> Upstream:
        """The line that a call was sent to last; any of its model for one that was not sent yet."""
        line = self._all.get(call.line)
        return self.get(call.line) if line is None else line

    def get(self, key: UpstreamKey) -> Upstream:
        """The line of an endpoint and a model."""
        if key not in self._all:
            if len(self._all) >= self._tidy_at:
                self._drop_idle()
            self._all.update({line.key: line for line in self._make(key)})
        return self._all[key]

    def _drop_idle(self) -> None:
        """Forget what was learned of models that have not been used for longest: there may be no end of names."""
        idle = sorted((queue for queue in self._queues() if queue.is_idle()), key=lambda queue: queue.used_at)
        for queue in idle[: (len(idle) + 1) // 2]:
            for level in self._levels.values():
                level.ready.pop(queue, None)
            for line in queue.lines:
                del self._all[line.key]
                if line.shared:
                    defer(line.close_grants)  # does I/O
        self._tidy_at = len(self._all) + _MOST_IDLE

    def known(self, key: UpstreamKey) -> Optional[Upstream]:
        """The same, None if it has never been needed; works without the lock."""
        return self._all.get(key)

    def add(self, call: Call) -> None:
        """Queue a fresh call."""
        queue = self.of(call).queue
        queue.add(call)
        self._make_ready(queue, call.options.level)

    def add_due(self, call: Call, now: float) -> None:
        """Queue a call whose wait is over."""
        line = self.of(call)
        line.parked -= 1
        line.due(call, now)
        line.queue.add_due(call)
        self._make_ready(line.queue, call.options.level)

    def _make_ready(self, queue: CallQueue, number: int) -> None:
        level = self._levels.get(number)
        if level is None:
            level = self._levels[number] = _Level()
        level.ready[queue] = None

    def next(self, now: float) -> Tuple[Optional[Upstream], float]:
        """The line whose turn it is, or None and the seconds until one may send (``inf``: nobody knows)."""
        soonest = math.inf
        waiting: Set[CallQueue] = set()  # with calls of a higher level, which those of a lower one must not forestall
        for number in self._in_order(now):
            level = self._levels[number]
            empty = []
            for queue in level.ready:
                if queue in waiting:
                    continue
                if not queue.has_calls(number):
                    empty.append(queue)
                    continue
                line, wait = queue.next_line(now)
                if line is not None:
                    return line, 0.0
                soonest = min(soonest, wait)
                if len(self._levels) > 1:
                    waiting.add(queue)
            for queue in empty:
                del level.ready[queue]
            if not level.ready:
                del self._levels[number]
        return None, soonest

    def _in_order(self, now: float) -> List[int]:
        """The levels, that whose turn it is first."""
        if len(self._levels) < 2:
            return list(self._levels)

        def rank(number: int) -> Tuple[int, int]:
            since = self._levels[number].passed_over_since
            return number + (0 if since is None else int((now - since) / _AGEING)), -number

        return sorted(self._levels, key=rank, reverse=True)

    def bind(self, call: Call, line: Upstream, now: float) -> None:
        """``line`` is about to send the call."""
        if call.line != line.key:
            line.take_over(call, self.of(call), now)

    def leave_alone(self, call: Call, scope: str, reason: ChatPoolError, sent_at: float, now: float) -> Ejection:
        """The endpoint of ``call`` refuses all calls of ``scope``.

        When none is left they are all forgiven: whoever comes next tries them again.
        """
        line = self.of(call)
        lines, is_new = line.queue.lines, line.standing.trip(scope, reason, sent_at, now)
        refusals = {} if call.visits is None else call.visits.refusals
        against = {other: other.standing.reason_against(now) for other in lines}
        if any(why is None and other.key not in refusals for other, why in against.items()):
            return Ejection(is_new, {})
        reasons = {other.key[0]: refusals.get(other.key) or why or reason for other, why in against.items()}
        if any(why is None for why in against.values()):
            return Ejection(is_new, reasons)
        scope = "run" if all(other.standing.endpoint.breaker.reason is not None for other in lines) else "model"
        for other in lines:
            other.standing.reset()
        return Ejection(is_new, reasons, scope)

    def had_its_turn(self, queue: CallQueue, call: Call, now: float) -> None:
        """``call`` was sent; the others go first now."""
        number = call.options.level
        self._turns += 1
        queue.used_at = self._turns
        queue.left(call)
        level = self._levels[number]
        level.passed_over_since = None
        if len(self._levels) > 1:
            for other in self._levels.values():
                if other is not level and other.passed_over_since is None:
                    other.passed_over_since = now
        if not queue.has_calls(number):
            del level.ready[queue]
        elif len(level.ready) > 1:
            level.ready.move_to_end(queue)
        if not level.ready:
            del self._levels[number]

    def queued(self) -> List[Call]:
        """All calls that are queued."""
        return [call for queue in self._queues() for call in queue.queued()]

    def look_again(self) -> None:
        """Find out anew which lines have calls."""
        for queue in self._queues():
            for number in queue.levels():
                self._make_ready(queue, number)

    def _queues(self) -> List[CallQueue]:
        return list(dict.fromkeys(line.queue for line in list(self._all.values())))
