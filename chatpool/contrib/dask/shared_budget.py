"""One budget for shards that run at the same time in several processes, without a counter that they share."""

from __future__ import annotations

from typing import Dict, Mapping, Optional

from ...batch.shards import Plan, bill, status
from ...config import Budget
from ...prices import Bill

__all__ = ["Amounts", "SharedBudget", "amounts_of"]

Amounts = Mapping[str, float]
"""Amounts of ``tokens``, of ``cost``, or of both, as a budget limits them."""

_LEAST_ROWS = 20  # for which a part should do: a smaller one would be spent with opening files


def amounts_of(budget: Budget, spent: Bill) -> Amounts:
    """Return what a bill has of the amounts that the budget limits."""
    amounts = {"tokens": float(spent.usage.total_tokens), "cost": spent.cost or 0.0}
    return {name: amount for name, amount in amounts.items() if getattr(budget, name) is not None}


class SharedBudget:
    """Shares out a budget, and takes back what shards leave over.

    A shard is allowed to have spent so much *in all*, with what its journal says of earlier runs.  So a task that Dask
    starts anew, after its worker was killed, is not allowed anything more.

    Args:
        budget: the limits.
        rows: rows without an outcome, by shard.
        spent: what earlier runs have spent, by shard.

    Attributes:
        gives_all: whether the next shard is allowed all that is left, and not its part.
    """

    def __init__(self, budget: Budget, rows: Mapping[int, int], spent: Mapping[int, Amounts]) -> None:
        self._limits = {name: getattr(budget, name) for name in amounts_of(budget, Bill(None))}
        self._pending = dict(rows)
        self._waiting = set(rows)
        self._spent = dict(spent)
        self._allowed: Dict[int, Amounts] = {}
        self._rows_before = sum(rows.values())
        self._spent_before = self.spent()
        self.gives_all = False

    @classmethod
    def of(cls, plan: Plan, budget: Budget) -> SharedBudget:
        """Return the budget of a plan, less what its journals say."""
        rows = {state.index: state.pending for state in status(plan)}
        return cls(budget, rows, {index: amounts_of(budget, bill(plan, index, budget.prices)) for index in rows})

    def spent(self) -> Amounts:
        """Return what is known to be spent."""
        return {name: sum(each[name] for each in self._spent.values()) for name in self._limits}

    def allow(self, index: int) -> Optional[Amounts]:
        """Return what a shard may have spent in all when it ends; None if nothing is left at this moment.

        A shard whose end is not known keeps what it was allowed.
        """
        if index in self._allowed:
            return self._allowed[index]
        rows = sum(self._pending[other] for other in self._waiting | {index}) or 1
        part = 1.0 if self.gives_all else self._pending[index] / rows
        parts = {name: self._part(name, left, part) for name, left in self._left().items()}
        if min(parts.values()) <= 0:
            return None
        self._waiting.discard(index)
        self._allowed[index] = {name: self._spent[index][name] + amount for name, amount in parts.items()}
        return self._allowed[index]

    def _left(self) -> Amounts:
        spent = self.spent()
        reserved = {
            name: sum(max(0.0, each[name] - self._spent[index][name]) for index, each in self._allowed.items())
            for name in self._limits
        }
        return {name: limit - spent[name] - reserved[name] for name, limit in self._limits.items()}

    def _part(self, name: str, left: float, part: float) -> float:
        ended = self._rows_before - sum(self._pending.values())
        mean = (self.spent()[name] - self._spent_before[name]) / ended if ended > 0 else 0.0
        return min(left, max(left * part, mean * _LEAST_ROWS))

    def settle(self, index: int, spent: Amounts, pending: int) -> None:
        """Book what a shard has spent in all, and take back the rest.

        Args:
            index: the number of the shard.
            spent: what its journal says.
            pending: its rows without an outcome, for which it comes again; 0 for none.
        """
        self._allowed.pop(index, None)
        self._spent[index] = spent
        self._pending[index] = pending
        if pending:
            self._waiting.add(index)
