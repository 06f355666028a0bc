"""Log of the sends to one (endpoint, model), their answers and rejections, and the rates that follow."""

from __future__ import annotations

from collections import deque
from typing import Deque, NamedTuple, Optional, Tuple

__all__ = ["Rejection", "SendLog", "SendRecord"]

_RATE_WINDOW_SECONDS = 1.0
_MEAN_RATE_WINDOW_SECONDS = 10.0
_MIN_MEAN_RATE_WINDOW_SECONDS = 2.0  # below this there is no mean rate
_MARK_EVERY_SECONDS = 0.02  # the resolution of rates

# Attempts sent within this time may reach the server in any order; the first ones, which have to open their
# connections, within half of the time that a rejection takes, and at most the second constant.
_OVERTAKING_SECONDS = 0.003
_FIRST_OVERTAKING_SECONDS = 0.03
_FIRST_CALLS = 64

_REJECTIONS_IN_MEAN = 3  # the mean time to a rejection is that of the last few ...
_ANSWERS_IN_MEAN = 20  # ... and that to an answer of more, for these differ more
_FIRST_REJECTION_LATENCY_SECONDS = 0.01  # before there was any rejection


class SendRecord(NamedTuple):
    """Record of one sent attempt; handed back when it returns.

    Attributes:
        sent_at: when it was sent.
        ahead: attempts in flight then.
        number: attempts sent before it.
    """

    sent_at: float
    ahead: int
    number: int


class Rejection(NamedTuple):
    """One rejected attempt, and what the server had accepted until then.

    Attributes:
        sent_at: when the attempt was sent.
        now: when the rejection came back.
        in_flight: accepted attempts that were in flight when the server saw it.
        accepted: attempts accepted before it, since the first.
        accept_rate: attempts accepted in the second before it.
        hint: seconds the server asked to wait, None without a hint.
        number: attempts sent before it.
    """

    sent_at: float
    now: float
    in_flight: int
    accepted: int
    accept_rate: int
    hint: Optional[float]
    number: int = 0


class SendLog:
    """Counts sends, answers and rejections.

    Attributes:
        in_flight: attempts in flight.
        sent: attempts sent.
        finished: attempts that were answered.
        rejected: attempts that were rejected.
        rejection_latency: mean seconds from a send to its rejection.
        latency: mean seconds from a send to its answer; 0 before the first.
    """

    __slots__ = (
        "_latest_sends",
        "_marks",
        "_rejections",
        "finished",
        "in_flight",
        "latency",
        "rejected",
        "rejection_latency",
        "sent",
    )

    def __init__(self) -> None:
        self.in_flight = self.sent = self.finished = self.rejected = 0
        self.rejection_latency = _FIRST_REJECTION_LATENCY_SECONDS
        self.latency = 0.0
        self._marks: Deque[Tuple[float, int, int]] = deque()  # (time, sent, rejected) until then
        self._latest_sends: Deque[Tuple[float, int]] = deque(maxlen=_FIRST_CALLS)  # (sent at, number)
        self._rejections: Deque[Tuple[float, int, float]] = deque(maxlen=1000)  # (sent at, number, back at)

    def send(self, now: float) -> SendRecord:
        """Note that an attempt is sent; return its record."""
        record = SendRecord(now, self.in_flight, self.sent)
        marks = self._marks
        if not marks or now >= marks[-1][0] + _MARK_EVERY_SECONDS:
            marks.append((now, self.sent, self.rejected))
            if marks[0][0] < now - _MEAN_RATE_WINDOW_SECONDS:
                marks.popleft()
        self._latest_sends.append((now, self.sent))
        self.sent += 1
        self.in_flight += 1
        return record

    def answer(self, record: SendRecord, now: float) -> None:
        """Note that an attempt was answered."""
        self.in_flight -= 1
        self.finished += 1
        self.latency += (now - record.sent_at - self.latency) / min(_ANSWERS_IN_MEAN, self.finished)

    def give_up(self) -> None:
        """Note an end that says nothing: a timeout, a broken connection, a cancel."""
        self.in_flight -= 1

    def reject(self, record: SendRecord, now: float, hint: Optional[float]) -> Rejection:
        """Note that an attempt was rejected; return what that shows."""
        a_second_before = record.sent_at - _RATE_WINDOW_SECONDS
        accept_rate = record.number - self._sent_until(a_second_before) - self._rejected_since(a_second_before)
        rejection = Rejection(
            record.sent_at,
            now,
            self._accepted_ahead(record, now),
            record.number - self.rejected,
            max(0, accept_rate),
            hint,
            record.number,
        )
        self.in_flight -= 1
        self.rejected += 1
        self._rejections.append((record.sent_at, record.number, now))
        self.rejection_latency += (now - record.sent_at - self.rejection_latency) / _REJECTIONS_IN_MEAN
        return rejection

    def send_rate(self, now: float) -> int:
        """Return the attempts sent in the last second."""
        return self.sent - self._sent_until(now - _RATE_WINDOW_SECONDS)

    def mean_rate(self, now: float) -> float:
        """Return the attempts accepted per second over the last ten; 0 while too little time has passed."""
        marks = self._marks
        while len(marks) > 1 and marks[0][0] < now - _MEAN_RATE_WINDOW_SECONDS:
            marks.popleft()
        if not marks or now - marks[0][0] < _MIN_MEAN_RATE_WINDOW_SECONDS:
            return 0.0
        time, sent, rejected = marks[0]
        return (self.sent - sent - (self.rejected - rejected)) / (now - time)

    def overlapping(self, record: SendRecord, now: float) -> Tuple[int, int]:
        """Return how many attempts the server may have seen in another order: those sent just before, and just after.

        Args:
            record: of an attempt that has come back.
            now: the time.
        """
        overtaking = _OVERTAKING_SECONDS
        if record.number < _FIRST_CALLS:
            overtaking = max(overtaking, min(_FIRST_OVERTAKING_SECONDS, (now - record.sent_at) / 2))
        first, last = record.sent_at - overtaking, record.sent_at + overtaking
        near = [number for sent_at, number in self._latest_sends if first <= sent_at <= last]
        number = record.number
        return number - min([number, *near[:1]]), max([number, *near[-1:]]) - number

    def sent_by(self, time: float) -> int:
        """Return the attempts sent before ``time``, without those of the last few milliseconds before it."""
        sent = self.sent
        for marked, before, _ in reversed(self._marks):
            sent = before
            if marked < time:
                break
        return sent

    def _sent_until(self, time: float) -> int:
        """Return the attempts sent before ``time``, to the nearest mark after it."""
        sent = self.sent
        for marked, before, _ in reversed(self._marks):
            if marked < time:
                break
            sent = before
        return sent

    def _rejected_since(self, time: float) -> int:
        count = 0
        for sent_at, _, _ in reversed(self._rejections):
            if sent_at < time:
                break
            count += 1
        return count

    def _accepted_ahead(self, record: SendRecord, now: float) -> int:
        """Return the accepted attempts in flight when the server saw this one, as far as is known by now."""
        last = record.number + self.overlapping(record, now)[1]  # of those that may have overtaken it
        rejected = 0
        for _, number, back_at in reversed(self._rejections):
            if back_at <= record.sent_at:
                break
            rejected += number <= last
        return max(0, record.ahead + last - record.number - rejected)
