"""The upstreams of a pool, and which of them sends next."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from .._policy.budget import BudgetTracker
from .._policy.circuit_breaker import EndpointHealth
from .._reentrancy import defer
from .._values import Hold
from ..errors import ChatPoolError
from .call import QUEUED, Call, UpstreamKey
from .endpoints import EndpointSpec
from .leases import LeaseHolder
from .upstream import CallQueue, Upstream

__all__ = ["Ejection", "UpstreamFactory", "Upstreams"]

_MAX_IDLE_UPSTREAMS = 500
_AGEING_SECONDS = 2.5  # after which a level that is passed over counts as one higher: two levels are one priority


class Upstreams:
    """One upstream for each (endpoint, model), made when it is first needed; models with calls take turns.

    Calls of a higher level go first, over all models.  A level that is passed over counts as one higher after
    each ``_AGEING_SECONDS``, until a call of it is sent: so none waits for ever (as ageing in operating systems).

    Not thread-safe: the scheduler holds its lock, but for :meth:`known`.

    Calls that ask for a response in the background are in no queue: a poll takes no tokens, goes where the response is,
    and waits for no limit.

    Args:
        make: makes the upstreams of a model.

    Attributes:
        polls: the calls of this kind that may be sent; some have ended where they stood.
    """

    __slots__ = ("_all", "_levels", "_make", "_tidy_at", "_turns", "polls")

    def __init__(self, make: Callable[[UpstreamKey], List[Upstream]]) -> None:
        self._make = make
        self._all: Dict[UpstreamKey, Upstream] = {}
        self._levels: Dict[int, _Level] = {}
        self._turns = 0
        self.polls: Deque[Call] = deque()
        self._tidy_at = _MAX_IDLE_UPSTREAMS

    def __iter__(self) -> Iterator[Upstream]:
        return iter(list(self._all.values()))

    def of(self, call: Call) -> Upstream:
        """Return the upstream that a call was sent to last; any of its model for one that was not sent yet."""
        upstream: Optional[Upstream] = call.upstream
        return self.get(call.upstream_key) if upstream is None or upstream.forgotten else upstream

    def get(self, key: UpstreamKey) -> Upstream:
        """Return the upstream of an endpoint and a model."""
        if key not in self._all:
            if len(self._all) >= self._tidy_at:
                self._drop_idle()
            self._all.update({upstream.key: upstream for upstream in self._make(key)})
        return self._all[key]

    def known(self, key: UpstreamKey) -> Optional[Upstream]:
        """Return the same, None if it has never been needed; works without the lock."""
        return self._all.get(key)

    def _drop_idle(self) -> None:
        """Forget the state of the least recently used models: the number of model names may have no limit."""
        idle = sorted((queue for queue in self._queues() if queue.is_idle()), key=lambda queue: queue.used_at)
        for queue in idle[: (len(idle) + 1) // 2]:
            for level in self._levels.values():
                level.ready.pop(queue, None)
            for upstream in queue.upstreams:
                upstream.forgotten = True
                del self._all[upstream.key]
                if upstream.is_shared:
                    defer(upstream.close_leases)  # does I/O
        self._tidy_at = len(self._all) + _MAX_IDLE_UPSTREAMS

    # -- calls ------------------------------------------------------------------------------------------

    def add(self, call: Call, *, is_further: bool = False) -> None:
        """Queue a fresh call; a further one goes before those of its run that begin something."""
        if call.background is not None:
            self.polls.append(call)
            return
        queue = self.of(call).queue
        if is_further:
            queue.add_due(call)
        else:
            queue.add(call)
        self._make_ready(queue, call.options.level)

    def add_due(self, call: Call, now: float) -> None:
        """Queue a call whose wait is over."""
        upstream = self.of(call)
        upstream.parked -= 1
        upstream.due(call, now)
        if call.polls:
            self.polls.append(call)
            return
        upstream.queue.add_due(call)
        self._make_ready(upstream.queue, call.options.level)

    def _make_ready(self, queue: CallQueue, number: int) -> None:
        level = self._levels.get(number)
        if level is None:
            level = self._levels[number] = _Level()
        level.ready[queue] = None

    def bind(self, call: Call, upstream: Upstream, now: float) -> None:
        """Make ``upstream`` the one of a call that it is about to send."""
        if call.upstream_key != upstream.key:
            upstream.take_from(self.of(call), call, now)
        call.upstream = upstream

    def queued(self) -> List[Call]:
        """Return all calls that are queued."""
        polls = [call for call in list(self.polls) if call.state == QUEUED]
        return polls + [call for queue in self._queues() for call in queue.queued()]

    def resync(self) -> None:
        """Find out anew which queues have calls."""
        for queue in self._queues():
            for number in queue.levels():
                self._make_ready(queue, number)

    def _queues(self) -> List[CallQueue]:
        return list(dict.fromkeys(upstream.queue for upstream in list(self._all.values())))

    def holds(self, parked: Sequence[Call], run_id: Optional[int], now: float) -> List[Optional[Hold]]:
        """Return what holds back each upstream for which calls of a run wait, None for one that nothing holds back.

        Args:
            parked: those that wait for their next attempt.
            run_id: the run; None for all calls.
            now: the time.
        """
        waiting: Dict[UpstreamKey, Optional[Call]] = {call.upstream_key: None for call in parked}
        for queue in self._queues():
            call = queue.any_call(run_id)
            if call is not None:
                waiting.update((upstream.key, call) for upstream in queue.upstreams)
        return [self._all[key].hold(now, call) for key, call in waiting.items() if key in self._all]

    # -- turns ------------------------------------------------------------------------------------------

    def next(self, now: float) -> Tuple[Optional[Upstream], float]:
        """Return the upstream that sends next, or None and the seconds until one may send (``inf``: unknown)."""
        soonest = math.inf
        waiting: Set[CallQueue] = set()  # with calls of a higher level, which those of a lower one must not overtake
        for number in self._ordered_levels(now) if len(self._levels) > 1 else tuple(self._levels):
            level = self._levels[number]
            empty = []
            for queue in level.ready:
                if queue in waiting:
                    continue
                if not queue.has_calls(number):
                    empty.append(queue)
                    continue
                upstream, wait = queue.next_upstream(now)
                if upstream is not None:
                    return upstream, 0.0
                soonest = min(soonest, wait)
                if len(self._levels) > 1:
                    waiting.add(queue)
            for queue in empty:
                del level.ready[queue]
            if not level.ready:
                del self._levels[number]
        return None, soonest

    def _ordered_levels(self, now: float) -> List[int]:
        """Return the levels, the next in turn first."""

        def rank(number: int) -> Tuple[int, int]:
            since = self._levels[number].passed_over_since
            return number + (0 if since is None else int((now - since) / _AGEING_SECONDS)), -number

        return sorted(self._levels, key=rank, reverse=True)

    def rotate(self, queue: CallQueue, call: Call, now: float) -> None:
        """Let the other queues and levels go first after ``call`` was sent."""
        number = call.options.level
        self._turns += 1
        queue.used_at = self._turns
        has_more = queue.rotate(call)
        level = self._levels[number]
        level.passed_over_since = None
        if len(self._levels) > 1:
            for other in self._levels.values():
                if other is not level and other.passed_over_since is None:
                    other.passed_over_since = now
        if not has_more:
            del level.ready[queue]
        elif len(level.ready) > 1:
            level.ready.move_to_end(queue)
        if not level.ready:
            del self._levels[number]

    # -- ejection ---------------------------------------------------------------------------------------

    def eject(self, call: Call, scope: str, reason: ChatPoolError, sent_at: float, now: float) -> Ejection:
        """Eject the endpoint of ``call``, which refuses all calls of ``scope``.

        If no endpoint remains, the ejections of all are reset: the next call tries them again.
        """
        upstream = self.of(call)
        upstreams, is_new = upstream.queue.upstreams, upstream.score.trip(scope, reason, sent_at, now)
        refusals = {} if call.failover_state is None else call.failover_state.refusals
        known_reasons = {other: other.score.reason_against(now) for other in upstreams}
        if any(error is None and other.key not in refusals for other, error in known_reasons.items()):
            return Ejection(is_new, {})
        reasons = {other.key[0]: refusals.get(other.key) or error or reason for other, error in known_reasons.items()}
        if any(error is None for error in known_reasons.values()):
            return Ejection(is_new, reasons)
        scope = "run" if all(other.score.endpoint.breaker.reason is not None for other in upstreams) else "model"
        for other in upstreams:
            other.score.reset()
        return Ejection(is_new, reasons, scope)


class _Level:
    """The models with calls of one level.

    Attributes:
        ready: the next in turn first.
        passed_over_since: when a call of another level was sent while these waited; None since one of these was.
    """

    __slots__ = ("passed_over_since", "ready")

    def __init__(self) -> None:
        self.ready: OrderedDict[CallQueue, None] = OrderedDict()
        self.passed_over_since: Optional[float] = None


class Ejection(NamedTuple):
    """The consequences of an endpoint that refuses every call.

    Attributes:
        is_new: whether this was not known before.
        reasons: the reason of each endpoint of the model, by name; empty while another one remains for the call.
        scope: the calls that end then: ``"run"``, ``"model"`` or only the ``"call"``.
    """

    is_new: bool
    reasons: Dict[str, ChatPoolError]
    scope: str = "call"


class UpstreamFactory:
    """Makes the upstreams of one model: one for each endpoint, all with the same queue; a standby has its own.

    Args:
        specs: the endpoints; none for a single one without limits.
        budget_tracker: tracks the pool's budget, None without one.
    """

    def __init__(self, specs: Sequence[EndpointSpec] = (), budget_tracker: Optional[BudgetTracker] = None) -> None:
        self._specs = specs
        self._budget_tracker = budget_tracker
        self._health: Dict[str, EndpointHealth] = {}

    def health(self, endpoint: str) -> EndpointHealth:
        """Return the health of an endpoint."""
        known = self._health.get(endpoint)  # read once per call
        return self._health.setdefault(endpoint, EndpointHealth()) if known is None else known

    def __call__(self, key: UpstreamKey) -> List[Upstream]:
        """Return the upstreams; ``key`` is that of any of them."""
        queue = CallQueue()
        specs = self._specs or (EndpointSpec(key[0]),)
        standby = [spec for spec in specs if spec.is_standby and spec.name == key[0]]
        specs = standby or [spec for spec in specs if not spec.is_standby]
        queue.upstreams = [self._upstream(spec, key[1], queue, several=len(specs) > 1) for spec in specs]
        return queue.upstreams

    def _upstream(self, spec: EndpointSpec, model: Optional[str], queue: CallQueue, *, several: bool) -> Upstream:
        key = (spec.name, model)
        leases = None if spec.sharing is None else LeaseHolder(spec.sharing.limit(*key))
        health, weight = self.health(spec.name), spec.weight if several else None
        return Upstream(key, spec.limits, self._budget_tracker, leases, queue=queue, endpoint=health, weight=weight)
