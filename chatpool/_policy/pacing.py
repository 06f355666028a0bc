"""Pacing of one (endpoint, model): its configured, reported and learned limits in one object."""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple, Optional, Tuple

from .._values import Hold, StatedLimit, duration_text
from ..config import Limits
from .adaptive.controller import AdaptiveLimiter
from .adaptive.send_log import SendRecord
from .adaptive.slow_start import Unlimited
from .day_window import DayLimits
from .header_limits import HeaderLimit, Overlap
from .rate_limiter import RateLimiter

__all__ = ["PacedSend", "Pacer", "PacingState", "asked_to_wait", "limit_hold"]

_LONG_WAIT_SECONDS = 2.0  # from which on the time tells more than the rate


class PacedSend(NamedTuple):
    """Record of an attempt that was sent; handed back when it returns.

    Attributes:
        record: the record of the send log.
        tokens: the tokens it was expected to take.
        tokens_sent: tokens sent with it, since the first send.
    """

    record: SendRecord
    tokens: float
    tokens_sent: float


class PacingState(NamedTuple):
    """Pacing of one (endpoint, model) at one moment, for statistics.

    Attributes:
        rate: sends a second, None where nothing limits it.
        concurrency_limit: calls in flight at most, None where nothing limits them below the pool's workers.
        paused_for: seconds until calls are sent again, None when it is not paused.
        why: a short description of what limits it; None without a limit.
    """

    rate: Optional[float] = None
    concurrency_limit: Optional[int] = None
    paused_for: Optional[float] = None
    why: Optional[str] = None


class Pacer:
    """Admits calls within the limits that are configured, reported in headers, and learned from rejections.

    Not thread-safe: the caller holds the lock.  The caller asks for the call that is next in its queue and sends it
    before it asks for another, so calls are served in order.

    Args:
        limits: the configured limits, None without any.

    Attributes:
        counts_tokens: True if the tokens of a call matter, as they do wherever a day is limited.
    """

    __slots__ = ("_adaptive", "_rate_limiter", "_requests", "_tokens", "_tokens_sent", "counts_tokens")

    def __init__(self, limits: Optional[Limits] = None) -> None:
        self._adaptive = AdaptiveLimiter()
        self._rate_limiter = RateLimiter(limits) if limits is not None and limits.any else None
        self._requests: Optional[HeaderLimit] = None
        self._tokens: Optional[HeaderLimit] = None
        self._tokens_sent = 0.0
        self.counts_tokens = limits is not None and (limits.per_day or limits.tokens_per_minute is not None)

    @property
    def limited(self) -> bool:
        """True if anything is known to limit the pace."""
        learned = self._requests is not None or self._tokens is not None
        return learned or self._rate_limiter is not None or not isinstance(self._adaptive.state, Unlimited)

    @property
    def configured_rate(self) -> Optional[float]:
        """Calls a second that are configured, None without such a limit."""
        return None if self._rate_limiter is None else self._rate_limiter.per_second

    @property
    def max_tokens(self) -> float:
        """Tokens of the largest call that may be sent, by configured or reported limits; ``inf`` where any may be."""
        configured = math.inf if self._rate_limiter is None else self._rate_limiter.max_tokens
        return configured if self._tokens is None else min(configured, self._tokens.limit)

    def too_large(self, tokens: float) -> Optional[str]:
        """Return why a call of ``tokens`` tokens can never be sent, None if it can."""
        return None if self._rate_limiter is None else self._rate_limiter.too_large(tokens)

    def day_wait(self, now: float, tokens: float = 0.0) -> float:
        """Return the seconds until the configured day has room for a call of ``tokens`` tokens."""
        return 0.0 if self._rate_limiter is None else self._rate_limiter.day_wait(now, tokens)

    def day_left(self, now: float) -> Optional[DayLimits]:
        """Return what the configured day has left, None without one that is this process's own."""
        return None if self._rate_limiter is None else self._rate_limiter.day_left(now)

    @property
    def remembers_day(self) -> bool:
        """True if what was sent may still count against a configured day that is this process's own."""
        return self._rate_limiter is not None and self._rate_limiter.remembers_day

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float, tokens: float = 0.0, *, probe: bool = False) -> float:
        """Return the seconds until a call may be sent; 0 for now, ``inf`` for not before one in flight ends.

        Args:
            now: the time.
            tokens: of the call.
            probe: True for a probe of a server that was down: rejections from before that do not delay it.
        """
        wait = 0.0 if probe else self._adaptive.wait(now)
        if self._rate_limiter is not None:
            wait = max(wait, self._rate_limiter.wait(now, tokens))
        if self._requests is not None:
            wait = max(wait, self._requests.wait(now, 1.0))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait(now, tokens))
        return wait

    def sent(self, now: float, tokens: float = 0.0) -> PacedSend:
        """Note that a call of ``tokens`` tokens is sent."""
        if self._rate_limiter is not None:
            self._rate_limiter.sent(now, tokens)
        if self._requests is not None:
            self._requests.sent(now, 1.0)
        if self._tokens is not None:
            self._tokens.sent(now, tokens)
        self._tokens_sent += tokens
        return PacedSend(self._adaptive.sent(now), tokens, self._tokens_sent)

    def sent_another(self, now: float) -> None:
        """Note that one more request is sent for a call: its limits count it, whether they have room or not."""
        if self._rate_limiter is not None:
            self._rate_limiter.sent(now, 0.0)
        if self._requests is not None:
            self._requests.sent(now, 1.0)

    # -- answers ----------------------------------------------------------------------------------------

    def accepted(self, sent: PacedSend, now: float, used: Optional[float] = None) -> None:
        """Note that the call was answered, and took ``used`` tokens if that is known."""
        self._adaptive.accepted(sent.record, now)
        if used is not None and self._rate_limiter is not None:
            self._rate_limiter.corrected(sent.record.sent_at, now, sent.tokens, used)

    def rejected(self, sent: PacedSend, now: float, hint: Optional[float]) -> None:
        """Note that the call was rejected for now, with a hint of ``hint`` seconds; it took no tokens."""
        self._adaptive.rejected(sent.record, now, hint)
        if self._rate_limiter is not None:
            self._rate_limiter.corrected(sent.record.sent_at, now, sent.tokens, 0.0)

    def failed(self, sent: PacedSend, now: float, hint: Optional[float]) -> None:
        """Note a failure of the server or the connection (a 5xx, a broken pipe), with a hint of ``hint`` seconds."""
        self._adaptive.failed(sent.record, now, hint)

    def timed_out(self, sent: PacedSend, now: float) -> None:
        """Note that the call was not answered in time."""
        self._adaptive.timed_out(sent.record, now)

    def ended(self) -> None:
        """Note the end of a call that says nothing about limits or tokens used: nothing is given back."""
        self._adaptive.ended()

    def unsent(self, sent: PacedSend, now: float) -> None:
        """Note that the call was not sent after all: the day has room for one more."""
        self._adaptive.ended()
        if self._rate_limiter is not None:
            self._rate_limiter.unsent(sent.record.sent_at, now, sent.tokens)

    def reported(
        self, sent: PacedSend, now: float, requests: Optional[StatedLimit], tokens: Optional[StatedLimit]
    ) -> None:
        """Take over the limits that the headers of the call's answer report."""
        record, send_log = sent.record, self._adaptive.send_log
        before, after = send_log.overlapping(record, now)
        if requests is not None:
            self._requests = self._requests or HeaderLimit()
            overlap = Overlap(send_log.sent - record.number - 1, before, after)
            self._requests.reported(requests, record.number, record.sent_at, overlap, now)
        if tokens is not None:
            self._tokens = self._tokens or HeaderLimit()
            self.counts_tokens = True
            overlap = Overlap(self._tokens_sent - sent.tokens_sent, before * sent.tokens, after * sent.tokens)
            self._tokens.reported(tokens, record.number, record.sent_at, overlap, now)

    def restart(self) -> None:
        """Begin anew after an outage, unless a limit is known."""
        self._adaptive.restart()

    # -- what it means for retries ------------------------------------------------------------------------

    @property
    def overloaded(self) -> bool:
        """True if the latest failure (not a rejection) is due to the load: too many calls at once."""
        return self._adaptive.overloaded

    @property
    def chance_rejections(self) -> int:
        """Rejections of one call in a row that chance explains; 0 where rejections depend on the load."""
        return self._adaptive.chance_rejections

    @property
    def down(self) -> Optional[bool]:
        """True if the server is down, None where its failures do not depend on the load."""
        return self._adaptive.down

    # -- for a person -----------------------------------------------------------------------------------

    def pace(self, now: float) -> PacingState:
        """Return the state at this moment."""
        state, paused = self._adaptive.state, self._adaptive.paused_for(now)
        rate, why = state.rate, state.why
        for limit, reason in self._known_rates():
            if rate is None or limit < rate:
                rate, why = limit, reason
        return PacingState(rate, state.limit, paused or None, "paused: the server refused a call" if paused else why)

    def _known_rates(self) -> Iterator[Tuple[float, str]]:
        if self.configured_rate is not None:
            yield self.configured_rate, "the pool's own limits="
        if self._requests is not None and not math.isinf(self._requests.rate):
            yield self._requests.rate, "the server states its limits in x-ratelimit headers"

    def hold(self, now: float, tokens: Optional[float] = None) -> Optional[Hold]:
        """Return what holds back a call, None where nothing does.

        Args:
            now: the time.
            tokens: of the call; None for what holds back every call, whatever the pace.
        """
        asked_for = self._adaptive.asked_for(now)
        if asked_for or tokens is None:
            return asked_to_wait(asked_for) if asked_for else None
        return max(self._limit_holds(now, tokens), key=lambda hold: hold.seconds, default=None)

    def _limit_holds(self, now: float, tokens: float) -> Iterator[Hold]:
        wait, state = self._adaptive.wait(now), self._adaptive.state
        if wait and state.is_search:
            yield Hold("finding the server's limit", wait)
        elif wait and state.rate is not None:
            yield limit_hold(wait, "learned", state.rate)
        elif wait and state.limit is not None:
            yield Hold(f"{state.limit:,} at a time, limit learned", wait)
        if self._rate_limiter is not None:
            for_requests, for_tokens = self._rate_limiter.waits(now, tokens)
            if for_requests:
                yield limit_hold(for_requests, "configured", self._rate_limiter.per_second)
            if for_tokens:
                yield limit_hold(for_tokens, "configured")
        if self._requests is not None and self._requests.wait(now, 1.0):
            rate = None if math.isinf(self._requests.rate) else self._requests.rate
            yield limit_hold(self._requests.wait(now, 1.0), "from headers", rate)
        if self._tokens is not None and self._tokens.wait(now, tokens):
            yield limit_hold(self._tokens.wait(now, tokens), "from headers")


def asked_to_wait(seconds: float) -> Hold:
    """Return the hold of a server that asks to be left alone for a while."""
    return Hold(f"server asks to wait {duration_text(math.ceil(seconds))}", seconds)


def limit_hold(wait: float, source: str, per_second: Optional[float] = None) -> Hold:
    """Return the hold of a limit.

    Args:
        wait: seconds until a call may be sent.
        source: "configured", "from headers", "learned", "shared".
        per_second: calls a second; None for a limit of tokens.
    """
    kind = "limit" if per_second else "token limit"
    usual_wait = 1 / per_second if per_second else 0.0
    if max(_LONG_WAIT_SECONDS, 1.5 * usual_wait) <= wait < math.inf:
        return Hold(f"next call in {duration_text(math.ceil(wait))}, {kind} {source}", wait)
    if not per_second:
        return Hold(f"{kind} {source}", wait)
    rate = f"{per_second:.3g}/s" if per_second >= 1 else f"{60 * per_second:.3g}/min"
    return Hold(f"rate {rate}, {kind} {source}", wait)
