"""Pools against a simulated server, event by event on a clock of their own: no threads, no waiting."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Dict, List, Optional, Protocol, Tuple

from chatpool._policy.health import UpstreamHealth
from chatpool._policy.retry import Deadline, RetryDecider
from chatpool.config import RetryPolicy
from chatpool.errors import APITimeoutError, InternalServerError, RateLimitError
from chatpool.types import Verdict

from .servers import Cap, Server, stated

__all__ = ["Client", "Draw", "Pacing", "World", "ideal", "simulate"]

Draw = Callable[[random.Random], float]


class Pacing(Protocol):
    """What is simulated."""

    @property
    def down(self) -> Optional[bool]: ...
    @property
    def chance(self) -> int: ...
    @property
    def explained(self) -> bool: ...
    def wait(self, now: float, tokens: float) -> float: ...
    def sent(self, now: float, tokens: float) -> Any: ...
    def accepted(self, sent: Any, now: float, used: Optional[float]) -> None: ...
    def rejected(self, sent: Any, now: float, hint: Optional[float]) -> None: ...
    def failed(self, sent: Any, now: float, hint: Optional[float]) -> None: ...
    def given_up(self, sent: Any, now: float) -> None: ...
    def restart(self) -> None: ...
    def stated(self, sent: Any, now: float, requests: Any, tokens: Any) -> None: ...


def _constant(seconds: float) -> Draw:
    return lambda rng: seconds


@dataclass
class World:
    """A server, the way to it, and how long its answers take.

    Attributes:
        server: makes the server.
        service: seconds that an accepted request takes.
        travel: seconds to the server, and back.
        rejecting: seconds that the server takes to reject.
        hint: ``"exact"``, ``"whole"`` (seconds) or None.
        hint_fallback: the hint of a server that cannot know.
        tenant: requests a second that somebody else sends.
        lateness: seconds by which a thread wakes up too late, at most.
        states: what the server's answers state of its limit, None for servers that state nothing.
        slots: requests that the server works on at once, the others wait; None for all.
        patience: seconds for which they wait before they are rejected; ``inf`` for as long as it takes.
        says: what the limit's rejections are: ``"throttled"`` (429) or ``"unavailable"`` (503).
        chance: the share of all requests that is rejected whatever their pace, before the limit counts them.
        chance_says: what these rejections are.
        gives_up: seconds after which the client waits no longer for an answer; the server goes on with it.
        down: when the server rejects everything, as pairs of a beginning and an end.
    """

    server: Callable[[], Server]
    service: Draw
    travel: Draw = _constant(0.0005)
    rejecting: Draw = _constant(0.0005)
    hint: Optional[str] = "exact"
    hint_fallback: float = 0.25
    tenant: float = 0.0
    lateness: float = 0.0005
    states: Optional[Callable[[Any, float], Any]] = None
    slots: Optional[int] = None
    patience: float = math.inf
    says: str = "throttled"
    chance: float = 0.0
    chance_says: str = "throttled"
    gives_up: float = math.inf
    down: Tuple[Tuple[float, float], ...] = ()


class _Call:
    """One call: what it takes of the limit and of the server's time, and the state of its retries."""

    __slots__ = ("attempts", "retry", "service", "weight")

    def __init__(self, weight: float, service: float) -> None:
        self.weight, self.service = weight, service
        self.attempts = 0
        self.retry: Any = None


def _calls(world: World, count: int, weight: Draw, seed: int) -> List[_Call]:
    rng = random.Random(f"calls {seed}")
    return [_Call(weight(rng), world.service(rng)) for _ in range(count)]


@dataclass
class Client:
    """A pool: its pacing, its workers and its calls; and what came of them."""

    pacing: Pacing
    calls: int
    workers: int
    weight: Draw = _constant(1.0)
    starts: float = 0.0
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    in_flight: int = 0
    done: int = 0
    lost: int = 0
    ended: float = 0.0
    sends: List[float] = field(default_factory=list)
    rejections: List[float] = field(default_factory=list)


def simulate(world: World, clients: List[Client], seed: int = 0, until: float = 1e5) -> None:
    """Run all calls of all clients."""
    random.seed(f"retries {seed}")  # the retry policy draws its jitter from the module's own generator
    _Run(world, clients, seed).go(until)


class _Pool:
    """A client while it runs."""

    def __init__(self, client: Client, calls: List[_Call]) -> None:
        self.client = client
        self.due: Deque[_Call] = deque(calls)
        self.parked: List[Tuple[float, int, _Call]] = []
        self.wake = math.inf
        self.health = UpstreamHealth()
        self.retrier = RetryDecider(client.policy, client.workers)

    def returned(self, verdict: Verdict, sent: Any, now: float) -> None:
        """An attempt has failed: the policies hear of it as they do in the engine."""
        pacing = self.client.pacing
        if verdict.kind == "throttled":
            pacing.rejected(sent, now, verdict.retry_after)
        elif verdict.kind == "unavailable":
            pacing.failed(sent, now, verdict.retry_after)
        else:
            pacing.timed_out(sent, now)
        self.health.returned(verdict, sent_at_of(sent), now, pacing.down)

    def view(self, now: float) -> Any:
        """The line as a retry decision sees it."""
        view = self.health.snapshot(now, self.client.in_flight + len(self.parked) + 1)
        pacing = self.client.pacing
        return view._replace(chance_rejections=pacing.chance_rejections, overloaded=pacing.overloaded)


_SUCCESS = Verdict("success")
_VERDICTS: Dict[str, Verdict] = {
    "throttled": Verdict("throttled", error=RateLimitError("too many requests"), status=429),
    "unavailable": Verdict("unavailable", error=InternalServerError("unavailable"), status=503),
    "timeout": Verdict("timeout", error=APITimeoutError("no answer")),
}


def sent_at_of(sent: Any) -> float:
    """When an attempt was sent."""
    return float(sent.record.sent_at)


class _Run:
    def __init__(self, world: World, clients: List[Client], seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.server = world.server()
        self.at_server = 0
        self.busy: List[float] = []  # when each slot will be free
        self.now = 0.0
        self.tick = itertools.count()
        self.events: List[Tuple[float, int, Callable[..., None], Tuple[Any, ...]]] = []
        self.left = sum(client.calls for client in clients)
        for number, client in enumerate(clients):
            pool = _Pool(client, _calls(world, client.calls, client.weight, seed + number))
            self.at(client.starts, self.look, pool)
        if world.tenant:
            self.at(0.0, self.tenant)

    def at(self, time: float, action: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (time, next(self.tick), action, arguments))

    def go(self, until: float) -> None:
        while self.events and self.left and self.now <= until:
            self.now, _, action, arguments = heapq.heappop(self.events)
            action(*arguments)

    def tenant(self) -> None:
        if self.server.free_in(self.now, self.at_server, 1.0) <= 0:
            self.server.accept(self.now, 1.0)
        self.at(self.now + self.rng.expovariate(self.world.tenant), self.tenant)

    # -- a pool -----------------------------------------------------------------------------------------

    def woken(self, pool: _Pool, wake: float) -> None:
        if pool.wake == wake:
            pool.wake = math.inf
            self.look(pool)

    def look(self, pool: _Pool) -> None:
        """Send what may be sent; then wait for the first moment at which more may be."""
        now, client, parked, due = self.now, pool.client, pool.parked, pool.due
        while parked and parked[0][0] <= now:
            due.appendleft(heapq.heappop(parked)[2])
        first = math.inf
        while due and client.in_flight < client.workers:
            wait = pool.health.circuit.wait(now) or client.pacing.wait(now, due[0].weight)
            if wait > 0:
                first = now + wait
                break
            self.send(pool, due.popleft())
        if parked and client.in_flight < client.workers:
            first = min(first, parked[0][0])
        if first < math.inf and first != pool.wake:
            pool.wake = first
            self.at(first + self.rng.random() * self.world.lateness, self.woken, pool, first)

    def send(self, pool: _Pool, call: _Call) -> None:
        client = pool.client
        pool.health.circuit.sent()
        sent = client.pacing.sent(self.now, call.weight)
        client.in_flight += 1
        client.sends.append(self.now)
        call.attempts += 1
        self.at(self.now + self.world.travel(self.rng), self.arrive, pool, sent, call)

    def arrive(self, pool: _Pool, sent: Any, call: _Call) -> None:
        world, rng, now = self.world, self.rng, self.now
        back = now + world.rejecting(rng) + world.travel(rng)
        hint = stated(world.hint, world.hint_fallback, world.hint_fallback)
        if any(begin <= now < end for begin, end in world.down):
            self.at(back, self.failed, pool, sent, call, "unavailable", hint, None)
            return
        if world.chance and rng.random() < world.chance:
            self.at(back, self.failed, pool, sent, call, world.chance_says, hint, None)
            return
        exact = self.server.free_in(now, self.at_server, call.weight)
        held = self.server.accept(now, call.weight) if exact <= 0 else 0.0
        statement = world.states(self.server, now) if world.states else None
        if exact > 0:
            hint = stated(world.hint, exact, world.hint_fallback)
            self.at(back, self.failed, pool, sent, call, world.says, hint, statement)
            return
        self.begin(pool, sent, call, held, statement)

    def begin(self, pool: _Pool, sent: Any, call: _Call, held: float, statement: Any) -> None:
        """The limit lets the call in; it may have to wait for a slot."""
        world, now = self.world, self.now
        done = self.worked_off(call.service + held)
        given_up = sent_at_of(sent) + world.gives_up
        if done is None:
            back = now + world.patience + world.travel(self.rng)
            self.at(back, self.failed, pool, sent, call, world.says, None, statement)
        elif done > given_up:
            self.at_server += 1
            self.at(done, self.left_alone)
            self.at(given_up, self.failed, pool, sent, call, "timeout", None, None)
        else:
            self.at_server += 1
            self.at(done, self.answered, pool, sent, call, statement)

    def worked_off(self, seconds: float) -> Optional[float]:
        """When the server will have done with so much work, None where it rejects a call that has to wait so long."""
        slots = self.world.slots
        if slots is None:
            return self.now + seconds
        begins = max(self.now, heapq.heappop(self.busy)) if len(self.busy) >= slots else self.now
        if begins > self.now + self.world.patience:
            heapq.heappush(self.busy, begins)
            return None
        heapq.heappush(self.busy, begins + seconds)
        return begins + seconds

    def left_alone(self) -> None:
        self.at_server -= 1

    def answered(self, pool: _Pool, sent: Any, call: _Call, statement: Any) -> None:
        self.at_server -= 1
        self.at(self.now + self.world.travel(self.rng), self.succeeded, pool, sent, call, statement)

    def succeeded(self, pool: _Pool, sent: Any, call: _Call, statement: Any) -> None:
        client = pool.client
        if statement is not None:
            client.pacing.reported(sent, self.now, statement, None)
        client.in_flight -= 1
        client.done += 1
        client.ended = self.now
        self.left -= 1
        was_open = pool.health.circuit.is_open
        pool.health.returned(_SUCCESS, sent_at_of(sent), self.now)
        client.pacing.accepted(sent, self.now, call.weight)
        if was_open and not pool.health.circuit.is_open:
            client.pacing.restart()
        self.look(pool)

    def failed(self, pool: _Pool, sent: Any, call: _Call, kind: str, hint: Optional[float], statement: Any) -> None:
        client, now = pool.client, self.now
        if statement is not None:
            client.pacing.reported(sent, now, statement, None)
        client.in_flight -= 1
        client.rejections.append(now)
        verdict = _VERDICTS[kind]._replace(retry_after=hint)
        pool.returned(verdict, sent, now)
        if call.retry is None:
            call.retry = pool.retrier.start(now)
        decision = pool.retrier.decide(
            call.retry, verdict, attempt=call.attempts, now=now, deadline=Deadline(), snapshot=pool.view(now)
        )
        if decision.wait is None:
            client.lost += 1
            self.left -= 1
        else:
            heapq.heappush(pool.parked, (now + decision.wait, next(self.tick), call))
        self.look(pool)


def ideal(world: World, client: Client, seed: int = 0) -> float:
    """Seconds that somebody needs who knows when the server will accept, and sends just then."""
    rng, server = random.Random(seed), world.server() if world.slots is None else Cap(world.slots)
    calls = _calls(world, client.calls, client.weight, seed)
    calls.reverse()
    answering: List[float] = []  # when the server will have answered, per request
    busy: List[float] = []  # when the worker will have the answer
    now = 0.0
    tenant_at = rng.expovariate(world.tenant) if world.tenant else math.inf
    while calls:
        for ends in (answering, busy):
            while ends and ends[0] <= now:
                heapq.heappop(ends)
        while tenant_at <= now:
            server.accept(tenant_at, 1.0)  # somebody else always gets what he asks for
            tenant_at += rng.expovariate(world.tenant)
        full = len(busy) >= client.workers
        wait = math.inf if full else server.free_in(now, len(answering), calls[-1].weight)
        if wait <= 0:
            call = calls.pop()
            seconds = server.accept(now, call.weight) + call.service
            heapq.heappush(answering, now + seconds)
            heapq.heappush(busy, now + seconds + world.travel(rng) + world.travel(rng))
        else:
            next_end = min(busy[:1] if full else busy[:1] + answering[:1], default=math.inf)
            now = min(now + wait, tenant_at, next_end)
    return max(busy)
