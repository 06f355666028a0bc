"""Settings: immutable values whose shorthands are normalised once, at the edge."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Sequence, Tuple, Union

from ._redaction import secret
from .errors import APIError, ConfigurationError
from .prices import Prices, PricesLike, prices_of

if TYPE_CHECKING:
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

__all__ = ["Budget", "Limits", "RetryPolicy", "RetryPolicyLike", "Timeout", "TimeoutLike"]

# Longer waits overflow the platform's timers (threading.TIMEOUT_MAX is 2**32 ms on some).
_MAX_SECONDS = 4_000_000.0

_TOTAL_SECONDS = 1800.0
_BACKGROUND_SECONDS = 14_400.0
_MAX_RETRIES = 8
_PATIENCE_SECONDS = 30.0


def _seconds(name: str, value: Any, *, minimum: float = 0.0, exclusive: bool = True) -> float:
    """Return ``value`` as seconds; the error names the parameter."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    if math.isnan(value) or value < minimum or (exclusive and value == minimum) or value > _MAX_SECONDS:
        low = "more than" if exclusive else "at least"
        raise ConfigurationError(
            f"{name} must be {low} {minimum:g} and at most {_MAX_SECONDS:,.0f} seconds, got {value!r}"
        )
    return float(value)


@dataclass(frozen=True, init=False)
class Timeout:
    """Time limits, in seconds.  Each is cut to the time that is left of the larger ones.

    Args:
        connect: establishing a connection, TLS included. Default 5.
        read: silence between two pieces of an answer. None (the default) sets no limit of its own:
            a model that thinks sends nothing until it is done. In a stream it is the time between two
            events after the first content, and None means 60; comments extend it, at most to ``attempt``.
        attempt: one exchange with the server, from name resolution to the last byte, of a stream to its
            first content. Default 600.
        total: the whole call with its retries and waits. Default 1800. For a single call it counts
            from the method call; in a run it counts per item, from its first send.
        background: takes the place of ``total`` for a call whose response the server makes in the background
            (``background=True`` of the Responses API). None (the default) is 14,400 (4 hours), or ``total`` where that
            is not left at its default.

    ``Timeout(total=3)`` is a three-second budget.  Where a timeout is expected, a bare number means
    ``attempt`` and a pair means ``(connect, read)``.

    Raises:
        TypeError: a value is not a number.
        ConfigurationError: a value is not positive, or too large.
    """

    connect: float
    read: Optional[float]
    attempt: float
    total: float
    background: Optional[float] = None

    def __init__(
        self,
        *,
        connect: float = 5.0,
        read: Optional[float] = None,
        attempt: float = 600.0,
        total: float = _TOTAL_SECONDS,
        background: Optional[float] = None,
    ) -> None:
        fix = object.__setattr__
        fix(self, "connect", _seconds("timeout.connect", connect))
        fix(self, "read", None if read is None else _seconds("timeout.read", read))
        fix(self, "attempt", _seconds("timeout.attempt", attempt))
        fix(self, "total", _seconds("timeout.total", total))
        fix(self, "background", None if background is None else _seconds("timeout.background", background))

    @property
    def in_background(self) -> Tuple[float, str]:
        """The limit for a call whose response is made in the background, in seconds, and the name of the setting."""
        if self.background is not None:
            return self.background, "timeout.background"
        if self.total != _TOTAL_SECONDS:
            return self.total, "timeout.total"
        return _BACKGROUND_SECONDS, "timeout.background"

    @classmethod
    def of(cls, value: TimeoutLike, base: Optional[Timeout] = None) -> Timeout:
        """Normalise a shorthand: a Timeout as it is, a number as ``attempt``, a pair as ``(connect, read)``.

        Limits that a shorthand does not name are those of ``base``.
        """
        base = base or cls()
        if isinstance(value, Timeout):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return replace(base, attempt=_seconds("timeout", value))
        if isinstance(value, tuple) and len(value) == 2:
            connect, read = value
            return replace(base, connect=base.connect if connect is None else connect, read=read)
        raise TypeError(
            "timeout must be a number of seconds (for one attempt), a (connect, read) pair "
            f"or a chatpool.Timeout, got {value!r}"
        )


TimeoutLike = Union[Timeout, float, "tuple[Optional[float], Optional[float]]"]


@dataclass(frozen=True, init=False)
class RetryPolicy:
    """Rules for retries: when a failed attempt is made again, and after how long.

    Args:
        max_retries: attempts after the first one. Default 8. A 429 that may be retried uses up none of
            them (it is bounded by ``Timeout.total``). 0 means no second attempt for any reason.
        patience: seconds of 5xx and broken connections before a call is given up while other calls succeed, however
            many retries that takes; with it, a failure of a server that is only too busy uses up none. Default 30,
            and 0 where ``max_retries`` is given: then that number is the limit.
        max_timeout_retries: how many of them may follow an attempt that timed out. Default 2.
        wait_initial: the scale of the back-off in seconds. Default 0.25. The first wait of a call is
            ``U(0.5, 1) * wait_initial / 2``. It doubles with each failure of the call that chance does not explain:
            up to 4 may be chance while others succeed, none when everything fails. ``docs/explanation/retries`` has
            the formula.
        wait_max: the longest wait of our own in seconds. Default 60.
        retry_after_max: the longest wait asked by the server that is obeyed by waiting, in seconds.
            Default 120. A server that asks for more ends a run; a single call raises at once.
        max_outage: seconds for which a server may be down, or refuse every call, before a run is ended.
            Default 600; at most 30 where nothing has ever succeeded. Until then its calls are held without using
            up retries, and single probes look whether it is back.
        retry_if: ``callable(error) -> True | False | None``: True retries the error, False gives up,
            None leaves the decision to chatpool.
        stop: a tenacity stop strategy, for instance ``stop_after_attempt(20)``. Its attempt number counts
            every exchange; it replaces ``max_retries``, ``patience`` and ``max_timeout_retries``.
        wait: a tenacity wait strategy, for instance ``wait_random_exponential(min=1, max=60)``. The longer
            of it and the server's hint applies.

    Where a retry policy is expected, a bare int means ``max_retries``.

    Raises:
        TypeError: a value of the wrong type.
        ConfigurationError: a value out of range.
    """

    max_retries: int
    patience: float
    max_timeout_retries: int
    wait_initial: float
    wait_max: float
    retry_after_max: float
    max_outage: float
    retry_if: Optional[Callable[[APIError], Optional[bool]]]
    stop: Optional[StopBaseT]
    wait: Optional[WaitBaseT]

    def __init__(
        self,
        *,
        max_retries: Optional[int] = None,
        patience: Optional[float] = None,
        max_timeout_retries: int = 2,
        wait_initial: float = 0.25,
        wait_max: float = 60.0,
        retry_after_max: float = 120.0,
        max_outage: float = 600.0,
        retry_if: Optional[Callable[[APIError], Optional[bool]]] = None,
        stop: Optional[StopBaseT] = None,
        wait: Optional[WaitBaseT] = None,
    ) -> None:
        fix = object.__setattr__
        if patience is None:
            patience = _PATIENCE_SECONDS if max_retries is None else 0.0
        fix(self, "max_retries", _MAX_RETRIES if max_retries is None else non_negative_int("max_retries", max_retries))
        fix(self, "patience", _seconds("patience", patience, exclusive=False))
        fix(self, "max_timeout_retries", non_negative_int("max_timeout_retries", max_timeout_retries))
        fix(self, "wait_initial", _seconds("wait_initial", wait_initial, exclusive=False))
        fix(self, "wait_max", _seconds("wait_max", wait_max, exclusive=False))
        fix(self, "retry_after_max", _seconds("retry_after_max", retry_after_max, exclusive=False))
        fix(self, "max_outage", _seconds("max_outage", max_outage, exclusive=False))
        for name, strategy in (("retry_if", retry_if), ("stop", stop), ("wait", wait)):
            if strategy is not None and not callable(strategy):
                raise TypeError(f"{name} must be callable (a tenacity strategy for stop and wait), got {strategy!r}")
            fix(self, name, strategy)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Pickles of version 0.1.0 have no patience: there max_retries alone was the limit.
        self.__dict__.update({"patience": 0.0, **state})

    @classmethod
    def of(cls, value: RetryPolicyLike) -> RetryPolicy:
        """Normalise a shorthand: a RetryPolicy as it is, an int as ``max_retries``."""
        if isinstance(value, RetryPolicy):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(max_retries=value)
        raise TypeError(f"retry must be an int (max_retries) or a chatpool.RetryPolicy, got {value!r}")


RetryPolicyLike = Union[RetryPolicy, int]


@dataclass(frozen=True, init=False)
class Limits:
    """Rate limits per minute and per day for each model of an endpoint.

    Without them the pool finds the server's own limits: it reads ``x-ratelimit-*`` headers, and adapts to rejections.

    Args:
        requests_per_minute: requests sent in any minute, rejected ones included. Default None: no limit.
        tokens_per_minute: tokens of the requests sent in any minute: estimated before a request is sent (its text,
            and ``max_tokens`` or the usual length of an answer), corrected by the ``usage`` of its answer. A
            request of more tokens than this fails at once. Default None: no limit.
        requests_per_day: requests sent in any 24 hours, rejected ones included. Default None: no limit.
        tokens_per_day: the same for tokens, which are estimated and corrected as those of a minute.

            A run that meets a limit per day ends with a :class:`~chatpool.DayLimitError`, which says when to go on, or
            waits (``wait_for_day``). Without a ``scope`` only this pool counts, from when it was made: give one, and
            what was spent today is remembered by a process that starts again.
        burst: the amount that may be sent at once after a quiet time, in seconds' worth of the limit, at most 30.
            Default 1. So that no minute ever exceeds the limit, calls are spread at the limit less the burst.
        scope: who shares the limits. Default None: each pool has them for itself. A name: all pools of this user on
            this host that say the same name. ``"redis://host:port/name"``: all pools on all hosts that do (needs
            ``pip install 'chatpool[redis]'``). Then a server's refusal for rate pauses all of them.

    Raises:
        TypeError: a value of the wrong type.
        ConfigurationError: a value out of range.
    """

    requests_per_minute: Optional[float]
    tokens_per_minute: Optional[float]
    burst: float
    scope: Optional[str] = field(repr=False)  # there may be a password in it
    requests_per_day: Optional[float] = None
    tokens_per_day: Optional[float] = None

    def __init__(
        self,
        *,
        requests_per_minute: Optional[float] = None,
        tokens_per_minute: Optional[float] = None,
        requests_per_day: Optional[float] = None,
        tokens_per_day: Optional[float] = None,
        burst: float = 1.0,
        scope: Optional[str] = None,
    ) -> None:
        fix = object.__setattr__
        fix(self, "requests_per_minute", _at_least_one("requests_per_minute", requests_per_minute))
        fix(self, "tokens_per_minute", _at_least_one("tokens_per_minute", tokens_per_minute))
        fix(self, "requests_per_day", _at_least_one("requests_per_day", requests_per_day))
        fix(self, "tokens_per_day", _at_least_one("tokens_per_day", tokens_per_day))
        seconds = _seconds("burst", burst)
        if seconds > 30:
            raise ConfigurationError(f"burst must be at most 30 seconds' worth, got {burst!r}")
        fix(self, "burst", seconds)
        if scope is not None and not isinstance(scope, str):
            raise TypeError(f"scope must be a name or the URL of a Redis with a name at its end, got {scope!r}")
        fix(self, "scope", secret(scope))

    @property
    def any(self) -> bool:
        """True if anything is limited."""
        return self.per_day or self.requests_per_minute is not None or self.tokens_per_minute is not None

    @property
    def per_day(self) -> bool:
        """True if anything is limited per day."""
        return self.requests_per_day is not None or self.tokens_per_day is not None

    def in_parts(self, parts: float, scope: Optional[str]) -> Limits:
        """Return one of ``parts`` equal shares of the limits, in another scope.

        Args:
            parts: how many.
            scope: see the class.
        """
        names = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day")
        amounts = {name: getattr(self, name) for name in names}
        shares = {name: max(1, amount / parts) for name, amount in amounts.items() if amount is not None}
        return Limits(**shares, burst=self.burst, scope=scope)


@dataclass(frozen=True, init=False)
class Budget:
    """The most that a pool may spend in its life; when it is reached, calls end with ``BudgetExceededError``.

    It is checked before every attempt with the attempt's expected usage, and corrected by the ``usage`` of its answer;
    so it is exceeded at most by the calls in flight.

    Args:
        tokens: tokens read and written. Default None: no limit.
        cost: money, in the currency of ``prices``. Default None: no limit.
        prices: by model, what a million tokens cost: ``{"model": (read, written)}``, with a third figure for those
            read from the prompt cache, or with one alone for embeddings; without a dict the price of every model. A
            file of prices in LiteLLM's form is taken by its name. Needed for ``cost``; nothing is looked up anywhere.
            A call to a model without a price is not sent. Where the server states the cost of an answer
            (``usage.cost``), that counts.

    Raises:
        TypeError: a value of the wrong type.
        ConfigurationError: a value out of range, no limit at all, or a cost without prices.
    """

    tokens: Optional[float]
    cost: Optional[float]
    prices: Prices

    def __init__(
        self,
        *,
        tokens: Optional[float] = None,
        cost: Optional[float] = None,
        prices: Optional[PricesLike] = None,
    ) -> None:
        fix = object.__setattr__
        fix(self, "tokens", None if tokens is None else _amount("budget.tokens", tokens))
        fix(self, "cost", None if cost is None else _amount("budget.cost", cost))
        fix(self, "prices", prices_of({} if prices is None else prices, "budget.prices"))
        if tokens is None and cost is None:
            raise ConfigurationError("a Budget needs tokens= or cost=")
        if cost is not None and not self.prices:
            raise ConfigurationError("Budget(cost=) needs prices={model: (read, written)}, per million tokens")


def _restore_budget(tokens: Optional[float], cost: Optional[float], prices: Mapping[str, Any]) -> Budget:
    """Restore a budget that version 0.1.0 has pickled, alone or in a pool."""
    return Budget(tokens=tokens, cost=cost, prices=prices)


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < math.inf:
        raise ConfigurationError(f"{name} must be 0 or more, got {value!r}")
    return float(value)


def _at_least_one(name: str, value: Any) -> Optional[float]:
    if value is None:
        return None
    amount = _amount(name, value)
    if amount < 1:
        raise ConfigurationError(f"{name} must be at least 1, got {value!r}; None means no limit")
    return amount


def non_negative_int(name: str, value: Any) -> int:
    """Return ``value`` if it is a whole number of at least 0; the error names the parameter."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 0:
        raise ConfigurationError(f"{name} must be 0 or more, got {value}")
    return value


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``allowed``; the error names the parameter and the choices."""
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ConfigurationError(f"{name} must be one of {choices}, got {value!r}")
    return str(value)


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` if it is a whole number of at least 1; the error names the parameter."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ConfigurationError(f"{name} must be at least 1, got {value}")
    return value


def positive_seconds(name: str, value: Any) -> float:
    """Return ``value`` as a positive number of seconds; the error names the parameter."""
    return _seconds(name, value)
