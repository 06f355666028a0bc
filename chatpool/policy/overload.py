"""Whether failures of a server (5xx, broken connections) are refusals, because it has too much to do."""

from __future__ import annotations

from .evidence import MOST_CALLS, SurgeTest

__all__ = ["Overload"]

_BY_CHANCE = 0.25  # of the calls may fail, and it says nothing about the load
_SURE = 10.0  # logarithm of the odds that most fail

_PROBES = 5  # refused in a row: the server is down ...
_PROBES_BESIDE_OTHERS = 12  # ... or these, while some calls are under way that may yet be answered


class Overload:
    """Takes failures for chance until most calls fail; then they are refusals, and the pace is to be found.

    Many limiters say 503: nginx and haproxy do by default.

    Attributes:
        known: whether failures are refusals.
    """

    __slots__ = ("_answers", "_from", "_test", "known")

    def __init__(self) -> None:
        self.known = False
        self._answers = 0  # of calls sent since it is known
        self._from = 0
        self._test = SurgeTest(_BY_CHANCE, MOST_CALLS, 0)

    @property
    def share(self) -> float:
        """The share of calls that may fail by chance."""
        return _BY_CHANCE

    def failed(self, number: int, sent: int) -> bool:
        """The attempt with this number failed, of so many sent; returns whether that is a refusal."""
        if not self.known:
            self._test.refuse(number)
            if self._test.value >= _SURE:
                self.known, self._answers, self._from = True, 0, sent
        return self.known

    def answered(self, number: int) -> None:
        """The attempt with this number was answered."""
        if number >= self._from:
            self._answers += 1

    def was_outage(self) -> bool:
        """Whether nothing but the last probe was answered since most calls failed: there was no limit."""
        return self.known and self._answers <= 1

    def down(self, refused_probes: int, in_flight: int) -> bool:
        """Whether the server is down: one probe after the other was refused."""
        return refused_probes >= (_PROBES_BESIDE_OTHERS if in_flight else _PROBES)

    def forget(self, share: float, sent: int) -> None:
        """The failures were chance, or an outage: of the calls from now on this share fails by chance."""
        self.known = False
        self._test = SurgeTest(max(_BY_CHANCE, share), MOST_CALLS, sent)
