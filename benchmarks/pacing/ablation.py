"""Every part of ``chatpool._policy`` that decides about the pace or a retry, switched off in turn: which bounds fall?

Simulated, so a run gives the same table each time.  Parts are switched off by patching them, here only.
"""

from __future__ import annotations

import itertools
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator, List, NamedTuple, Sequence, Tuple
from unittest import mock

from chatpool._policy.adaptive import (
    concurrency,
    controller,
    random_rejections,
    rate,
    sequential_tests,
    slow_start,
    states,
)
from chatpool._policy.adaptive.concurrency import ConcurrencyController
from chatpool._policy.adaptive.controller import AdaptiveLimiter, Backlog, Overload
from chatpool._policy.adaptive.rate import RateController, RateProbe
from chatpool._policy.adaptive.send_log import Rejection, SendLog
from chatpool._policy.adaptive.sequential_tests import BackgroundRate
from chatpool._policy.adaptive.slow_start import SlowStart
from chatpool._policy.adaptive.states import LimitedByConcurrency, LimitedByRate, LimitState, Probing
from chatpool._policy.circuit_breaker import CircuitBreaker
from chatpool._policy.health import FailureRate
from chatpool._policy.pacing import Pacer
from chatpool._policy.retry import RetryState

from ..measure import Sample, grouped
from ..tables import Table

__all__ = ["PARTS", "WHOLE", "Part", "measure", "switched_off", "tables"]

WHOLE = "nothing"
_WORSE = 1.05  # a bound that does not hold with all parts falls where it gets so much worse


class Part(NamedTuple):
    """A part, and what takes its place.

    Attributes:
        name: where it is, and what it does.
        patches: objects, their attributes, and the values that these get.
    """

    name: str
    patches: Tuple[Tuple[object, str, Any], ...]


def _returning(value: object) -> Callable[..., Any]:
    return lambda *arguments, **named: value


def _always(value: object) -> Any:
    return property(lambda self: value, lambda self, ignored: None)


def _doubt_at_once(
    send_log: SendLog, rejection: Rejection, pause: float, share: object = None, in_flight_before: object = None
) -> LimitState:
    return Probing(send_log, rejection, pause)


def _rate_at_once(send_log: SendLog, rejection: Rejection, pause: float) -> LimitState:
    return LimitedByRate(send_log, rejection.accept_rate, rejection.sent_at, rejection.now)


def _number_at_once(send_log: SendLog, rejection: Rejection, pause: float) -> LimitState:
    return LimitedByConcurrency(send_log, max(1, rejection.in_flight))


def _never_chance(send_log: SendLog, share: float) -> LimitState:
    last = send_log._latest_sends[-1][0]
    return Probing(
        send_log,
        Rejection(last, last, send_log.in_flight, send_log.sent - send_log.rejected, send_log.send_rate(last), None),
        0,
    )


def _without_patience(state: RetryState, patience: float, now: float, line: object) -> None:
    state.patient = False


def _constant(module: object, name: str, value: float) -> Tuple[Tuple[object, str, Any], ...]:
    return ((module, name, value),)


PARTS: Sequence[Part] = (
    Part("slow start", ((SlowStart, "wait", _returning(0.0)),)),
    Part("limits stated in headers", ((Pacer, "reported", _returning(None)),)),
    Part(
        "load trial",
        tuple((module, "LoadTrial", _doubt_at_once) for module in (slow_start, controller, random_rejections)),
    ),
    Part("random rejections (nothing is chance)", ((random_rejections, "RandomRejections", _never_chance),)),
    Part(
        "random rejections becomes a limit after all",
        ((random_rejections.RandomRejections, "rejected", lambda self, *arguments: self),),
    ),
    Part("sequential tests: background rate beside a limit", ((BackgroundRate, "explains", _returning(False)),)),
    Part("sequential tests: the background rate falls", _constant(sequential_tests, "_SAMPLE_REJECTIONS", math.inf)),
    Part("rate probe", ((RateProbe, "rejected", _returning(False)),)),
    Part("rate probe: the chance it shows", ((RateProbe, "random_share", _returning(0.0)),)),
    Part("limit unknown: probing (a rate at once)", ((random_rejections, "Probing", _rate_at_once),)),
    Part("limit unknown: probing (a number at once)", ((random_rejections, "Probing", _number_at_once),)),
    Part("limit: votes from a rate to a number", ((LimitedByRate, "_vote", _returning(None)),)),
    Part("limit: from a number to a rate", _constant(states, "_REJECTIONS_AWAY_FROM_LIMIT", math.inf)),
    Part("limit: later refusals correct the first", ((Probing, "also_rejected", lambda self, rejection: self),)),
    Part("concurrency: probes", ((ConcurrencyController, "_wait_for_probe", _returning(math.inf)),)),
    Part("concurrency: their distance", _constant(concurrency, "_PROBE_DISTANCE_RATIO", 0.0)),
    Part("concurrency: growing steps", _constant(concurrency, "_MAX_STEP_SHARE", 0.0)),
    Part("concurrency: growing patience", _constant(concurrency, "_MAX_PROBE_INTERVAL_SECONDS", 1.0)),
    Part("fair share yield", _constant(concurrency, "_YIELD_SHARE", 0.0)),
    Part("rate: what was refilled", ((RateController, "_refilled", _returning(())),)),
    Part("rate: the cut", _constant(rate, "_CUT_RATIO", 1.0)),
    Part("rate: growth waits after a long pause", _constant(rate, "_HOLD_PAUSES", 1.0)),
    Part("rate: growth doubles", _constant(rate, "_MAX_GROWTH_EXPONENT", 0.0)),
    Part("rate: slow senders grow faster", _constant(rate, "_CONVERGENCE_EXPONENT", 0.0)),
    Part("rate: headroom", _constant(rate, "_HEADROOM_RATIO", math.inf)),
    Part("controller: pauses double", _constant(controller, "_MAX_PAUSE_EXPONENT", 0)),
    Part("overload", ((Overload, "failed", _returning(False)),)),
    Part("overload: says when the server is down", ((AdaptiveLimiter, "down", _always(None)),)),
    Part("overload: was an outage", ((Overload, "was_outage", _returning(False)),)),
    Part("overload: a server that is down has no limit", ((random_rejections.LoadTrial, "silent", _always(False)),)),
    Part("overload: as much as before is accepted", _constant(random_rejections, "_MIN_FULL_ANSWERS", math.inf)),
    Part("overload: short pauses in silence", _constant(controller, "_MAX_SILENT_PAUSE_SECONDS", 1.0)),
    Part("overload: faster after refused probes", _constant(random_rejections, "_LONG_OUTAGE_PROBES", math.inf)),
    Part("overload: faster after a long silence", _constant(random_rejections, "_LONG_SILENCE_SECONDS", math.inf)),
    Part("backlog", ((Backlog, "explains", _returning(False)),)),
    Part("backlog: whether fewer calls help", _constant(controller, "_SOONER_RATIO", math.inf)),
    Part("luck", ((FailureRate, "expected_run", _returning(0)),)),
    Part("outage gate", ((CircuitBreaker, "_failed", _returning(None)),)),
    Part("retry: the refusals of a call that are chance", ((Pacer, "chance_rejections", _always(0)),)),
    Part("retry: a failure due to the load costs none", ((Pacer, "overloaded", _always(False)),)),
    Part("retry: patience", ((RetryState, "update_patience", _without_patience),)),
)


@contextmanager
def switched_off(part: Part) -> Iterator[None]:
    """Do without the part."""
    with ExitStack() as stack:
        for place, attribute, value in part.patches:
            stack.enter_context(mock.patch.object(place, attribute, value))
        yield


def measure(quick: bool) -> List[Sample]:
    """Every bound with all parts, then without each of them; as many at once as there are cores."""
    parts = (Part(WHOLE, ()), *PARTS)
    samples: List[Sample] = []
    with ProcessPoolExecutor() as processes:
        for part, measured in zip(parts, processes.map(_without, range(-1, len(PARTS)), itertools.repeat(quick))):
            samples += measured
            print(f"without {part.name}", file=sys.stderr, flush=True)
    return samples


def _without(number: int, quick: bool) -> List[Sample]:
    from .bounds import figures

    part = Part(WHOLE, ()) if number < 0 else PARTS[number]
    with switched_off(part):
        return [{"round": 0, "part": part.name, **figure._asdict()} for figure in figures(quick)]


class _Fall(NamedTuple):
    """A bound that falls without a part: to ``found``, from ``before``."""

    what: str
    found: float
    before: float
    limit: float

    @property
    def by(self) -> float:
        """How far it is from what is needed."""
        return self.found / max(self.before, self.limit, 1e-3)

    def show(self) -> str:
        """For a table."""
        return f"{self.what} {self.before:,.3g} → {self.found:,.3g} (at most {self.limit:,.3g})"


def tables(samples: Sequence[Sample]) -> List[Table]:
    """What falls without each part, the worst first; and what holds with none of them away."""
    parts = grouped(samples, "part")
    whole = {sample["what"]: sample for sample in parts[WHOLE]}
    rows = []
    for name, measured in parts.items():
        if name != WHOLE:
            changes = [_Fall(s["what"], s["found"], whole[s["what"]]["found"], s["limit"]) for s in measured]
            falls = sorted((change for change in changes if _fallen(change)), key=lambda fall: -fall.by)
            worse = sum(change.found > _WORSE * change.before for change in changes)
            rows.append([str(name), str(len(falls)), str(worse), "; ".join(fall.show() for fall in falls[:4]) or "-"])
    note = f"{len(whole)} bounds, each without one part: how many fall, and the four that fall furthest."
    columns = ("without", "bounds that fall", "more than 5 % worse", "bound: with and without the part")
    fallen = [sample for sample in whole.values() if sample["found"] > sample["limit"]]
    broken = [[s["what"], f"{s['limit']:,.3g}", f"{s['found']:,.3g}"] for s in fallen]
    return [
        Table("What each part is for", columns, rows, note),
        Table("Bounds that do not hold with these few seeds", ("what", "bound", "measured"), broken),
    ]


def _fallen(change: _Fall) -> bool:
    tolerance = _WORSE if change.before > change.limit else 1.0
    return change.found > max(change.limit, change.before * tolerance)
