"""How fast calls are sent to a server whose limits nobody has stated: found out by what it refuses."""

from __future__ import annotations

import math
from typing import Optional

from ..health import expected_failure_run
from .overload import Backlog, Overload
from .random_rejections import LoadTrial, RandomRejections
from .send_log import Rejection, SendLog, SendRecord
from .sequential_tests import BackgroundRate
from .slow_start import Unlimited
from .states import LimitedByConcurrency, LimitedByRate, LimitState, Probing

__all__ = ["AdaptiveLimiter"]

_LONGEST_PAUSE = 120.0  # seconds

# The pause after a refusal without a hint: about the time of one send, within these (seconds); twice as long for
# each probe in a row that is refused.
_SHORTEST_OWN_PAUSE = 0.03
_LONGEST_OWN_PAUSE = 1.0
_LONGEST_PAUSE_IN_SILENCE = 0.25  # where nothing at all is accepted: it may be back at any moment
_LARGEST_EXPONENT = 6

_ATTEMPTS = 1000.0  # among which a series of refusals of one call is by chance


class AdaptiveLimiter:
    """Admits calls to one (endpoint, model), as many and as fast as it accepts.

    Not thread-safe: the caller holds the lock.

    Attributes:
        tally: counts of what was sent.
        phase: what is known about the server's limit.
        explained: whether the failure that was told last is due to the load.
    """

    __slots__ = (
        "_accepted",
        "_background",
        "_backlog_helps",
        "_limited_before",
        "_news_from",
        "_overload",
        "_paused_until",
        "_probed_at",
        "_refused_probes",
        "explained",
        "phase",
        "tally",
    )

    def __init__(self) -> None:
        self.tally = SendLog()
        self.phase: LimitState = Unlimited(self.tally)
        self.explained = False
        self._overload = Overload()
        self._background: Optional[BackgroundRate] = None
        self._backlog_helps = True  # as far as is known
        self._limited_before = False  # when failures became refusals
        self._news_from = -math.inf
        self._paused_until = -math.inf
        self._accepted = -1  # before the latest refusal
        self._refused_probes = 0  # in a row: first calls after a pause
        self._probed_at = -math.inf

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may be sent; 0 for now, ``inf`` for not before something ends."""
        if now < self._paused_until:
            return self._paused_until - now
        return self.phase.wait(now)

    def sent(self, now: float) -> SendRecord:
        """An attempt goes out; the ticket is handed back when it returns."""
        self.phase = self.phase.sent(now)
        return self.tally.send(now)

    # -- what comes back --------------------------------------------------------------------------------

    def accepted(self, ticket: SendRecord, now: float) -> None:
        """The attempt was answered."""
        self.tally.answer(ticket, now)
        self._overload.answered(ticket.number)
        if ticket.sent_at >= self._news_from:
            self.phase = self.phase.accepted(ticket, now)
        if isinstance(self.phase, Backlog) and self.phase.helps is False:
            self._leave_backlog()
        elif self.phase.answered(ticket):
            self._was_down()

    def ended(self) -> None:
        """An attempt has ended in a way that says nothing about limits."""
        self.explained = False
        self.tally.give_up()

    def given_up(self, ticket: SendRecord, now: float) -> None:
        """There was no answer in time."""
        phase, waited = self.phase, now - ticket.sent_at
        self.explained = False
        if isinstance(phase, Backlog):
            self.explained = phase.given_up(ticket, now)
            if phase.helps is False:
                self._leave_backlog()
        elif isinstance(phase, Unlimited) and self._backlog_helps and Backlog.explains(self.tally, waited):
            self.phase = Backlog(self.tally, waited, now)
            self.explained = True
        self.tally.give_up()

    def _leave_backlog(self) -> None:
        self._backlog_helps = False
        self.phase = Unlimited(self.tally)

    def failed(self, ticket: SendRecord, now: float, hint: Optional[float]) -> None:
        """The server or the way to it failed, with a hint of so many seconds: chance, unless most calls fail."""
        knew = self._overload.known
        # A call that fails with no other under way fails for another reason than the load.
        self.explained = knew or (ticket.ahead > 0 and self._overload.failed(ticket.number, self.tally.sent))
        if hint is not None and not isinstance(self.phase, (LimitedByRate, LimitedByConcurrency)):
            hint = min(hint, _LONGEST_OWN_PAUSE)  # it may be down: probes are to find out whether it is back
        if self.explained and not knew:
            self._limited_before = self.limited
        if knew or (self.explained and self.limited):
            self.refused(ticket, now, hint)
            return
        refusal = self.tally.refuse(ticket, now, hint)
        if self.explained:
            self._accepted = refusal.accepted
            pause = self._pause(hint)
            self._enter(LoadTrial(self.tally, refusal, pause, self._overload.share, ticket.ahead), now)
            self._paused_until = max(self._paused_until, now + pause)

    def refused(self, ticket: SendRecord, now: float, hint: Optional[float]) -> None:
        """The attempt was refused, with a hint of so many seconds.

        Calls that were on their way when a refusal came back had been sent too fast as well: only what is sent
        after it tells something new.
        """
        refusal, pause = self.tally.refuse(ticket, now, hint), self._pause(hint)
        if self.phase.expected(refusal, pause) or self._by_chance(ticket):
            return
        news = ticket.sent_at >= self._news_from
        self._note_probe(refusal, news)
        pause = self._pause(hint)
        if news:
            self._news_from = now
            self._enter(self.phase.refused(refusal, pause), now)
        else:
            self._enter(self.phase.refused_too(refusal), now)
        if self.phase.pauses_all:
            self._paused_until = max(self._paused_until, now + pause)

    def _enter(self, phase: LimitState, now: float) -> None:
        if phase is self.phase:
            return
        self.phase = phase
        self._news_from = now
        if isinstance(phase, RandomRejections) and self._overload.known:
            self._overload.forget(phase.chance, self.tally.sent)

    def _by_chance(self, ticket: SendRecord) -> bool:
        """Tell refusals that come whatever the load from those of a limit."""
        share = self.phase.chance
        if share and (self._background is None or self._background.share != share):
            self._background = BackgroundRate(share, self.tally.sent)
        return self._background is not None and self.limited and self._background.explains(ticket.number)

    def _note_probe(self, refusal: Rejection, news: bool) -> None:
        if refusal.accepted > self._accepted:
            self._refused_probes, self._accepted = 0, refusal.accepted
        elif news and refusal.sent_at >= self._paused_until > self._probed_at:
            self._refused_probes += 1
            self._probed_at = self._paused_until

    def _pause(self, hint: Optional[float]) -> float:
        if hint is not None:
            return min(hint, _LONGEST_PAUSE)
        rate = self.phase.rate
        pause = max(_SHORTEST_OWN_PAUSE, 0.0 if rate is None else 1 / rate)
        longest = _LONGEST_PAUSE_IN_SILENCE if self.phase.silent else _LONGEST_OWN_PAUSE
        return min(longest, pause * 2.0 ** min(self._refused_probes, _LARGEST_EXPONENT))

    # -- what is known ----------------------------------------------------------------------------------

    @property
    def limited(self) -> bool:
        """True where there is a limit."""
        return isinstance(self.phase, (Probing, LimitedByRate, LimitedByConcurrency))

    @property
    def down(self) -> Optional[bool]:
        """True where the server is down, None where failures are no refusals and say so themselves."""
        return self._overload.down(self._refused_probes, self.tally.in_flight) if self._overload.known else None

    @property
    def chance(self) -> int:
        """Number of refusals of one call in a row that are due to chance; 0 where refusals depend on the load."""
        return 0 if self._background is None else expected_failure_run(_ATTEMPTS, self._background.share)

    def paused_for(self, now: float) -> float:
        """Seconds until anything is sent again after a refusal; 0 when it is not paused."""
        return max(0.0, self._paused_until - now)

    def restart(self) -> None:
        """The server was down, and is back: the ramp begins anew, unless a limit is known."""
        self._refused_probes = 0
        if self._overload.was_outage():
            self._was_down()
        elif isinstance(self.phase, Unlimited):
            self.phase = Unlimited(self.tally)

    def _was_down(self) -> None:
        """Forget the failures: they were no refusals."""
        self._refused_probes = 0
        self._overload.forget(0.0, self.tally.sent)
        if not self._limited_before:
            self.phase = Unlimited(self.tally)
