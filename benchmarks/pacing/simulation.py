"""Pools against a simulated server, event by event on a clock of their own: no threads, no waiting."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, List, Optional, Protocol, Tuple

from .servers import Server, stated

__all__ = ["Client", "Draw", "Pacing", "World", "ideal", "simulate"]

Draw = Callable[[random.Random], float]


class Pacing(Protocol):
    """What is simulated."""

    def wait(self, now: float, tokens: float) -> float: ...
    def sent(self, now: float, tokens: float) -> Any: ...
    def accepted(self, sent: Any, now: float, used: Optional[float]) -> None: ...
    def refused(self, sent: Any, now: float, hint: Optional[float]) -> None: ...
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
        refusing: seconds that the server takes to refuse.
        hint: ``"exact"``, ``"whole"`` (seconds) or None.
        hint_fallback: the hint of a server that cannot know.
        tenant: requests a second that somebody else sends.
        lateness: seconds by which a thread wakes up too late, at most.
        states: what the server's answers state of its limit, None for servers that state nothing.
        slots: requests that the server works on at once, the others wait; None for all.
    """

    server: Callable[[], Server]
    service: Draw
    travel: Draw = _constant(0.0005)
    refusing: Draw = _constant(0.0005)
    hint: Optional[str] = "exact"
    hint_fallback: float = 0.25
    tenant: float = 0.0
    lateness: float = 0.0005
    states: Optional[Callable[[Any, float], Any]] = None
    slots: Optional[int] = None


class _Call:
    """One call: what it takes of the limit and of the server's time, and how often it was refused."""

    __slots__ = ("refusals", "service", "weight")

    def __init__(self, weight: float, service: float) -> None:
        self.weight, self.service, self.refusals = weight, service, 0


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
    in_flight: int = 0
    done: int = 0
    ended: float = 0.0
    sends: List[float] = field(default_factory=list)
    refusals: List[float] = field(default_factory=list)


def simulate(world: World, clients: List[Client], seed: int = 0, until: float = 1e5) -> None:
    """Run all calls of all clients."""
    _Run(world, clients, seed).go(until)


class _Pool:
    """A client while it runs."""

    def __init__(self, client: Client, calls: List[_Call]) -> None:
        self.client = client
        self.due: Deque[_Call] = deque(calls)
        self.parked: List[Tuple[float, int, _Call]] = []
        self.wake = math.inf


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
            wait = client.pacing.wait(now, due[0].weight)
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
        ticket = client.pacing.sent(self.now, call.weight)
        client.in_flight += 1
        client.sends.append(self.now)
        self.at(self.now + self.world.travel(self.rng), self.arrive, pool, ticket, call)

    def arrive(self, pool: _Pool, ticket: Any, call: _Call) -> None:
        world, rng, now = self.world, self.rng, self.now
        exact = self.server.free_in(now, self.at_server, call.weight)
        if exact <= 0:
            self.server.accept(now, call.weight)
        statement = world.states(self.server, now) if world.states else None
        if exact <= 0:
            self.at_server += 1
            self.at(self.worked_off(call), self.answered, pool, ticket, call, statement)
        else:
            hint = stated(world.hint, exact, world.hint_fallback)
            back = now + world.refusing(rng) + world.travel(rng)
            self.at(back, self.refused, pool, ticket, call, hint, statement)

    def worked_off(self, call: _Call) -> float:
        """When the server will have done with the call."""
        slots = self.world.slots
        if slots is None:
            return self.now + call.service
        begins = max(self.now, heapq.heappop(self.busy)) if len(self.busy) >= slots else self.now
        heapq.heappush(self.busy, begins + call.service)
        return begins + call.service

    def answered(self, pool: _Pool, ticket: Any, call: _Call, statement: Any) -> None:
        self.at_server -= 1
        self.at(self.now + self.world.travel(self.rng), self.succeeded, pool, ticket, call, statement)

    def succeeded(self, pool: _Pool, ticket: Any, call: _Call, statement: Any) -> None:
        client = pool.client
        if statement is not None:
            client.pacing.stated(ticket, self.now, statement, None)
        client.in_flight -= 1
        client.done += 1
        client.ended = self.now
        self.left -= 1
        client.pacing.accepted(ticket, self.now, call.weight)
        self.look(pool)

    def refused(self, pool: _Pool, ticket: Any, call: _Call, hint: Optional[float], statement: Any) -> None:
        client = pool.client
        if statement is not None:
            client.pacing.stated(ticket, self.now, statement, None)
        client.in_flight -= 1
        client.refusals.append(self.now)
        client.pacing.refused(ticket, self.now, hint)
        heapq.heappush(pool.parked, (self.now + _back_off(self.rng, call.refusals, hint), next(self.tick), call))
        call.refusals += 1
        self.look(pool)


def _back_off(rng: random.Random, refusals: int, hint: Optional[float]) -> float:
    """As the engine's own, with the settings' defaults."""
    if hint is not None:
        return hint * rng.uniform(1.0, 1.05)
    return float(min(60.0, rng.uniform(0.5, 1.0) * 0.125 * 2.0 ** min(refusals, 30)))


def ideal(world: World, client: Client, seed: int = 0) -> float:
    """Seconds that somebody needs who knows when the server will accept, and sends just then."""
    rng, server = random.Random(seed), world.server()
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
            server.accept(now, call.weight)
            heapq.heappush(answering, now + call.service)
            heapq.heappush(busy, now + call.service + world.travel(rng) + world.travel(rng))
        else:
            next_end = min(busy[:1] if full else busy[:1] + answering[:1], default=math.inf)
            now = min(now + wait, tenant_at, next_end)
    return max(busy)
