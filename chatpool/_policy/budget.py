"""Budget of a pool: tokens and money that were spent, and the tokens that a request is expected to take."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

from .._values import RequestSize
from ..config import Budget
from ..errors import BudgetExceededError, ChatPoolError, ConfigurationError
from ..prices import Price
from ..types import Usage

__all__ = ["BudgetReservation", "BudgetTracker", "TokenEstimate", "TokenEstimator"]


_TOKENS_PER_BYTE = 0.25  # of UTF-8: right for English within 25 %; learned from the first answer on
_COMPLETION_TOKENS = 256.0  # before any answer has shown how long they are
_ANSWERS_IN_MEAN = 50
_MAX_STEP_RATIO = 10.0  # one answer counts as at most this multiple of the mean: its usage may be a mistake
_MAX_TOKENS_PER_BYTE = 1.0  # a tokenizer with one token per byte; more does not come from the length of the prompt


class TokenEstimate(NamedTuple):
    """Tokens that a request is expected to take.

    Attributes:
        prompt: tokens read.
        completion: tokens written, the most that the request allows where it says so.
    """

    prompt: float
    completion: float

    @property
    def total(self) -> float:
        """Tokens read and written."""
        return self.prompt + self.completion


class TokenEstimator:
    """Learns tokens per byte and the length of answers from the answers of one (endpoint, model).

    OpenAI counts ``max_tokens`` of a request that has it, whatever the answer's length; so does this.

    Args:
        limit: see the attribute; None without one.

    Attributes:
        limit: tokens that may be sent in a minute; no request is estimated above it because other answers were long.
    """

    __slots__ = ("_answers", "_completion", "_tokens_per_byte", "limit")

    def __init__(self, limit: Optional[float] = None) -> None:
        self.limit = math.inf if limit is None else limit
        self._answers = 0
        self._tokens_per_byte = _TOKENS_PER_BYTE
        self._completion = _COMPLETION_TOKENS

    def estimate(self, size: RequestSize) -> TokenEstimate:
        """Return the tokens that a request of this size will take."""
        completion = self._completion if size.completion_limit is None else size.completion_limit
        return TokenEstimate(size.prompt_bytes * self._tokens_per_byte + size.other_tokens, completion * size.choices)

    def total(self, size: RequestSize) -> float:
        """Return the tokens of :meth:`estimate`, within the limit; on the hot path, several times per call."""
        completion = self._completion if size.completion_limit is None else size.completion_limit
        tokens = size.prompt_bytes * self._tokens_per_byte + size.other_tokens + completion * size.choices
        return tokens if tokens <= self.limit else max(self.limit, self._minimum(size))

    def _minimum(self, size: RequestSize) -> float:
        """Return what a request of this size allows itself, whatever other requests took."""
        completion = (
            min(self._completion, _COMPLETION_TOKENS) if size.completion_limit is None else size.completion_limit
        )
        prompt = size.prompt_bytes * min(self._tokens_per_byte, _MAX_TOKENS_PER_BYTE)
        return prompt + size.other_tokens + completion * size.choices

    def expected(self, size: RequestSize) -> TokenEstimate:
        """Return the estimate with the mean length of an answer where that is less than the request allows."""
        estimate = self.estimate(size)
        return estimate._replace(completion=min(estimate.completion, self._completion * size.choices))

    def learn(self, size: RequestSize, usage: Usage) -> None:
        """Learn from the usage of a request of this size."""
        self._answers += 1
        weight = 1 / min(_ANSWERS_IN_MEAN, self._answers)
        text_tokens = usage.prompt_tokens - size.other_tokens
        if size.prompt_bytes and text_tokens > 0:
            per_byte = min(
                text_tokens / size.prompt_bytes, _MAX_STEP_RATIO * max(self._tokens_per_byte, _TOKENS_PER_BYTE)
            )
            self._tokens_per_byte += weight * (per_byte - self._tokens_per_byte)
        if size.choices and usage.completion_tokens:
            completion = min(
                usage.completion_tokens / size.choices, _MAX_STEP_RATIO * max(self._completion, _COMPLETION_TOKENS)
            )
            self._completion += weight * (completion - self._completion)


_NO_PRICE = Price(0.0)


class BudgetReservation(NamedTuple):
    """Budget reserved for an attempt in flight; handed back when it returns.

    Attributes:
        tokens: tokens read and written.
        cost: money.
        price: of its model.
        expected: the tokens, each kind separately.
    """

    tokens: float
    cost: float
    price: Price
    expected: TokenEstimate


class BudgetTracker:
    """Reserves the expected cost of an attempt before it is sent, and books the real one after it.

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
        """Drop all reservations: in a forked child, the calls in flight are the parent's."""
        self._in_flight = 0
        self._reserved_tokens = self._reserved_cost = 0.0

    def would_exceed(self, model: Optional[str], expected: TokenEstimate, tier: Optional[str] = None) -> bool:
        """Return True if a call does not fit now, but may once a call in flight takes less than expected."""
        fits = self._fits(self.reservation(model, expected, tier), self._reserved_tokens, self._reserved_cost)
        return not fits and self._in_flight > 0 and not self._used_up()

    def rejection(
        self, model: Optional[str], expected: TokenEstimate, tier: Optional[str] = None
    ) -> Optional[ChatPoolError]:
        """Return why a call must not be sent at all, None if it may be."""
        budget = self._budget
        if budget.cost is not None and budget.prices.of_model(model) is None:
            return ConfigurationError(
                f"there is no price for the model {model!r} in Budget(prices=), so its cost cannot be kept; "
                "it was not sent"
            )
        need = self.reservation(model, expected, tier)
        if not self._used_up() and self._fits(need, self._reserved_tokens, self._reserved_cost):
            return None
        return BudgetExceededError(f"the budget is used up: {self._status(need)}; the call was not sent")

    def _used_up(self) -> bool:
        budget = self._budget
        out_of_tokens = budget.tokens is not None and self.tokens >= budget.tokens
        return out_of_tokens or (budget.cost is not None and self.cost >= budget.cost)

    def _fits(self, need: BudgetReservation, reserved_tokens: float, reserved_cost: float) -> bool:
        budget = self._budget
        if budget.tokens is not None and self.tokens + reserved_tokens + need.tokens > budget.tokens:
            return False
        return budget.cost is None or self.cost + reserved_cost + need.cost <= budget.cost

    def _status(self, need: BudgetReservation) -> str:
        budget, parts = self._budget, []
        if budget.tokens is not None:
            spent = f"{self.tokens:,.0f} of {budget.tokens:,.0f} tokens are spent"
            parts.append(f"{spent}, the next call takes about {need.tokens:,.0f}")
        if budget.cost is not None:
            spent = f"{self.cost:.4g} of {budget.cost:.4g} (cost) are spent"
            parts.append(f"{spent}, the next call takes about {need.cost:.2g}")
        return "; ".join(parts)

    def reservation(
        self, model: Optional[str], expected: TokenEstimate, tier: Optional[str] = None
    ) -> BudgetReservation:
        """Return the expected cost of a call to ``model``, in this service tier."""
        price = (self._budget.prices.of_model(model) or _NO_PRICE).of_tier(tier)
        return BudgetReservation(expected.total, price.cost(expected.prompt, expected.completion), price, expected)

    def sent(self, reservation: BudgetReservation) -> None:
        """Note that an attempt is sent."""
        self._in_flight += 1
        self._reserved_tokens += reservation.tokens
        self._reserved_cost += reservation.cost

    def returned(
        self, reservation: BudgetReservation, usage: Optional[Usage], *, answered: bool, wrote: bool = False
    ) -> None:
        """Note that an attempt has ended.

        Args:
            reservation: what was reserved for it.
            usage: what it took by the server's word, None where the server did not say.
            answered: True if it may have been billed: without usage it then counts as expected.
            wrote: True if the answer has text: then a usage without completion tokens does not say how many they were.
        """
        self._in_flight -= 1
        self._reserved_tokens = max(0.0, self._reserved_tokens - reservation.tokens) if self._in_flight else 0.0
        self._reserved_cost = max(0.0, self._reserved_cost - reservation.cost) if self._in_flight else 0.0
        if usage is not None:
            expected, price = reservation.expected, reservation.price
            # A prompt of 0 tokens is a missing number: every answer has read one.
            read = usage.prompt_tokens or expected.prompt
            written = usage.completion_tokens or (expected.completion if wrote else 0)
            self.tokens += read + written
            self.cost += price.cost(read, written, usage.cached_tokens) if usage.cost is None else usage.cost
        elif answered:
            self.tokens += reservation.tokens
            self.cost += reservation.cost
