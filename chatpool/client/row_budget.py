"""The budget of a run whose calls are made by other processes."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional

from ..journal import OK, Record
from ..measures import RequestSize
from ..policy.spending import Reservation
from ..policy.tokens import TokenEstimator
from ..types import ChatRequest, Usage
from ..wire.sizes import request_size
from .base import PoolBase

__all__ = ["RowBudget"]

_TIMED_OUT = "timed out"


class _Reserved(NamedTuple):
    amount: Reservation
    size: RequestSize
    estimator: TokenEstimator


class RowBudget:
    """Asks a pool's budget before a row is handed to another process, and tells it what the row took.

    As in the pool itself, what is under way counts as it is expected to end; a row that is handed over is under way.

    Args:
        pool: whose budget; without one everything is admitted.

    Attributes:
        limits: whether there is a budget.
    """

    def __init__(self, pool: PoolBase) -> None:
        engine = pool._core.engine
        self._spending = engine._spending
        self.limits = self._spending is not None
        self._lock = engine._scheduler.lock
        self._estimators: Dict[Optional[str], TokenEstimator] = {}
        self._reserved: Dict[int, _Reserved] = {}

    def reserve(self, key: int, request: ChatRequest) -> bool:
        """Reserve what a row is expected to take; False if that has to wait for others to end.

        Raises:
            BudgetExceededError: it does not fit any more.
            ConfigurationError: the budget has no price for its model.
        """
        if self._spending is None:
            return True
        size = request_size(request)
        estimator = self._estimators.setdefault(request.model, TokenEstimator())
        expected = estimator.expected(size)
        with self._lock:
            if self._spending.must_wait(request.model, expected):
                return False
            refusal = self._spending.refusal(request.model, expected)
            if refusal is not None:
                raise refusal
            amount = self._spending.reservation(request.model, expected)
            self._spending.sent(amount)
        self._reserved[key] = _Reserved(amount, size, estimator)
        return True

    def settle(self, record: Record, usage: Optional[Usage]) -> None:
        """The row has ended: book what it took."""
        reserved = self._reserved.pop(record.key, None)
        if reserved is None or self._spending is None:
            return
        if usage is not None:
            reserved.estimator.learn(reserved.size, usage)
        answered = record.state == OK
        timeouts = sum(attempt.reason == _TIMED_OUT for attempt in record.attempts)
        with self._lock:
            # An answer that did not come in time may have been written, and billed, all the same.
            for _ in range(timeouts):
                self._spending.sent(reserved.amount)
                self._spending.returned(reserved.amount, None, answered=True)
            self._spending.returned(reserved.amount, usage, answered=answered, wrote=answered)

    def release(self, key: int) -> None:
        """The row was not sent."""
        reserved = self._reserved.pop(key, None)
        if reserved is not None and self._spending is not None:
            with self._lock:
                self._spending.returned(reserved.amount, None, answered=False)
