"""Public values: requests, answers, outcomes, results of a run, and statistics of a pool."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import GenericAlias
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Dict,
    Generic,
    Iterable,
    List,
    Literal,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from ._attachments import Attachment
from ._redaction import printable
from ._typing import ParsedT, SlotT, ValueT
from .answers import ChatChunk, ChatCompletion, Choice, ToolCall, ToolCallDelta, Usage
from .errors import ChatPoolError, ConfigurationError
from .prices import Bill, Charge, PricesLike, prices_of

__all__ = [
    "Attempt",
    "ChatChunk",
    "ChatCompletion",
    "ChatRequest",
    "Choice",
    "Item",
    "LineStats",
    "Outcome",
    "PoolStats",
    "Results",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
]


FilePart = Union[
    os.PathLike[str],
    bytes,
    BinaryIO,
    Tuple[str, Union[os.PathLike[str], bytes, BinaryIO]],
    Tuple[str, Union[os.PathLike[str], bytes, BinaryIO], str],
]
Files = Union[Mapping[str, FilePart], Sequence[Tuple[str, FilePart]]]
ResponseForm = Union[Literal["json", "text", "bytes"], os.PathLike[str]]


@dataclass(frozen=True)
class ChatRequest:
    """One request: the JSON body and the path below ``base_url`` that it goes to.

    Args:
        body: the whole JSON body. Where ``model`` or a default field is missing, the pool fills it in.
        path: path below ``base_url``, with its leading slash.
        method: HTTP method.
        files: files that are sent with the body's fields, as ``multipart/form-data``: names and parts, as a dict or a
            list of pairs. A part is a path (read from the disk at each attempt), bytes, a binary file, or a tuple
            (filename, content[, content type]).
        response: the form in which the answer is given back: ``"json"``, ``"text"``, ``"bytes"``, or the path of a file
            that it goes to.
    """

    body: Mapping[str, Any]
    path: str = "/chat/completions"
    method: str = "POST"
    files: Files = ()
    response: ResponseForm = "json"

    @property
    def model(self) -> Optional[str]:
        """The model that the body names, None without one."""
        model = self.body.get("model")
        return model if isinstance(model, str) else None

    @property
    def service_tier(self) -> Optional[str]:
        """The ``service_tier`` that the body names, None without one."""
        # Not get(): where it is the first look of a thread at the dict of another one, CPython 3.13 without the global
        # lock takes the dict's lock twice, and gives way forty times before it finds that it waits for itself.
        tier = self.body["service_tier"] if "service_tier" in self.body else None  # noqa: SIM401
        return tier if isinstance(tier, str) else None


Item = Union[str, Attachment, Sequence[Union[Mapping[str, Any], str, Attachment]], Mapping[str, Any], ChatRequest]


class Attempt(NamedTuple):
    """One exchange in the history of a call.

    Attributes:
        reason: ``"ok"``, or why it failed, in a few words.
        status: HTTP status, None without a response.
        wait: seconds from its end to the next attempt, None if it was the last.
        elapsed: seconds it took.
        request_id: the server's ``x-request-id``.
        endpoint: the name of the endpoint it went to; None in a pool with a single one.
        fallback: the number of the fallback that was sent, 0 for the request itself.
    """

    reason: str
    status: Optional[int]
    wait: Optional[float]
    elapsed: float
    request_id: Optional[str]
    endpoint: Optional[str] = None
    fallback: int = 0


class Outcome(Generic[ValueT]):
    """End of one item of a run: a value, or an error.

    Attributes:
        index: the item's place in the input, from 0.
        item: the item as it was passed (the original row with ``prompt=``).
        request: the request made of it, None if none could be made; it stays the same where a fallback was sent.
        value: the answer (a :class:`ChatCompletion`, a vector ...), None after a failure.
        error: why it failed, None after a success.
        history: the exchanges that were sent, first to last.
        elapsed: seconds from the first send to the end, waits included; 0.0 if nothing was sent.
        fallback: the number of the entry of ``fallbacks=`` that it ended with, from 1; 0 for the request itself.
    """

    __slots__ = (
        "_cached",
        "_charges",
        "_usage",
        "elapsed",
        "error",
        "fallback",
        "history",
        "index",
        "item",
        "request",
        "value",
    )

    def __init__(
        self,
        index: int,
        item: Any,
        request: Optional[ChatRequest] = None,
        value: Optional[ValueT] = None,
        error: Optional[ChatPoolError] = None,
        history: Tuple[Attempt, ...] = (),
        elapsed: float = 0.0,
        usage: Optional[Usage] = None,
        fallback: int = 0,
        charges: Tuple[Charge, ...] = (),
    ) -> None:
        self.index = index
        self.item = item
        self.request = request
        self.value = value
        self.error = error
        self.history = history
        self.elapsed = elapsed
        self.fallback = fallback
        self._usage = usage
        self._charges = charges

    def __setstate__(self, state: Tuple[None, Mapping[str, Any]]) -> None:
        for name, value in {"fallback": 0, "_charges": (), **state[1]}.items():  # pickles of 0.1.0 lack them
            setattr(self, name, value)

    @property
    def cached(self) -> bool:
        """True if its answer came from the pool's cache, with no tokens; nothing was sent, but what fell back on it."""
        return getattr(self, "_cached", False) or getattr(self.value, "cached", False) is True

    @cached.setter
    def cached(self, value: bool) -> None:
        self._cached = value

    @property
    def usage(self) -> Optional[Usage]:
        """Tokens of all its answers, rejected ones included; None where that is not known."""
        return getattr(self.value, "usage", None) if self._usage is None else self._usage

    @property
    def charges(self) -> Tuple[Charge, ...]:
        """The tokens by the requests that were sent: a :class:`~chatpool.prices.Charge` for each, fallbacks too."""
        if self._charges:
            return self._charges
        request, usage = self.request, self.usage
        if request is None:
            return () if usage is None else (Charge(usage),)
        return (Charge(usage, request.model, getattr(self.value, "model", None), request.service_tier),)

    @property
    def ok(self) -> bool:
        """True if it succeeded."""
        return self.error is None

    @property
    def attempts(self) -> int:
        """Number of exchanges that were sent."""
        return len(self.history)

    def result(self) -> ValueT:
        """Return the value; raises the error of a failed item."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # a success has one

    def __repr__(self) -> str:
        from ._reprs import outcome_line  # here and below: most programs show nothing

        return outcome_line(self)

    def _repr_html_(self) -> str:
        from ._reprs import outcome_html

        return outcome_html(self)


class Results(List[SlotT], Generic[ValueT, SlotT]):
    """Results of a run: a list of values in input order, with the outcome of each.

    Its ``repr`` is a summary, in a notebook with a table of the first rows; ``list(results)`` shows every value.

    To type checkers ``Results[ChatCompletion]`` is a list of ``Optional[ChatCompletion]``, as ``on_error="none"`` makes
    it; the second argument says what else is in the list: ``Results[ChatCompletion, ChatCompletion]`` has no gaps.

    Attributes:
        outcomes: one :class:`Outcome` per item, in input order.
        elapsed: seconds the run took.
        fatal: the error that ended the run early (a refused key, no credit, ...), None if it ran to its end.
    """

    def __init__(
        self,
        values: Iterable[SlotT],
        outcomes: Sequence[Outcome[ValueT]],
        elapsed: float,
        fatal: Optional[ChatPoolError] = None,
    ) -> None:
        super().__init__(values)
        self.outcomes: List[Outcome[ValueT]] = list(outcomes)
        self.elapsed = elapsed
        self.fatal = fatal
        self._origin: Any = None  # how its calls were made, for retry(); not pickled

    if not TYPE_CHECKING:
        # Before Python 3.13 typing's own would want both arguments.
        __class_getitem__ = classmethod(GenericAlias)

    def __repr__(self) -> str:
        from ._reprs import results_line

        return results_line(self, _by_cause(self.failures))

    def _repr_html_(self) -> str:
        from ._reprs import results_html

        return results_html(self, _by_cause(self.failures))

    def __reduce__(self) -> Any:
        return Results, (list(self), self.outcomes, self.elapsed, self.fatal)

    @property
    def texts(self) -> List[Optional[str]]:
        """The texts of the answers, in input order, as a column of a table takes them; None for an item that failed."""
        return [getattr(outcome.value, "text", None) for outcome in self.outcomes]

    @property
    def parsed(self: Results[ChatCompletion[ParsedT], Any]) -> List[Optional[ParsedT]]:
        """The values that ``parse=`` has made of the answers, in input order; None for an item that failed."""
        return [getattr(outcome.value, "parsed", None) for outcome in self.outcomes]

    @property
    def errors(self) -> List[Optional[ChatPoolError]]:
        """The errors of the items, in input order; None for each that did not fail."""
        return [outcome.error for outcome in self.outcomes]

    @property
    def failures(self) -> List[Outcome[ValueT]]:
        """The outcomes that failed, in input order."""
        return [outcome for outcome in self.outcomes if not outcome.ok]

    @property
    def usage(self) -> Usage:
        """The tokens of all answers together, rejected ones included."""
        return self._bill(None).usage

    def cost(self, prices: Optional[PricesLike] = None) -> float:
        """Return the money of all answers together, rejected ones included.

        Answers without usage count nothing.  A cost that the server states (``usage.cost``) goes before prices.

        Args:
            prices: per million tokens, for all models ``(read, written)``, with a third figure for those read from the
                prompt cache, or one number for embeddings; by model ``{"model": (read, written)}``; or the name of a
                file in LiteLLM's form. None where the server states all costs.

        Raises:
            ConfigurationError: an answer states no cost, and its model has no price; or the prices cannot be used.
            TypeError: the prices have another type.
        """
        bill = self._bill(prices)
        if bill.unpriced:
            model = next(iter(bill.unpriced))
            raise ConfigurationError(
                f"there is no price for the model {model!r} in prices=, and {bill.unpriced[model]:,} of its answers "
                'state no cost: pass prices={"model": (read, written)}, per million tokens'
            )
        return bill.cost or 0.0

    def _bill(self, prices: Optional[PricesLike]) -> Bill:
        bill = Bill(None if prices is None else prices_of(prices))
        for outcome in self.outcomes:
            bill.add_all(outcome.charges)
        return bill

    def raise_on_failure(self) -> None:
        """Raise the error of the first failed item in input order, with these results on it; return if none failed."""
        for outcome in self.outcomes:
            if outcome.error is not None:
                outcome.error.results = self
                raise outcome.error

    def explain(self) -> str:
        """Return a summary of the failures for a person: per cause the count, one example and what to do."""
        failures = self.failures
        if not failures:
            return f"All {len(self)} succeeded."
        lines = [f"{len(failures)} of {len(self)} failed:"]
        for cause, group in _by_cause(failures):
            first = group[0]
            lines.append(f"  {len(group)} x {cause}")
            lines.append(f"      for example item {first.index}, after {first.attempts} attempt(s): {first.error}")
            if first.error is not None and first.error.advice not in first.error.message:
                lines.append(f"      what to do: {first.error.advice}")
        return "\n".join(lines)

    def to_dicts(self, *, row: bool = False, parsed: bool = False) -> List[Dict[str, Any]]:
        """Return one flat dict per item, for a table: index, ok, text, error, status, attempts, elapsed and tokens.

        All have the same fields, None where an item lacks one.

        Args:
            row: whether the item comes first: its fields where it is a mapping, a NamedTuple or a Series, otherwise as
                ``item``. Where a field has the name of one of the others, that is called ``answer_...``
                (``answer_text``).
            parsed: whether ``.parsed`` comes last: its fields, where it is a mapping, a dataclass or a model of
                pydantic, each as ``parsed_...`` if its name is taken; otherwise as ``parsed``.
        """
        rows = [_row(outcome) for outcome in self.outcomes]
        if row:
            rows = _beside([_columns_of(outcome.item) for outcome in self.outcomes], rows, "answer")
        if parsed:
            rows = _beside(rows, list(map(_parsed_columns, self.outcomes)), "parsed")
        # Data frames are often made by the first rows' columns: those that only others have would be lost.
        names = dict.fromkeys(name for columns in rows for name in columns)
        return [{name: columns.get(name) for name in names} for columns in rows]


def _by_cause(failures: Sequence[Outcome[Any]]) -> List[Tuple[str, List[Outcome[Any]]]]:
    """Return failures grouped by error class, status and code; the largest group first."""
    groups: Dict[str, List[Outcome[Any]]] = {}
    for outcome in failures:
        error = outcome.error
        codes = [str(code) for code in (getattr(error, "status_code", None), getattr(error, "code", None)) if code]
        cause = printable(type(error).__name__ + (f" ({', '.join(codes)})" if codes else ""))
        groups.setdefault(cause, []).append(outcome)
    return sorted(groups.items(), key=lambda pair: -len(pair[1]))


def _row(outcome: Outcome[Any]) -> Dict[str, Any]:
    usage = outcome.usage or Usage()
    return {
        "index": outcome.index,
        "ok": outcome.ok,
        "text": getattr(outcome.value, "text", None),
        "error": None if outcome.error is None else f"{type(outcome.error).__name__}: {outcome.error}",
        "status": outcome.history[-1].status if outcome.history else None,
        "attempts": outcome.attempts,
        "elapsed": outcome.elapsed,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }


def _beside(rows: List[Dict[str, Any]], more: List[Dict[str, Any]], prefix: str) -> List[Dict[str, Any]]:
    """Return the rows with more columns; where a name is taken, the new column gets it with the prefix."""
    taken = {name for row in rows for name in row}
    return [
        {**row, **{f"{prefix}_{name}" if name in taken else name: value for name, value in new.items()}}
        for row, new in zip(rows, more)
    ]


def _parsed_columns(outcome: Outcome[Any]) -> Dict[str, Any]:
    value = getattr(outcome.value, "parsed", None)
    columns = _fields_of(value)
    if columns is None:
        return {} if outcome.error is not None else {"parsed": value}
    return columns


def _columns_of(row: Any) -> Dict[str, Any]:
    """Return a row of a table by column: a mapping, a NamedTuple (``itertuples()``), a Series (``iterrows()``)."""
    for method in ("_asdict", "to_dict"):
        if not isinstance(row, Mapping) and hasattr(row, method):
            row = getattr(row, method)()
    return {str(name): value for name, value in row.items()} if isinstance(row, Mapping) else {"item": row}


def _fields_of(value: Any) -> Optional[Dict[str, Any]]:
    """Return a value's fields, None where it has none."""
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {declared.name: getattr(value, declared.name) for declared in fields(value)}
    if hasattr(value, "_asdict"):  # a NamedTuple
        return dict(value._asdict())
    names = getattr(type(value), "model_fields", None)  # pydantic's
    if not isinstance(names, Mapping):
        return None
    computed = getattr(getattr(value, "__pydantic_decorators__", None), "computed_fields", ())
    return {name: getattr(value, name) for name in (*names, *computed)}


@dataclass(frozen=True)
class LineStats:
    """State of one (endpoint, model).

    Attributes:
        failure_streak: failures since its last success.
        paused_until: seconds from now until calls are sent again, None when it is not paused.
        why: why it is paused, or what limits its pace, in a few words; None when nothing does.
        rate: calls per second that are sent at most, None while no limit is known.
        concurrency_limit: calls in flight at most, None where nothing limits them below ``max_workers``.
        waits_for: what its calls wait for now, in the words of the progress bar ("server asks to wait 4 s"); None
            while none waits for the server or a limit.
        day_requests_left: requests that ``Limits(requests_per_day=)`` still allows, of limits that are shared as of the
            last call of this pool; None without that limit.
        day_tokens_left: the same for ``Limits(tokens_per_day=)``.
    """

    failure_streak: int = 0
    paused_until: Optional[float] = None
    why: Optional[str] = None
    rate: Optional[float] = None
    concurrency_limit: Optional[int] = None
    waits_for: Optional[str] = None
    day_requests_left: Optional[float] = None
    day_tokens_left: Optional[float] = None


@dataclass(frozen=True)
class PoolStats:
    """Counters of a pool at one moment.

    Attributes:
        queued: calls that wait for a worker.
        parked: calls that wait for their next attempt.
        in_flight: exchanges under way.
        succeeded: calls that ended well, since the pool was made.
        failed: calls that ended with an error.
        retried: attempts that failed and were followed by another.
        usage: tokens of all answers.
        lines: per (endpoint, model): :class:`LineStats`. The endpoint is its ``base_url``, or its name in a pool with
            several.
        cached: calls that were answered from the pool's cache; they are among ``succeeded``.
        reasked: answers that ``parse=`` could not use and that a reask followed.
        cost: money of all answers, as their servers state it or else by the prices of the pool's
            :class:`~chatpool.Budget`; None where there is neither.
        waits_for: what the calls that wait are waiting for now, in the words of the progress bar ("server down,
            probing", "rate 50/s, limit from headers"); None while calls are sent, or wait for nothing but a worker.
        fell_back: failures and answers that were not accepted, after which a fallback was sent.
    """

    queued: int = 0
    parked: int = 0
    in_flight: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    usage: Usage = field(default_factory=Usage)
    lines: Mapping[Tuple[str, Optional[str]], LineStats] = field(default_factory=dict)
    reasked: int = 0
    cost: Optional[float] = None
    waits_for: Optional[str] = None
    fell_back: int = 0
    cached: int = 0

    def __repr__(self) -> str:
        from ._reprs import stats_line

        return stats_line(self)

    def _repr_html_(self) -> str:
        from ._reprs import stats_html

        return stats_html(self)
