"""Reprs of outcomes, results and statistics: a line for a terminal, a table for a notebook."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, List, Sequence, Tuple

from ._display import Fact, block, latency_text, short, table, token_facts
from .prices import dollars

if TYPE_CHECKING:
    from .errors import ChatPoolError
    from .types import Outcome, PoolStats, Results

__all__ = [
    "error_text",
    "outcome_html",
    "outcome_line",
    "results_html",
    "results_line",
    "stats_html",
    "stats_line",
]

Failures = Sequence[Tuple[str, Sequence["Outcome[Any]"]]]
"""Causes, and the outcomes that have failed for each."""

_LINE_VALUES, _LINE_CHARACTERS = 3, 40  # of results, on one line
_SHOWN_ROWS = 10  # in a notebook
_SHOWN_CAUSES = 10
_SHOWN_PARTS = 20  # of a prompt
_PROMPT_FIELDS = ("messages", "prompt", "input")
_PROMPT_DEPTH = 6  # of messages in a body, parts in a message, texts in a part


def results_line(results: Results[Any, Any], by_cause: Failures) -> str:
    """Return the repr of results, which may have thousands of answers."""
    count, failed = len(results.outcomes), sum(len(group) for _, group in by_cause)
    parts = [f"{count - failed:,} of {count:,} answered"]
    if failed:
        causes = [f"{len(group):,} x {cause}" for cause, group in by_cause[:_LINE_VALUES]]
        parts.append(f"{failed:,} failed ({', '.join(causes + ['...'] * (len(by_cause) > len(causes)))})")
    tokens = results.usage.total_tokens
    if tokens:
        parts.append(f"{tokens:,} tokens")
    values = [_value_line(value) for value in results[:_LINE_VALUES]] + ["..."] * (len(results) > _LINE_VALUES)
    return f"<Results: {'; '.join([*parts, f'{results.elapsed:,.1f} s'])}; [{', '.join(values)}]>"


def _value_line(value: Any) -> str:
    text = getattr(value, "text", None)
    return repr(short(text, _LINE_CHARACTERS)) if isinstance(text, str) else short(value, _LINE_CHARACTERS)


def results_html(results: Results[Any, Any], by_cause: Failures) -> str:
    """Return what a notebook shows of results: counts, failures with what to do, and the first rows."""
    outcomes = results.outcomes
    shown = table(("", "prompt", "answer", "parsed", "error"), map(_row, outcomes[:_SHOWN_ROWS]))
    more = f"… and {len(outcomes) - _SHOWN_ROWS:,} more" if len(outcomes) > _SHOWN_ROWS else ""
    return block("Results", _results_facts(results, by_cause), shown, more)


def _results_facts(results: Results[Any, Any], by_cause: Failures) -> List[Fact]:
    count, failed = len(results.outcomes), sum(len(group) for _, group in by_cause)
    facts = [("answered", f"{count - failed:,} of {count:,}")]
    for place, (cause, group) in enumerate(by_cause[:_SHOWN_CAUSES]):
        error = group[0].error
        advice = "" if error is None else f": {error.advice}"
        facts.append(("" if place else "failed", f"{len(group):,} x {cause}{advice}"))
    if results.fatal is not None:
        facts.append(("ended early", error_text(results.fatal)))
    bill = results._bill(None)
    facts += token_facts(bill.usage)
    if bill.cost is not None:
        facts.append(("cost", "; ".join(filter(None, [dollars(bill.cost), bill.note()]))))
    latencies = [outcome.history[-1].elapsed for outcome in results.outcomes if outcome.history]
    if latencies:
        facts.append(("latency", latency_text(latencies)))
    attempts = sum(outcome.attempts for outcome in results.outcomes)
    if attempts > len(latencies):
        facts.append(("attempts", f"{attempts:,}, {attempts - len(latencies):,} of them made again"))
    return [*facts, ("time", f"{results.elapsed:,.1f} s")]


def error_text(error: ChatPoolError) -> str:
    """Return an error with what to do about it, shortened."""
    message = short(f"{type(error).__name__}: {error.message}", 300)
    return message if error.advice in message else f"{message}; {error.advice}"


def _row(outcome: Outcome[Any]) -> Tuple[int, str, str, str, str]:
    value, error = outcome.value, outcome.error
    text, parsed = getattr(value, "text", None), getattr(value, "parsed", None)
    answer = text if isinstance(text, str) else "" if value is None else value
    failure = "" if error is None else f"{type(error).__name__}: {error.message}"
    return (
        outcome.index,
        short(_prompt_of(outcome)),
        short(answer),
        "" if parsed is None else short(parsed),
        short(failure, 200),
    )


def _prompt_of(outcome: Outcome[Any]) -> str:
    """Return what was asked: the last message of a conversation, with names for its images and files."""
    return _asked(outcome.item if outcome.request is None else outcome.request.body, _PROMPT_DEPTH)


def _asked(value: Any, depth: int) -> str:
    if isinstance(value, str):
        return value
    if depth and isinstance(value, Mapping):
        for name in (*_PROMPT_FIELDS, "content", "text"):
            if name in value:
                return _asked(value[name], depth - 1)
        return f"[{short(value['type'], 40)}]" if "type" in value else short(value)
    if depth and isinstance(value, (list, tuple)) and value:
        if isinstance(value[-1], Mapping) and "role" in value[-1]:
            others = f"[{len(value):,} messages] " if len(value) > 2 else ""
            return others + _asked(value[-1], depth - 1)
        if all(isinstance(part, Mapping) for part in value[:_SHOWN_PARTS]):
            return " ".join(_asked(part, depth - 1) for part in value[:_SHOWN_PARTS])
    return short(value)


def outcome_line(outcome: Outcome[Any]) -> str:
    """Return the repr of an outcome."""
    error = outcome.error
    result = (
        f"value={short(outcome.value)}" if error is None else f"error={type(error).__name__}({short(str(error))!r})"
    )
    return f"Outcome(index={outcome.index}, {result}, attempts={outcome.attempts}, elapsed={outcome.elapsed:.2f})"


def outcome_html(outcome: Outcome[Any]) -> str:
    """Return what a notebook shows of an outcome: question, answer or error, and its attempts."""
    _, prompt, answer, parsed, _ = _row(outcome)
    facts = [("prompt", prompt), ("answer", answer), ("parsed", parsed)]
    if outcome.error is not None:
        facts.append(("error", error_text(outcome.error)))
    facts += token_facts(outcome.usage) if outcome.usage is not None else []
    facts.append(("time", f"{outcome.elapsed:,.2f} s"))
    attempts = [
        (number, short(attempt.reason), attempt.elapsed, "" if attempt.wait is None else f"{attempt.wait:,.2f}")
        for number, attempt in enumerate(outcome.history[:_SHOWN_ROWS], 1)
    ]
    history = table(("attempt", "result", "seconds", "then waited"), attempts)
    return block(f"Outcome {outcome.index}", [fact for fact in facts if fact[1]], history)


def stats_line(stats: PoolStats) -> str:
    """Return the repr of a pool's counters."""
    parts = [text if name in ("cost", "waits for") else f"{text} {name}" for name, text in _stats_facts(stats)]
    return f"<PoolStats: {'; '.join(parts)}>"


def _stats_facts(stats: PoolStats) -> List[Fact]:
    counts = ("succeeded", "failed", "retried", "reasked", "fell_back", "in_flight", "queued", "parked")
    facts = [(name.replace("_", " "), f"{getattr(stats, name):,}") for name in counts]
    facts = [fact for place, fact in enumerate(facts) if place < 2 or fact[1] != "0"]
    if stats.usage.total_tokens:
        facts.append(("tokens", f"{stats.usage.total_tokens:,}"))
    if stats.cost is not None:
        facts.append(("cost", dollars(stats.cost)))
    return facts + ([] if stats.waits_for is None else [("waits for", short(stats.waits_for))])


def stats_html(stats: PoolStats) -> str:
    """Return what a notebook shows of a pool's counters, and of each endpoint and model."""
    rows = [
        (
            short(endpoint),
            short(model or ""),
            "" if line.rate is None else f"{line.rate:,.3g}/s",
            "" if line.concurrency_limit is None else f"{line.concurrency_limit:,}",
            "" if line.paused_until is None else f"{line.paused_until:,.1f} s",
            short(line.why or "", 200),
            short(line.waits_for or ""),
        )
        for (endpoint, model), line in itertools.islice(stats.lines.items(), _SHOWN_ROWS)
    ]
    head = ("endpoint", "model", "rate", "at a time", "paused for", "why", "waits for")
    return block("PoolStats", _stats_facts(stats), table(head, rows))
