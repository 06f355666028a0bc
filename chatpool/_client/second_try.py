"""``ChatPool.retry``: the failed items of a run are sent once more, and their outcomes put into its results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, List, Optional

from .._engine import CallOptions
from ..errors import ConfigurationError
from ..types import ChatRequest, Outcome, Results
from .run import merged_outcome
from .start_run import RunOptions

__all__ = ["call_options_of", "failed_of", "fill", "request_maker_of", "run_options_of"]


def failed_of(results: Any) -> List[Outcome[Any]]:
    """Return the outcomes that failed.

    Raises:
        TypeError: these are not results of a run.
    """
    if not isinstance(results, Results):
        raise TypeError(f"results must be what map or embed has returned, got {type(results).__name__}")
    return results.failures


def request_maker_of(results: Results[Any, Any]) -> Callable[[Outcome[Any]], ChatRequest]:
    """Return a function that makes the request of a failed outcome: the same again, or that of its item."""
    prepare = None if results._origin is None else results._origin.prepare

    def make_request(outcome: Outcome[Any]) -> ChatRequest:
        if outcome.request is not None:
            return outcome.request
        if prepare is None:  # the results were pickled
            raise ConfigurationError("no request was made of this item: send it with map")
        request: ChatRequest = prepare(outcome.item)
        return request

    return make_request


def run_options_of(results: Results[Any, Any], options: RunOptions) -> RunOptions:
    """Return ``options`` with the run's own about identical items, samples, batches and its journal, which goes on."""
    origin = results._origin
    if origin is None:
        return replace(options, is_retry=True)
    return replace(
        options,
        dedupe=origin.dedupe,
        journal=origin.journal,
        key=origin.item_key,
        samples=origin.samples,
        max_pack=origin.max_pack,
        occurrences=origin.occurrences,
        is_retry=True,
    )


def call_options_of(
    results: Results[Any, Any], options: CallOptions, *, keeps_timeout: bool, keeps_retry: bool
) -> CallOptions:
    """Return options with the time limits, the retries, the fallbacks and the review of the run's own calls.

    Headers and URL parameters are the pool's, as it may be another pool.

    Args:
        results: of the run.
        options: of the pool and the method call.
        keeps_timeout, keeps_retry: whether the method call itself has ``timeout=``, ``retry=``.
    """
    if results._origin is None:
        return options
    first: CallOptions = results._origin.options
    return replace(
        options,
        timeout=options.timeout if keeps_timeout else first.timeout,
        retrier=options.retrier if keeps_retry else first.retrier,
        review=first.review,
        reading=first.reading,
        fallbacks=first.fallbacks,
    )


def fill(results: Results[Any, Any], again: Optional[Results[Any, Any]], *, shows_errors: bool) -> None:
    """Put the outcomes of the second run into the places of the failed ones.

    Args:
        results: of the first run; they are changed.
        again: of the second run, whose items are the failed outcomes; None where it has none.
        shows_errors: whether the value of a failed item is its error, and not None.
    """
    for outcome in () if again is None else again.outcomes:
        merged = merged_outcome(outcome)
        results.outcomes[merged.index] = merged
        results[merged.index] = merged.value if merged.ok else merged.error if shows_errors else None
    if again is not None:
        results.elapsed += again.elapsed
        results.fatal = again.fatal
