"""The trials: clients, numbers of calls, and fronts."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from ..children import APART, CAP, run_capped, side_by_side
from ..contenders import CONTENDERS, RIVALS, installed
from ..measure import Sample, rounds
from .fronts import FRONTS, LATENCY, running
from .model_server import Entry

__all__ = ["CAP", "CHATPOOL", "RETRIES", "ROWS", "Row", "Trial", "counted", "measure_trials", "run", "trials"]

RETRIES = 8
"""The retries of OpenAI's SDK: as many as chatpool has by default."""

CHATPOOL = "chatpool"
_OTHERS = ("openai", "aiohttp", "requests", *RIVALS)
_REFUSALS = (429, 503)
_SIDE_BY_SIDE = 8
_WAITING = 3  # clients that sleep after each refusal: so many take turns with the CPUs
_LONG = 6000  # calls


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        title: how the report calls it.
        front: which of :data:`.fronts.FRONTS`.
        calls: how many there are.
        ideal: seconds of a client that knows the limit; 0 where the time is taken against ``base``.
        over: the bound of the time, as a multiple of the ideal or of the base; 0 for none.
        refused: the bound of the refusals; 0 for none.
        base: the row without refusals, by its key.
        workers: calls in flight at most, a run for each.
        others: contenders besides chatpool, which make one run, with the first number of workers.
    """

    title: str
    front: str
    calls: int
    ideal: float = 0.0
    over: float = 0.0
    refused: int = 0
    base: str = ""
    workers: Tuple[int, ...] = (64,)
    others: Tuple[str, ...] = ()

    @property
    def limited(self) -> bool:
        """True if there is a limit, which leaves the machine idle most of the time."""
        return self.ideal > 0


class Trial(NamedTuple):
    """One client against one front."""

    row: str
    contender: str
    workers: int


def _by_rate(calls: int) -> float:
    return (calls - 3) / 5  # one at once, two that nginx delays, five a second


def _by_places(calls: int, places: int) -> float:
    return calls * LATENCY / places


ROWS: Mapping[str, Row] = {
    "limit_req": Row(
        "nginx `limit_req` 5/s burst 2, 503", "limit_req", 100, _by_rate(100), 1.15, 100, "", (16, 64), _OTHERS
    ),
    "limit_conn": Row(
        "nginx `limit_conn` 3, 503", "limit_conn", 100, _by_places(100, 3), 1.3, 60, "", (16, 64), _OTHERS
    ),
    "queue": Row(
        "haproxy, 4 places, `timeout queue 500ms`, 503",
        "queue",
        200,
        _by_places(200, 4),
        1.3,
        100,
        workers=(64, 16),
        others=_OTHERS,
    ),
    "limit_req-429": Row(
        "nginx `limit_req` 5/s burst 2, 429", "limit_req-429", 60, _by_rate(60), workers=(16,), others=("openai",)
    ),
    "limit_conn-429": Row(
        "nginx `limit_conn` 3, 429", "limit_conn-429", 60, _by_places(60, 3), workers=(16,), others=("openai",)
    ),
    "table": Row("haproxy stick-table, 10 in 2 s, 503", "table", 60, 10.0, workers=(16,), others=("openai",)),
    "open": Row("no refusals", "open", 1200, others=_OTHERS),
    "random-5-250ms": Row(
        "5 % at random, retry-after-ms 250", "random-5-250ms", 1200, over=1.5, base="open", others=_OTHERS
    ),
    "random-15": Row("15 % at random, no hint", "random-15", 1200, over=2.0, base="open", others=_OTHERS),
    "random-5-1s": Row("5 % at random, Retry-After 1", "random-5-1s", 1200, over=2.0, base="open", others=_OTHERS),
    "random-30": Row("30 % at random, no hint", "random-30", 1200, over=3.0, base="open", others=_OTHERS),
    "open-6000": Row("no refusals", "open", 6000),
    "random-5-6000": Row("5 % at random, no hint", "random-5", 6000, over=1.3, base="open-6000"),
    "random-30-6000": Row("30 % at random, no hint", "random-30", 6000, over=1.6, base="open-6000"),
}

_QUICK = (Trial("limit_conn", CHATPOOL, 16), Trial("open", CHATPOOL, 64), Trial("random-5-250ms", CHATPOOL, 64))


def trials(turn: int, quick: bool) -> List[Trial]:
    """Return the trials of a round; other clients than chatpool, and long rows, are in the first one only."""
    if quick:
        return list(_QUICK)
    rows = {key: row for key, row in ROWS.items() if turn == 0 or row.calls < _LONG}
    selected = [Trial(key, CHATPOOL, workers) for key, row in rows.items() for workers in row.workers]
    if turn == 0:
        selected += [Trial(key, other, row.workers[0]) for key, row in ROWS.items() for other in row.others]
    return selected


def measure_trials(quick: bool) -> List[Sample]:
    """Every trial, round by round.

    Those with a limit are made side by side, those without one after the other, or for other clients than chatpool a
    few at a time.  Clients that pause are begun beside the first, one soon after the other: each makes a few calls, and
    waits until it is ended.  Beside, as what is refused at random does not depend on their pace.
    """
    samples: List[Sample] = []
    clients = [CHATPOOL, *([] if quick else installed(_OTHERS))]
    for turn in range(rounds(1 if quick else 2)):
        chosen = [trial for trial in trials(turn, quick) if trial.contender in clients]
        pausing = [trial for trial in chosen if _pauses(trial)]
        limited = [trial for trial in chosen if ROWS[trial.row].limited]
        alone = [trial for trial in chosen if trial not in pausing and trial not in limited]
        with ThreadPoolExecutor(1) as beside:
            waiting = beside.submit(side_by_side, run, pausing, len(pausing), APART)
            outcomes = dict(zip(limited, side_by_side(run, limited, _SIDE_BY_SIDE)))
            outcomes.update(zip(pausing, waiting.result()))
        ours, theirs = ([trial for trial in alone if (trial.contender == CHATPOOL) is mine] for mine in (True, False))
        outcomes.update(zip(ours, side_by_side(run, ours, 1)))
        outcomes.update(zip(theirs, side_by_side(run, theirs, _WAITING)))
        samples += [{"round": turn, **outcomes[trial][0]} for trial in chosen]
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def _pauses(trial: Trial) -> bool:
    # The limiters of the rows that have an ideal and other clients say 503.
    return CONTENDERS[trial.contender].pauses and bool(ROWS[trial.row].base)


def run(trial: Trial, cap: float = CAP) -> Tuple[Sample, List[Entry]]:
    """Make a trial's calls; return its sample, and the log of the front.

    Refusals, and answers to a client that was ended, are counted on the server's side.
    """
    row = ROWS[trial.row]
    with running(FRONTS[row.front]) as front:
        target = {"base_url": front.base_url, "workers": trial.workers, "retries": RETRIES}
        spec: Dict[str, Any] = {"contender": trial.contender, "target": target, "calls": row.calls, "warm_up": 0}
        measured = run_capped("contender_child", spec, cap)
        log = front.log()
    counts = counted(row.calls, log, measured, cap)
    return {**trial._asdict(), "calls": row.calls, **counts, "ended": bool(measured)}, log


def counted(calls: int, log: Sequence[Entry], measured: Mapping[str, Any], cap: float) -> Dict[str, Any]:
    """Return the counts of a run by the server's log and the client's measurement, which is empty if it was ended."""
    statuses = [status for _, status in log]
    answered = calls - measured["lost"] if measured else statuses.count(200)
    return {
        "wall": measured.get("wall", cap),
        "answered": answered,
        "lost": calls - answered,
        "refused": sum(statuses.count(status) for status in _REFUSALS),
    }
