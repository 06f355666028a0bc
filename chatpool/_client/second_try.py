"""What has failed in a run, sent once more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, List, Optional, cast

from .._engine import CallOptions
from ..errors import ConfigurationError
from ..types import ChatRequest, Outcome, Results
from .options import CallSettings
from .run import unusable
from .start_run import RunSettings

__all__ = ["both_times", "failed_of", "fill", "request_of", "run_settings_of", "settings_of"]


def failed_of(results: Any) -> List[Outcome[Any]]:
    """The outcomes that failed.

    Raises:
        TypeError: these are not results of a run.
    """
    if not isinstance(results, Results):
        raise TypeError(f"retry takes what map or embed has returned, got {type(results).__name__}")
    return results.failures


def request_of(results: Results) -> Any:
    """A function that makes the request of a failed outcome: the same again, or that of its item."""
    prepare = None if results._origin is None else results._origin.prepare

    def make(outcome: Outcome[Any]) -> ChatRequest:
        if outcome.request is not None:
            return outcome.request
        if prepare is None:  # the results were pickled
            raise ConfigurationError("no request was made of this item: send it with map")
        request: ChatRequest = prepare(outcome.item)
        return request

    return make


def run_settings_of(results: Results, settings: RunSettings) -> RunSettings:
    """``settings`` with what the run has said of identical items, of packs and of its journal, which goes on."""
    origin = results._origin
    if origin is None:
        return settings
    return replace(settings, dedupe=origin.dedupe, journal=origin.journal, max_pack=origin.max_pack, is_retry=True)


def settings_of(results: Results, how: CallSettings, *, timed: bool, retried: bool) -> CallSettings:
    """How the calls of the run were sent and looked at.

    Headers and URL parameters are the pool's own, as it may be another pool.

    Args:
        results: of the run.
        how: what the pool says, and the method call.
        timed, retried: whether the method call has said ``timeout=``, ``retry=``.
    """
    if results._origin is None:
        return how
    first: CallOptions = results._origin.options
    return replace(
        how,
        timeout=how.timeout if timed else first.timeout,
        retrier=how.retrier if retried else first.retrier,
        review=first.review,
        reading=first.reading,
    )


def fill(results: Results, again: Optional[Results], *, shows_errors: bool) -> None:
    """Put what has come the second time into the places of what had failed."""
    for outcome in () if again is None else again.outcomes:
        merged = both_times(outcome)
        results.outcomes[merged.index] = merged
        results[merged.index] = merged.value if merged.ok else merged.error if shows_errors else None
    if again is not None:
        results.elapsed += again.elapsed
        results.fatal = again.fatal


def both_times(outcome: Outcome[Any]) -> Outcome[Any]:
    """An outcome whose item is that of the first time, with what both took."""
    first: Outcome[Any] = outcome.item
    both = [usage for usage in (first.usage, outcome.usage) if usage is not None]
    error = outcome.error
    if isinstance(error, ConfigurationError) and str(error) == f"item {outcome.index}: {error.__cause__}":
        error = unusable(first.index, cast(Exception, error.__cause__))
    return Outcome(
        first.index,
        first.item,
        outcome.request or first.request,
        outcome.value,
        error,
        first.history + outcome.history,
        first.elapsed + outcome.elapsed,
        sum(both[1:], both[0]) if both else None,
    )
