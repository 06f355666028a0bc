"""How many tokens an answer used, by its own account."""

from __future__ import annotations

import math
import re
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from ..types import Usage

__all__ = ["amount_of", "said_usage", "usage_of", "whole_number"]

_MOST_TOKENS = 10**9  # of one answer; more is a mistake, which must count neither against a limit nor a budget
_MOST_MONEY = 1e6

_READ = ("prompt_tokens", "input_tokens")
_WRITTEN = ("completion_tokens", "output_tokens")
_READ_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_WRITTEN_DETAILS = ("completion_tokens_details", "output_tokens_details")
_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")  # DeepSeek, Moonshot, Anthropic
_BESIDE_INPUT = ("cache_read_input_tokens", "cache_creation_input_tokens")  # at Anthropic no part of input_tokens
_COST = ("cost", "total_cost", "estimated_cost")  # OpenRouter, Perplexity (in an object "cost"), DeepInfra
_TICKS, _TICKS_PER_DOLLAR = "cost_in_usd_ticks", 1e10  # xAI

_SAY_COST = frozenset({*_COST, _TICKS})

_NUMBER = re.compile(r"\d{1,30}(?:\.\d*)?(?:[eE][+-]?\d{1,3})?")


def usage_of(payload: Any) -> Optional[Usage]:
    """The tokens that an answer says it used, counted as they are billed.

    None when it does not say, or says what cannot be: nothing but zeros, or more than a billion.
    """
    if not isinstance(payload, dict):
        return None
    # Where texts are only read (embeddings, reranking), what no part names was read as well.
    only_reads = "choices" not in payload and ("data" in payload or "results" in payload)
    said, choices = said_usage(payload), payload.get("choices")
    usage = _read(said, only_reads) if isinstance(said, dict) else None
    if usage is None and isinstance(choices, list):
        inside = (choice.get("usage") for choice in reversed(choices) if isinstance(choice, dict))
        usage = next(filter(None, (_read(said, False) for said in inside if isinstance(said, dict))), None)  # Moonshot
    return usage


def said_usage(payload: Mapping[str, Any]) -> Any:
    """What an answer, or a chunk of one, says of its usage beside its choices; as it stands there."""
    said, of_groq = payload.get("usage"), payload.get("x_groq")
    return of_groq.get("usage") if not said and isinstance(of_groq, dict) else said  # the last chunk of Groq's streams


def _read(said: Dict[str, Any], only_reads: bool) -> Optional[Usage]:
    read, written, total = _count(said, *_READ), _count(said, *_WRITTEN), _count(said, "total_tokens")
    cached = _part(said, _READ_DETAILS, "cached_tokens", *_CACHED)
    reasoning = _part(said, _WRITTEN_DETAILS, "reasoning_tokens", "reasoning_tokens")
    if read is not None and total is None and "prompt_tokens" not in said:
        read += sum(_count(said, name) or 0 for name in _BESIDE_INPUT)
    only_reads = only_reads or (read is None and written is not None)
    read, written, total = read or 0, written or 0, total or 0
    if reasoning > written:  # so it is no part of it (xAI)
        written += reasoning
    if cached > _MOST_TOKENS:
        cached = 0
    if cached > read:  # so it is no part of it either (Anthropic's, behind some gateways)
        read += cached
    rest = max(0, total - read - written)
    if only_reads:
        read += rest
    else:
        written += rest
    if max(read, written) > _MOST_TOKENS:  # what the other numbers are is no better known
        return None
    cost = _cost(said)
    if not read + written and not cost:
        return None
    return Usage(read, written, read + written, cached, reasoning, cost)


def _part(said: Dict[str, Any], details: Sequence[str], name: str, *names: str) -> int:
    """What is said in the details, or beside them."""
    for place in details:
        found = said.get(place)
        count = _count(found, name) if isinstance(found, dict) else None
        if count is not None:
            return count
    return _count(said, *names) or 0


def _count(said: Dict[str, Any], *names: str) -> Optional[int]:
    """The first of these that says a number of tokens; None where none does."""
    for name in names:
        value = said.get(name)
        if type(value) is int and value >= 0:  # as nearly always: it is looked at once per answer
            return value
        if value is not None and (count := whole_number(value)) is not None:
            return count
    return None


def whole_number(value: Any) -> Optional[int]:
    """A count as servers write it (38, 37.25, "38"), rounded up; None for what is none."""
    found = amount_of(value)
    if not isinstance(found, float):
        return found
    return math.ceil(found - 1e-9) if found < math.inf else 10 * _MOST_TOKENS


def amount_of(value: Any) -> Union[int, float, None]:
    """A number, also one in digits, that is not negative; None for anything else."""
    if isinstance(value, str):
        text = value.strip().replace(",", "")
        value = float(text) if _NUMBER.fullmatch(text) else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and value >= 0 else None  # NaN is not


def _cost(said: Dict[str, Any]) -> Optional[float]:
    """The money that is said; None without a word of it, or with one that cannot be."""
    if _SAY_COST.isdisjoint(said):
        return None
    inner = said.get("cost")
    for place in (said, inner if isinstance(inner, dict) else {}):
        for name in _COST:
            cost = amount_of(place.get(name))
            if cost is not None and cost <= _MOST_MONEY:
                return _with_upstream(float(cost), said) if said.get("is_byok") is True else float(cost)
    ticks = amount_of(said.get(_TICKS))
    return None if ticks is None or ticks > _MOST_MONEY * _TICKS_PER_DOLLAR else ticks / _TICKS_PER_DOLLAR


def _with_upstream(fee: float, said: Dict[str, Any]) -> Optional[float]:
    """With a key of one's own at the provider (OpenRouter), what that one takes comes to the fee; None where unsaid."""
    details = said.get("cost_details")
    upstream = amount_of(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    return None if upstream is None or upstream > _MOST_MONEY else fee + float(upstream)
