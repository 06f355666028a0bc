"""Runs of which every outcome is kept somewhere before anybody sees it."""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Optional

from ..engine import Call, CallOptions, Engine
from ..errors import CallCancelledError, ChatPoolError
from ..types import ChatRequest, Outcome
from .run import Run

__all__ = ["KeptRun"]


class KeptRun(Run):
    """A run that hands every outcome of a call to :meth:`keep`, in the worker that has it and before it takes
    another call: so that the death of the process costs no more than what was in flight.

    Args:
        engine, items, prepare, options, window: as for :class:`Run`.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
    ) -> None:
        super().__init__(engine, items, prepare, options, window)
        self.trouble: Optional[Exception] = None
        self._gives_up = False

    def keep(self, outcome: Outcome[Any]) -> None:
        """Keep an outcome; called in workers, several at a time.

        Raises:
            OSError: that is not possible any more; the run ends, and whoever consumes it gets the error.
        """
        raise NotImplementedError

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        self._try_to_keep(outcome)
        super().deliver(call, outcome)

    def _try_to_keep(self, outcome: Outcome[Any]) -> None:
        if self.trouble is None:
            try:
                self.keep(outcome)
            except Exception as error:
                self.trouble = error
                self.stop(CallCancelledError("what came back could not be kept any more"))

    def _take_ready(self) -> List[Outcome[Any]]:
        if self.trouble is not None and not self._gives_up:
            raise self.trouble
        return super()._take_ready()

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        self._gives_up = True
        return super().drain(reason)
