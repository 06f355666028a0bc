"""What a pool has spent of its budget, and whether the next call fits into it."""

from __future__ import annotations

from typing import NamedTuple, Optional

from ..config import Budget
from ..errors import BudgetExceededError, ChatPoolError, ConfigurationError
from ..prices import Price
from ..types import Usage
from .tokens import TokenEstimate

__all__ = ["Reservation", "Spending"]

_FREE = Price(0.0)


class Reservation(NamedTuple):
    """What an attempt under way is expected to take; handed back when it returns.

    Attributes:
        tokens: tokens read and written.
        cost: money.
        price: of its model.
        expected: the tokens, each kind for itself.
    """

    tokens: float
    cost: float
    price: Price
    expected: TokenEstimate


class Spending:
    """Reserves before an attempt is sent what it is expected to take, and books after it what it took.

    Not thread-safe: the caller holds the lock.

    Args:
        budget: the settings.

    Attributes:
        tokens: tokens spent.
        cost: money spent.
    """

    __slots__ = ("_budget", "_in_flight", "_reserved_cost", "_reserved_tokens", "cost", "tokens")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.tokens = self.cost = 0.0
        self._reserved_tokens = self._reserved_cost = 0.0
        self._in_flight = 0

    def forget_in_flight(self) -> None:
        """Nothing is in flight: this is a forked child, and what was is the parent's."""
        self._in_flight = 0
        self._reserved_tokens = self._reserved_cost = 0.0

    def must_wait(self, model: Optional[str], expected: TokenEstimate) -> bool:
        """Whether a call does not fit now, but may when one that is in flight takes less than expected."""
        fits = self._fits(self.reservation(model, expected), self._reserved_tokens, self._reserved_cost)
        return not fits and self._in_flight > 0 and not self._used_up()

    def refusal(self, model: Optional[str], expected: TokenEstimate) -> Optional[ChatPoolError]:
        """Why a call must not be sent at all, None if it may be."""
        budget = self._budget
        if budget.cost is not None and budget.prices.of_model(model) is None:
            return ConfigurationError(
                f"there is no price for the model {model!r} in Budget(prices=), so its cost cannot be kept; "
                "it was not sent"
            )
        need = self.reservation(model, expected)
        if not self._used_up() and self._fits(need, self._reserved_tokens, self._reserved_cost):
            return None
        return BudgetExceededError(f"the budget is used up: {self._state(need)}; the call was not sent")

    def _used_up(self) -> bool:
        budget = self._budget
        out_of_tokens = budget.tokens is not None and self.tokens >= budget.tokens
        return out_of_tokens or (budget.cost is not None and self.cost >= budget.cost)

    def _fits(self, need: Reservation, reserved_tokens: float, reserved_cost: float) -> bool:
        budget = self._budget
        if budget.tokens is not None and self.tokens + reserved_tokens + need.tokens > budget.tokens:
            return False
        return budget.cost is None or self.cost + reserved_cost + need.cost <= budget.cost

    def _state(self, need: Reservation) -> str:
        budget, facts = self._budget, []
        if budget.tokens is not None:
            spent = f"{self.tokens:,.0f} of {budget.tokens:,.0f} tokens are spent"
            facts.append(f"{spent}, the next call takes about {need.tokens:,.0f}")
        if budget.cost is not None:
            spent = f"{self.cost:.4g} of {budget.cost:.4g} (cost) are spent"
            facts.append(f"{spent}, the next call takes about {need.cost:.2g}")
        return "; ".join(facts)

    def reservation(self, model: Optional[str], expected: TokenEstimate) -> Reservation:
        """What a call to ``model`` is expected to take."""
        price = self._budget.prices.of_model(model) or _FREE
        return Reservation(expected.total, price.cost(expected.prompt, expected.completion), price, expected)

    def sent(self, reservation: Reservation) -> None:
        """An attempt goes out."""
        self._in_flight += 1
        self._reserved_tokens += reservation.tokens
        self._reserved_cost += reservation.cost

    def returned(
        self, reservation: Reservation, usage: Optional[Usage], *, answered: bool, wrote: bool = False
    ) -> None:
        """An attempt has ended.

        Args:
            reservation: what was reserved for it.
            usage: what it took by the server's word, None where the server did not say.
            answered: whether it may have been paid for: without usage it then counts as expected.
            wrote: whether there is text in the answer: then a usage that has nothing written does not say how much.
        """
        self._in_flight -= 1
        self._reserved_tokens = max(0.0, self._reserved_tokens - reservation.tokens) if self._in_flight else 0.0
        self._reserved_cost = max(0.0, self._reserved_cost - reservation.cost) if self._in_flight else 0.0
        if usage is not None:
            expected, price = reservation.expected, reservation.price
            # Nothing is answered without being read.
            read = usage.prompt_tokens or expected.prompt
            written = usage.completion_tokens or (expected.completion if wrote else 0)
            self.tokens += read + written
            self.cost += price.cost(read, written, usage.cached_tokens) if usage.cost is None else usage.cost
        elif answered:
            self.tokens += reservation.tokens
            self.cost += reservation.cost
