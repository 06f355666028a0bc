"""The scheduler: which call runs next, and on how many workers.

One lock guards everything here.  Methods decide and return what is to be done; starting threads, delivering and
sending happen outside, in :mod:`chatpool._engine.engine`.

Workers come and go: one that finds nothing to send ends, except that a single one stays to wait for the first
moment at which there will be something.  So a pool in which nothing is parked has no thread that wakes up.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from .._locks import Condition, convoy_free, is_held, new_lock
from .._policy.budget import BudgetTracker
from .._policy.circuit_breaker import CommonRejections
from .._policy.health import HealthSnapshot, UpstreamHealth
from .._transport import CancelToken
from .._values import Verdict, Waiting, common_reason, duration_text
from ..clock import Clock
from ..errors import ChatPoolError
from ..types import LineStats
from .call import DONE, NEW, PARKED, QUEUED, RUNNING, Call, OutcomeSink, UpstreamKey
from .call_registry import CallRegistry
from .endpoints import EndpointSpec
from .leases import Lease, LeaseRequest
from .upstream import HeaderReport, Outage, Upstream, reported_limits
from .upstreams import Ejection, UpstreamFactory, Upstreams

if TYPE_CHECKING:
    from .._quota import Reservation

__all__ = ["NextStep", "Scheduler"]

_BLOCKED_POLL_SECONDS = 1.0  # until a server that is down is looked at again for a poll
_GIVEN_UP = Verdict("fail")

_READ_LIMITS_EVERY_SECONDS = 0.02  # of thousands of answers a second only some are read for the same limits


class NextStep(NamedTuple):
    """The next step of a worker: run ``call``, acquire a lease, wait until there is something, or (none) end.

    Attributes:
        call: the call to run.
        lease_request: the lease to acquire; its slot goes to :meth:`Scheduler.lease_granted`.
        wait: whether to call :meth:`Scheduler.wait_for_work` and ask again.
        more_workers: the number of further workers to start first.
    """

    call: Optional[Call] = None
    lease_request: Optional[LeaseRequest] = None
    wait: bool = False
    more_workers: int = 0


class Scheduler:
    """Ready, parked and running calls of one pool, and the workers for them.

    Args:
        max_workers: the concurrency cap.
        specs: the endpoints; none for a single one without limits.
        budget_tracker: tracks the pool's budget, None without one.
    """

    def __init__(
        self,
        max_workers: int,
        specs: Sequence[EndpointSpec] = (),
        budget_tracker: Optional[BudgetTracker] = None,
    ) -> None:
        self.lock = new_lock()
        self._in_worker = convoy_free(self.lock)
        self._changed = Condition(self.lock)  # a waiting worker has to look again
        self._all_ended = Condition(self.lock)
        self._max_workers = max_workers
        if budget_tracker is not None:
            budget_tracker.forget_in_flight()  # the scheduler is made anew in a forked child
        self._worker_count = _WorkerCount(max_workers)
        self._upstream_factory = UpstreamFactory(specs, budget_tracker)
        self._upstreams = Upstreams(self._upstream_factory)
        self._call_registry = CallRegistry()
        self._refusals = CommonRejections(max_workers)
        self._waits_until = math.inf
        self._polled_last = False  # polls and other calls take turns

    # -- calls come in ------------------------------------------------------------------------------

    def submit(self, calls: Iterable[Call], *, are_further: bool = False) -> int:
        """Queue fresh calls; return the number of workers to start.

        Args:
            calls: the calls.
            are_further: whether they go on with the work of others, and before those of their run that do not.
        """
        with self.lock:
            added = 0
            for call in calls:
                if call.state != NEW:  # cancelled before it came here
                    continue
                self._upstreams.add(call, is_further=are_further)
                call.state = QUEUED  # only now: what is queued is in a queue, whatever comes between
                added += 1
            self._call_registry.queued(added)
            if self._worker_count.waiting:
                self._changed.notify_all()
                added -= 1
            return self._worker_count.request_workers(added)

    def adopt(self, call: Call, now: float) -> None:
        """Register a call that runs in its caller's own worker: it can be given up, and is never queued."""
        with self.lock:
            call.state = QUEUED
            self._call_registry.queued()
            self._start(call, self._upstreams.of(call).queue.upstream_for(call, now), now)

    # -- workers ask ----------------------------------------------------------------------------------

    def worker_started(self) -> None:
        """Count the calling thread as a worker, until a step tells it to end."""
        with self._in_worker:
            self._worker_count.started()

    def worker_ended(self) -> None:
        """Count off a worker that no step told to end."""
        with self._in_worker:
            self._worker_count.ended()

    def worker_not_started(self) -> int:
        """Count off a worker that could not be started; return the number of workers."""
        with self.lock:
            return self._worker_count.not_started()

    def next_step(self, now: float) -> NextStep:
        """Return the next step of the calling worker."""
        with self._in_worker:
            self._wake_parked(now)
            upstream, wait = self._next_upstream(now)
            if self._upstreams.polls and not (self._polled_last and upstream is not None):
                self._polled_last = True
                poll = self._next_poll(now)
                if poll is not None:
                    self._start(poll, self._upstreams.of(poll), now)
                    return NextStep(poll, None, False, self._request_successors(now))
                upstream, wait = self._next_upstream(now)
            self._polled_last = False
            call = None if upstream is None else upstream.queue.first(upstream, now)
            if upstream is not None and call is not None:
                lease_request = upstream.lease_request(now)
                if lease_request is not None:
                    return NextStep(lease_request=lease_request, more_workers=self._request_successors(now))
                self._start(call, upstream, now)
                self._upstreams.rotate(upstream.queue, call, now)
                return NextStep(call, None, False, self._request_successors(now))  # by position: once per call
            if self._needs_waiter(now, wait):
                self._worker_count.waiting = True
                return NextStep(wait=True)
            self._worker_count.ended()
            return NextStep()

    def wait_for_work(self, clock: Clock) -> None:
        """Wait until a call may be sent, or until there is something else to look at."""
        with self.lock:
            try:
                now = clock.now()
                self._wake_parked(now)
                _, wait = self._next_upstream(now)
                if wait > 0 and not math.isinf(wait):
                    self._waits_until = now + wait
                    clock.wait(self._changed, wait)
            finally:
                self._worker_count.waiting = False

    def extra_workers(self, now: float) -> int:
        """Return the number of workers to start because the calling one will be busy with a callback."""
        with self._in_worker:
            return self._request_successors(now)

    def _request_successors(self, now: float) -> int:
        """Make sure that another worker takes the remaining calls; return the number of workers to start."""
        if not self._worker_count.has_capacity():
            return 0
        upstream, wait = self._next_upstream(now)
        needed = upstream is not None or self._needs_waiter(now, wait)
        return self._worker_count.request_workers(1) if needed else 0

    def _needs_waiter(self, now: float, wait: float) -> bool:
        """Return whether a worker must wait for ``wait`` seconds; wake one that already waits, but for longer."""
        if math.isinf(wait):
            return False
        if self._worker_count.waiting and now + wait < self._waits_until:
            self._changed.notify_all()
        return not self._worker_count.waiting

    def _next_upstream(self, now: float) -> Tuple[Optional[Upstream], float]:
        """Return the upstream that sends next, or None and the seconds until that may change."""
        upstream, wait = self._upstreams.next(now)
        if self._upstreams.polls:
            return upstream, 0.0
        return upstream, 0.0 if upstream is not None else min(wait, self._call_registry.next_due(now))

    def _next_poll(self, now: float) -> Optional[Call]:
        """Return the call whose response is asked for next, None if none may be; those that may not are parked."""
        polls = self._upstreams.polls
        while polls:
            call = polls.popleft()
            if call.state != QUEUED:  # it was given up where it stood
                continue
            upstream = self._upstreams.of(call)
            wait = upstream.poll_wait(now)
            if wait <= 0:
                return call
            upstream.parked += 1
            self._call_registry.park(call, now + min(wait, _BLOCKED_POLL_SECONDS))
        return None

    def _wake_parked(self, now: float) -> None:
        if self._call_registry.anything_parked():
            for call in self._call_registry.due(now):
                self._upstreams.add_due(call, now)

    def _start(self, call: Call, upstream: Upstream, now: float) -> None:
        self._call_registry.start(call)
        if call.cancel_token is None:
            call.cancel_token = CancelToken()
        if call.background is not None and call.polls:
            call.upstream = self._upstreams.of(call)
            call.upstream.polled(call, now)
            return
        self._upstreams.bind(call, upstream, now)
        upstream.sent(call, now)

    # -- leases ---------------------------------------------------------------------------------------

    def lease_granted(self, request: LeaseRequest, slot: Reservation, now: float) -> None:
        """Keep the slot that a worker has acquired for an upstream."""
        with self._in_worker:
            request.holder.granted(slot, now)

    def lease_request_for(self, call: Call) -> Optional[LeaseRequest]:
        """Return the request for the lease of a running call that was in no queue, None if it needs none."""
        with self._in_worker:
            return self._upstreams.of(call).lease_request_for(call)

    def keep_lease(self, call: Call, lease: Lease, now: float) -> None:
        """Give a running call the lease that its worker has acquired; none where the day has no room for it."""
        with self._in_worker:
            self._upstreams.of(call).keep_lease(call, lease, now)

    def sent_another(self, call: Call, now: float) -> None:
        """Count one more request of the attempt that a call is making."""
        with self._in_worker:
            self._upstreams.of(call).pacer.sent_another(now)

    def paused_for(self, call: Call, now: float) -> float:
        """Return the seconds for which the call's upstream is paused after a refusal for rate."""
        with self._in_worker:
            return self._upstreams.of(call).pacer.pace(now).paused_for or 0.0

    def close_leases(self) -> None:
        """Close the files and connections of shared limits; not under the lock."""
        for upstream in self._upstreams:
            upstream.close_leases()

    # -- attempts return, calls go on or end ----------------------------------------------------------

    def returned(self, call: Call, verdict: Verdict, now: float) -> HealthSnapshot:
        """Record the end of an attempt; return the health of its upstream."""
        reported = self._reported_limits(call, verdict, now)
        with self._in_worker:
            upstream = self._upstreams.of(call)
            outstanding = upstream.outstanding() + 1
            if call.sent_at is not None:
                outstanding = min(outstanding - 1, self._max_workers)
                upstream.returned(call, verdict, reported, now)
            snapshot = upstream.queue.with_others(call, upstream, upstream.snapshot(now, outstanding), now)
            return self._with_evidence(snapshot, call, verdict, upstream, now)

    def _reported_limits(self, call: Call, verdict: Verdict, now: float) -> Optional[HeaderReport]:
        """Return the limits that an answer reports: every refusal is read, and a success now and then."""
        upstream: Optional[Upstream] = call.upstream
        if upstream is None or (verdict.kind == "success" and now < upstream.read_limits_at):
            return None
        upstream.read_limits_at = now + _READ_LIMITS_EVERY_SECONDS
        return reported_limits(verdict)

    def _with_evidence(
        self, snapshot: HealthSnapshot, call: Call, verdict: Verdict, upstream: Upstream, now: float
    ) -> HealthSnapshot:
        """Return ``snapshot``, completed with the evidence of other calls on a failure of this kind."""
        if verdict.about == "access":
            return snapshot._replace(
                recheck=upstream.recheck.pause,
                good_sent_at=upstream.recheck.good_sent_at,
                unanimous=self._refuses_all(call, verdict, upstream),
            )
        if verdict.about == "start":
            since = upstream.health.circuit.down_since
            return snapshot._replace(failing_for=None if since is None else now - since)
        ends_all = call.options.ends_when_refused and self._refuses_all(call, verdict, upstream)
        return snapshot._replace(unanimous=True) if ends_all else snapshot

    def _refuses_all(self, call: Call, verdict: Verdict, upstream: Upstream) -> bool:
        """Return whether the upstream refuses every call, as far as those of the same run can tell."""
        if verdict.kind != "fail" or verdict.fingerprint is None:
            return False
        if upstream.health.proven and not upstream.recheck.stands:
            return False
        worked_at = upstream.recheck.worked_at
        refusal = (upstream.key, call.sink.run_id, call.request.path, verdict.fingerprint, worked_at)
        # Several calls of one item, which get its samples, tell no more than one.
        return self._refusals.rejected(refusal, call.id if call.options.samples == 1 else call.index)

    def succeed(self, call: Call, verdict: Verdict, now: float) -> Tuple[bool, int]:
        """Record a success and end the call: :meth:`accepted` and :meth:`end` in one, for the most common case.

        Returns:
            Whether the call had not ended before, and the number of workers to start because its upstream was blocked.
        """
        reported = self._reported_limits(call, verdict, now)
        with self._in_worker:
            workers = self._accepted(call, verdict, reported, now)
            return self._end(call), workers

    def accepted(self, call: Call, verdict: Verdict, now: float) -> int:
        """Record a success of a call that goes on to a review.

        Returns:
            The number of workers to start: its upstream was blocked, and the calling worker will be busy.
        """
        reported = self._reported_limits(call, verdict, now)
        with self._in_worker:
            return self._accepted(call, verdict, reported, now) + self._request_successors(now)

    def _accepted(self, call: Call, verdict: Verdict, reported: Optional[HeaderReport], now: float) -> int:
        upstream = self._upstreams.of(call)
        upstream.score.endpoint.proven = True
        if call.sent_at is None:
            return 0
        score = upstream.score
        was_ejected = (score.several and score.tripped is not None) or upstream.recheck.pause is not None
        was_blocked = upstream.health.circuit.is_open or was_ejected
        upstream.returned(call, verdict, reported, now)
        if not was_blocked or upstream.health.circuit.is_open:
            return 0
        return self._worker_count.request_workers(len(upstream.queue.queued()))

    def promised(self, call: Call, verdict: Verdict, now: float) -> None:
        """Record an exchange that went well, of a call whose response is still made in the background."""
        reported = self._reported_limits(call, verdict, now)
        with self._in_worker:
            upstream = self._upstreams.of(call)
            upstream.score.endpoint.proven = True
            if call.sent_at is not None:
                upstream.returned(call, verdict, reported, now)

    def parked_calls(self, call: Call) -> int:
        """Return the number of calls that wait for their next exchange with the upstream of ``call``; takes no lock."""
        upstream = self._upstreams.known(call.upstream_key)
        return 0 if upstream is None else upstream.parked

    def resend(self, call: Call, now: float) -> None:
        """Start another attempt of a running call in the same worker."""
        with self._in_worker:
            if call.polls:
                self._upstreams.of(call).polled(call, now)
                return
            upstream = self._upstreams.of(call).queue.upstream_for(call, now)
            self._upstreams.bind(call, upstream, now)
            upstream.sent(call, now)

    def refuses(self, key: UpstreamKey, now: float) -> bool:
        """Return whether an endpoint is known to refuse every call to a model for now."""
        with self._in_worker:
            return self._upstreams.get(key).score.reason_against(now) is not None

    def reroute(self, call: Call, key: UpstreamKey, now: float) -> None:
        """Make the upstream of ``key`` that of a running call, from its next attempt on."""
        with self._in_worker:
            self._upstreams.bind(call, self._upstreams.get(key), now)

    def park(self, call: Call, due: float) -> None:
        """Set a running call aside until ``due``, unless it has been given up meanwhile."""
        with self._in_worker:
            if call.state != RUNNING:
                return
            self._upstreams.of(call).parked += 1
            if self._call_registry.park(call, due) and self._worker_count.waiting:
                self._changed.notify_all()

    def end(self, call: Call) -> bool:
        """End a call that has its outcome; False if it had ended before (then this outcome is not delivered)."""
        with self._in_worker:
            return self._end(call)

    def _end(self, call: Call) -> bool:
        if call.state == DONE:
            return False
        if call.state == PARKED:
            self._upstreams.of(call).parked -= 1
        if call.background is not None:
            self._upstreams.of(call).settle_background(call, _GIVEN_UP)
        self._call_registry.end(call)
        if self._call_registry.idle():
            self._all_ended.notify_all()
            if self._worker_count.waiting:  # for a moment at which another worker has already sent
                self._changed.notify_all()
        return True

    # -- outcomes ---------------------------------------------------------------------------------------

    def delivered(self, call: Call) -> None:
        """Note that the sink of a call has its outcome."""
        self._call_registry.delivered(call)

    def is_delivering(self) -> bool:
        """Return whether other threads are delivering outcomes; takes no lock."""
        me = threading.get_ident()
        return any(call.ended_by != me for call in self._call_registry.undelivered())

    def undelivered(self, sink: OutcomeSink) -> List[Call]:
        """Return the calls of ``sink`` that have ended and whose outcomes it does not have yet."""
        return self._call_registry.undelivered_to(sink)

    def in_flight(self, sink: OutcomeSink) -> List[Call]:
        """Return the running calls of ``sink``; works without the lock, for the garbage collector."""
        return [call for call in self._call_registry.running() if call.sink is sink]

    # -- calls are given up -------------------------------------------------------------------------------

    def give_up(self, is_affected: Callable[[Call], bool], *, in_flight: bool = True) -> List[Call]:
        """End all calls for which ``is_affected`` is true, without an outcome; return them to be delivered.

        Args:
            is_affected: picks the calls.
            in_flight: whether calls whose exchange is under way are ended too.
        """
        with self.lock:
            given_up = [call for call in self._open_calls(in_flight) if is_affected(call)]
            for call in given_up:
                self._end(call)
            if given_up:
                self._call_registry.forget_ended()
                self._changed.notify_all()
            return given_up

    def give_up_down(self, call: Call, now: float) -> Tuple[List[Call], List[Call], Optional[Outage]]:
        """End the calls that do not wait for a server that is down: those to the model of ``call`` that wait.

        One of them stays if a probe is due: it is the probe.

        Returns:
            The ended calls, to be delivered; those that may have a fallback, which run in the calling thread now; and
            the outage, None without one.
        """
        with self.lock:
            queue = self._upstreams.of(call).queue
            outage = queue.outage(now)
            if outage is None:
                return [], [], None
            parked = [parked for parked in self._call_registry.parked() if self._upstreams.of(parked).queue is queue]
            waiting = [waiting for waiting in queue.queued() + parked if waiting.options.fails_when_down]
            if outage.probe_is_due:
                del waiting[:1]
            taken_out = [waiting for waiting in waiting if waiting.options.fallbacks is not None]
            ended = [waiting for waiting in waiting if waiting.options.fallbacks is None]
            for each in taken_out:
                self._take_out(each)
            for each in ended:
                self._end(each)
            self._call_registry.forget_ended()
            return ended, taken_out, outage

    def _take_out(self, call: Call) -> None:
        """Let a call that waits run in the calling thread."""
        if call.state == PARKED:
            self._upstreams.of(call).parked -= 1
        else:
            self._upstreams.of(call).queue.take_out(call)
        self._call_registry.start(call)

    def outage(self, call: Call, now: float) -> Optional[Outage]:
        """Return the outage of the model of ``call``, None without one."""
        with self._in_worker:
            return self._upstreams.of(call).queue.outage(now)

    def _open_calls(self, in_flight: bool) -> List[Call]:
        waiting = self._upstreams.queued() + self._call_registry.parked()
        return waiting + self._call_registry.running() if in_flight else waiting

    def open_calls(self) -> List[Call]:
        """Return all calls without an outcome, for a forked child: a thread that is not there may hold the lock."""
        return list({*self._open_calls(in_flight=True), *self._call_registry.undelivered()})

    def may_block(self, call: Call, now: float) -> bool:
        """Return whether it may take long until a worker gets to the call: all are busy, or its upstream is blocked."""
        with self.lock:
            queued, _, running = self._call_registry.counts()
            upstream = self._upstreams.of(call)
            return queued + running > self._max_workers or upstream.queue.may_block() or upstream.wait(now) > 0

    def expire(self, call: Call) -> bool:
        """End one call without an outcome, unless a worker has it."""
        with self.lock:
            expired = call.state in (QUEUED, PARKED) and self._end(call)
            if expired:
                self._changed.notify_all()  # a worker may wait for the moment at which it may be sent
            return expired

    def cancel(self, call: Call) -> bool:
        """End one call without an outcome; it leaves its queue when its turn comes."""
        with self.lock:
            if not self._end(call):
                return False
            self._changed.notify_all()
            return True

    # -- waiting ------------------------------------------------------------------------------------------

    def wait_inline(self, call: Call, due: float, clock: Clock) -> None:
        """Wait until ``due``, or until the call is given up."""
        with self.lock:
            while call.state == RUNNING and clock.now() < due:
                clock.wait(self._changed, due - clock.now())

    def wait_until_idle(self, clock: Clock) -> None:
        """Wait until every call has its outcome."""
        with self.lock:
            while not self._call_registry.idle():
                clock.wait(self._all_ended)

    def idle(self) -> bool:
        """Return whether every call has its outcome."""
        with self.lock:
            return self._call_registry.idle()

    # -- upstreams ----------------------------------------------------------------------------------------

    def health(self, call: Call) -> UpstreamHealth:
        """Return the health of a call's upstream: written under the lock only, single facts may be read without it."""
        upstream: Optional[Upstream] = call.upstream or self._upstreams.known(call.upstream_key)
        return UpstreamHealth() if upstream is None else upstream.health

    def proven(self, call: Call) -> Tuple[bool, bool]:
        """Return whether any call has ever succeeded at the endpoint of this one, and at its upstream; without lock."""
        upstream: Optional[Upstream] = call.upstream or self._upstreams.known(call.upstream_key)
        if upstream is None:
            return self._upstream_factory.health(call.upstream_key[0]).proven, False
        return upstream.score.endpoint.proven, upstream.health.proven

    def eject(self, call: Call, scope: str, reason: ChatPoolError, sent_at: float, now: float) -> Ejection:
        """Eject the endpoint of a call that was sent at ``sent_at`` and refused as all calls of ``scope``."""
        with self._in_worker:
            return self._upstreams.eject(call, scope, reason, sent_at, now)

    def never_fits(self, call: Call) -> bool:
        """Return whether a call that was not sent has more tokens than any of its upstreams ever lets through."""
        with self._in_worker:
            return all(upstream.too_large(call) for upstream in self._upstreams.of(call).queue.upstreams)

    def blocked_seconds(self, call: Call, now: float) -> float:
        """Return the seconds since its first send for which the call's upstream was blocked."""
        with self._in_worker:
            return self._upstreams.of(call).blocked_seconds(now) - call.blocked_seconds_at_send

    def refuse(self, key: UpstreamKey, until: float, error: ChatPoolError) -> None:
        """Send nothing to this upstream before ``until``."""
        with self._in_worker:
            self._upstreams.get(key).health.reject(until, error)

    def upstream_stats(self, now: float) -> Dict[UpstreamKey, LineStats]:
        """Return the state of all upstreams for a person."""
        with self.lock:
            return self._upstream_stats(now)

    def upstream_stats_within(self, seconds: float, now: float) -> Optional[Dict[UpstreamKey, LineStats]]:
        """Return the same for a thread that may hold the lock; None if the lock is not free in time."""
        if is_held(self.lock) or not self.lock.acquire(timeout=seconds):
            return None
        try:
            return self._upstream_stats(now)
        finally:
            self.lock.release()

    def _upstream_stats(self, now: float) -> Dict[UpstreamKey, LineStats]:
        return {upstream.key: upstream.stats(now) for upstream in self._upstreams}

    def waiting(self, run_id: Optional[int], now: float) -> Waiting:
        """Return why calls of a run wait, and how many are in flight; ``run_id`` None is for all calls."""
        with self.lock:  # the main thread may ask, and Ctrl-C come
            parked = [
                (due, call) for due, call in self._call_registry.parked_until() if run_id in (None, call.sink.run_id)
            ]
            running = sum(run_id in (None, call.sink.run_id) for call in self._call_registry.running())
            holds = self._upstreams.holds([call for _, call in parked], run_id, now)
        reason = common_reason(holds)
        polls = sum(call.polls for _, call in parked)
        if reason is None and polls and not running:
            reason = f"{polls:,} being made in the background"
        if reason is None and parked and not running:
            wait = min(due for due, _ in parked) - now
            reason = f"next retry in {duration_text(math.ceil(wait))}" if wait > 0 else None
        return Waiting(reason, running)

    def counts(self) -> Tuple[int, int, int]:
        """Return the numbers of queued, parked and running calls; works without the lock."""
        return self._call_registry.counts()

    def resync(self) -> int:
        """Make the state consistent after an exception that may have come in the middle of anything (Ctrl-C).

        Returns:
            The number of workers to start.
        """
        with self.lock:
            self._upstreams.resync()
            queued = len(self._upstreams.queued())
            parked = self._call_registry.recount(queued)
            self._worker_count.forget_starting()
            self._changed.notify_all()
            return self._worker_count.request_workers(queued + bool(parked))


class _WorkerCount:
    """The number of workers, at most ``max_workers``.

    Not thread-safe: the scheduler holds its lock.

    Attributes:
        waiting: whether one of them waits until a call may be sent.
    """

    __slots__ = ("_alive", "_max_workers", "_starting", "waiting")

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._starting = 0  # requested, not running yet
        self._alive = 0
        self.waiting = False

    def has_capacity(self) -> bool:
        """Return whether another worker may be started."""
        return self._starting + self._alive < self._max_workers

    def request_workers(self, wanted: int) -> int:
        """Request ``wanted`` more workers; return the number to start."""
        requested = max(0, min(wanted, self._max_workers - self._starting - self._alive))
        self._starting += requested
        return requested

    def started(self) -> None:
        """Count a requested worker that runs now."""
        self._starting = max(0, self._starting - 1)
        self._alive += 1

    def not_started(self) -> int:
        """Count off a worker that could not be started; return the number that remains."""
        self._starting = max(0, self._starting - 1)
        return self._starting + self._alive

    def ended(self) -> None:
        """Count off a worker that has nothing left to do."""
        self._alive -= 1

    def forget_starting(self) -> None:
        """Forget the requested workers, which may never come, so that they are requested again.

        One that comes after all finds nothing to do and ends.
        """
        self._starting = 0
