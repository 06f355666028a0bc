"""When the next call to one (endpoint, model) may be sent: its limits, stated and found out, in one object."""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple, Optional, Tuple

from .._values import StatedLimit
from ..config import Limits
from .adaptive.controller import AdaptiveLimiter
from .adaptive.send_log import SendRecord
from .adaptive.slow_start import Unlimited
from .header_limits import HeaderLimit, Overlap
from .rate_limiter import RateLimiter

__all__ = ["PacedSend", "Pacer", "PacingState"]


class PacedSend(NamedTuple):
    """An attempt that was sent; handed back when it returns.

    Attributes:
        ticket: what was known when it was sent.
        tokens: the tokens it was expected to take.
        tokens_sent: tokens sent with it, since the first send.
    """

    ticket: SendRecord
    tokens: float
    tokens_sent: float


class PacingState(NamedTuple):
    """The pacing of one (endpoint, model) at one moment, for a person.

    Attributes:
        rate: sends a second, None where nothing limits it.
        concurrency_limit: calls in flight at most, None where nothing limits them below the pool's workers.
        paused_for: seconds until calls are sent again, None when it is not paused.
        why: what limits it, in a few words; None without a limit.
    """

    rate: Optional[float] = None
    concurrency_limit: Optional[int] = None
    paused_for: Optional[float] = None
    why: Optional[str] = None


class Pacer:
    """Admits calls within the limits that are configured, stated in headers, and found out by refusals.

    Not thread-safe: the caller holds the lock.  The caller asks for the call that is next in its line and sends it
    before it asks for another, so whoever comes first is served first.

    Args:
        limits: the configured limits, None without any.

    Attributes:
        counts_tokens: whether the tokens of a call matter.
    """

    __slots__ = ("_admission", "_configured", "_requests", "_tokens", "_tokens_sent", "counts_tokens")

    def __init__(self, limits: Optional[Limits] = None) -> None:
        self._admission = AdaptiveLimiter()
        self._configured = RateLimiter(limits) if limits is not None and limits.any else None
        self._requests: Optional[HeaderLimit] = None
        self._tokens: Optional[HeaderLimit] = None
        self._tokens_sent = 0.0
        self.counts_tokens = limits is not None and limits.tokens_per_minute is not None

    @property
    def limited(self) -> bool:
        """Whether anything limits the pace, as far as is known."""
        learned = self._requests is not None or self._tokens is not None
        return learned or self._configured is not None or not isinstance(self._admission.phase, Unlimited)

    @property
    def tokens_at_most(self) -> float:
        """Tokens that may be sent in a minute, configured or stated; ``inf`` where that is not known."""
        configured = None if self._configured is None else self._configured.limits.tokens_per_minute
        stated = math.inf if self._tokens is None else self._tokens.limit
        return stated if configured is None else min(configured, stated)

    def too_large(self, tokens: float) -> Optional[str]:
        """Why a call of so many tokens can never be sent, None if it can."""
        return None if self._configured is None else self._configured.too_large(tokens)

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float, tokens: float = 0.0, *, probe: bool = False) -> float:
        """Seconds until a call of so many tokens may be sent; 0 for now, ``inf`` for not before one ends.

        Args:
            now: the time.
            tokens: of the call.
            probe: whether the call asks if the server is back: what it refused before it was down does not hold it up.
        """
        wait = 0.0 if probe else self._admission.wait(now)
        if self._configured is not None:
            wait = max(wait, self._configured.wait(now, tokens))
        if self._requests is not None:
            wait = max(wait, self._requests.wait(now, 1.0))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait(now, tokens))
        return wait

    def sent(self, now: float, tokens: float = 0.0) -> PacedSend:
        """A call of so many tokens goes out."""
        if self._configured is not None:
            self._configured.sent(now, tokens)
        if self._requests is not None:
            self._requests.sent(now, 1.0)
        if self._tokens is not None:
            self._tokens.sent(now, tokens)
        self._tokens_sent += tokens
        return PacedSend(self._admission.sent(now), tokens, self._tokens_sent)

    # -- answers ----------------------------------------------------------------------------------------

    def accepted(self, sent: PacedSend, now: float, used: Optional[float] = None) -> None:
        """The call was answered, and took ``used`` tokens if that is known."""
        self._admission.accepted(sent.ticket, now)
        if used is not None and self._configured is not None:
            self._configured.corrected(sent.ticket.sent_at, now, sent.tokens, used)

    def refused(self, sent: PacedSend, now: float, hint: Optional[float]) -> None:
        """The call was refused for now, with a hint of so many seconds; it took no tokens."""
        self._admission.refused(sent.ticket, now, hint)
        if self._configured is not None:
            self._configured.corrected(sent.ticket.sent_at, now, sent.tokens, 0.0)

    def failed(self, sent: PacedSend, now: float, hint: Optional[float]) -> None:
        """The server or the way to it failed (a 5xx, a broken connection), with a hint of so many seconds."""
        self._admission.failed(sent.ticket, now, hint)

    def given_up(self, sent: PacedSend, now: float) -> None:
        """The call was not answered in time."""
        self._admission.given_up(sent.ticket, now)

    def ended(self) -> None:
        """A call has ended in a way that says nothing about limits, nor about what it took: nothing is given back."""
        self._admission.ended()

    def stated(
        self, sent: PacedSend, now: float, requests: Optional[StatedLimit], tokens: Optional[StatedLimit]
    ) -> None:
        """The headers of the call's answer state these limits."""
        ticket, tally = sent.ticket, self._admission.tally
        before, after = tally.around(ticket, now)
        if requests is not None:
            self._requests = self._requests or HeaderLimit()
            around = Overlap(tally.sent - ticket.number - 1, before, after)
            self._requests.stated(requests, ticket.number, ticket.sent_at, around, now)
        if tokens is not None:
            self._tokens = self._tokens or HeaderLimit()
            self.counts_tokens = True
            around = Overlap(self._tokens_sent - sent.tokens_sent, before * sent.tokens, after * sent.tokens)
            self._tokens.stated(tokens, ticket.number, ticket.sent_at, around, now)

    def restart(self) -> None:
        """The server was down, and is back: begin as at first, unless a limit is known."""
        self._admission.restart()

    # -- what it means for retries ------------------------------------------------------------------------

    @property
    def explained(self) -> bool:
        """Whether the failure told last (not a refusal) is due to the load: there were too many calls at once."""
        return self._admission.explained

    @property
    def chance(self) -> int:
        """How many refusals of one call in a row are due to chance; 0 where refusals depend on the load."""
        return self._admission.chance

    @property
    def down(self) -> Optional[bool]:
        """Whether the server is down, None where its failures have nothing to do with the load."""
        return self._admission.down

    # -- for a person -----------------------------------------------------------------------------------

    def pace(self, now: float) -> PacingState:
        """The state at this moment."""
        phase, paused = self._admission.phase, self._admission.paused_for(now)
        rate, why = phase.rate, phase.why
        for limit, reason in self._known_rates():
            if rate is None or limit < rate:
                rate, why = limit, reason
        return PacingState(rate, phase.limit, paused or None, "paused: the server refused a call" if paused else why)

    def _known_rates(self) -> Iterator[Tuple[float, str]]:
        if self._configured is not None and self._configured.limits.requests_per_minute is not None:
            yield self._configured.limits.requests_per_minute / 60, "the pool's own limits="
        if self._requests is not None and not math.isinf(self._requests.rate):
            yield self._requests.rate, "the server states its limits in x-ratelimit headers"
