"""Tokens and money that an answer used, by its own account, in the fields of all servers."""

from __future__ import annotations

import math
import re
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from ..types import Usage

__all__ = ["amount_of", "usage_fields_of", "usage_of", "whole_number"]

_MAX_TOKENS = 10**9  # of one answer; more is a mistake, which must count neither against a limit nor a budget
_MAX_COST = 1e6

_PROMPT_FIELDS = ("prompt_tokens", "input_tokens")
_COMPLETION_FIELDS = ("completion_tokens", "output_tokens")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_COMPLETION_DETAILS = ("completion_tokens_details", "output_tokens_details")
# DeepSeek, Moonshot, Anthropic
_CACHED_FIELDS = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
# At Anthropic no part of input_tokens.
_BESIDE_INPUT_FIELDS = ("cache_read_input_tokens", "cache_creation_input_tokens")
# OpenRouter, Perplexity (in an object "cost"), DeepInfra
_PLAIN_COST_FIELDS = ("cost", "total_cost", "estimated_cost")
_TICKS_FIELD, _TICKS_PER_DOLLAR = "cost_in_usd_ticks", 1e10  # xAI

_COST_FIELDS = frozenset({*_PLAIN_COST_FIELDS, _TICKS_FIELD})

_NUMBER = re.compile(r"\d{1,30}(?:\.\d*)?(?:[eE][+-]?\d{1,3})?")


def usage_of(payload: Any) -> Optional[Usage]:
    """Return the tokens that an answer says it used, counted as they are billed.

    None when it does not say, or says something impossible: nothing but zeros, or more than a billion.
    """
    if not isinstance(payload, dict):
        return None
    # Where texts are only read (embeddings, reranking), tokens that no part names were read as well.
    only_reads = "choices" not in payload and ("data" in payload or "results" in payload)
    fields, choices = usage_fields_of(payload), payload.get("choices")
    usage = _usage_in(fields, only_reads) if isinstance(fields, dict) else None
    if usage is None and isinstance(choices, list):
        inside = (choice.get("usage") for choice in reversed(choices) if isinstance(choice, dict))  # Moonshot
        usage = next(filter(None, (_usage_in(fields, False) for fields in inside if isinstance(fields, dict))), None)
    return usage


def usage_fields_of(payload: Mapping[str, Any]) -> Any:
    """Return the usage that an answer, or a chunk of one, states beside its choices; as it stands there."""
    fields, of_groq = payload.get("usage"), payload.get("x_groq")
    if not fields and isinstance(of_groq, dict):
        return of_groq.get("usage")  # the last chunk of Groq's streams
    return fields


def _usage_in(fields: Dict[str, Any], only_reads: bool) -> Optional[Usage]:
    read, written = _count(fields, *_PROMPT_FIELDS), _count(fields, *_COMPLETION_FIELDS)
    total = _count(fields, "total_tokens")
    cached = _part(fields, _PROMPT_DETAILS, "cached_tokens", *_CACHED_FIELDS)
    reasoning = _part(fields, _COMPLETION_DETAILS, "reasoning_tokens", "reasoning_tokens")
    if read is not None and total is None and "prompt_tokens" not in fields:
        read += sum(_count(fields, name) or 0 for name in _BESIDE_INPUT_FIELDS)
    only_reads = only_reads or (read is None and written is not None)
    read, written, total = read or 0, written or 0, total or 0
    if reasoning > written:  # so it is no part of it (xAI)
        written += reasoning
    if cached > _MAX_TOKENS:
        cached = 0
    if cached > read:  # so it is no part of it either (Anthropic's, behind some gateways)
        read += cached
    rest = max(0, total - read - written)
    if only_reads:
        read += rest
    else:
        written += rest
    if max(read, written) > _MAX_TOKENS:  # what the other numbers are is no better known
        return None
    cost = _cost(fields)
    if not read + written and not cost:
        return None
    return Usage(read, written, read + written, cached, reasoning, cost)


def _part(fields: Dict[str, Any], details: Sequence[str], name: str, *names: str) -> int:
    """Return a count in the details, or beside them."""
    for details_name in details:
        inner = fields.get(details_name)
        count = _count(inner, name) if isinstance(inner, dict) else None
        if count is not None:
            return count
    return _count(fields, *names) or 0


def _count(fields: Dict[str, Any], *names: str) -> Optional[int]:
    """Return the first of these fields that is a number of tokens; None where none is."""
    for name in names:
        value = fields.get(name)
        if type(value) is int and value >= 0:  # as nearly always: it is looked at once per answer
            return value
        if value is not None and (count := whole_number(value)) is not None:
            return count
    return None


def whole_number(value: Any) -> Optional[int]:
    """Return a count as servers write it (38, 37.25, "38"), rounded up; None for anything else."""
    amount = amount_of(value)
    if not isinstance(amount, float):
        return amount
    return math.ceil(amount - 1e-9) if amount < math.inf else 10 * _MAX_TOKENS


def amount_of(value: Any) -> Union[int, float, None]:
    """Return a number, also one in digits, that is not negative; None for anything else."""
    if isinstance(value, str):
        text = value.strip().replace(",", "")
        value = float(text) if _NUMBER.fullmatch(text) else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and value >= 0 else None  # NaN is not


def _cost(fields: Dict[str, Any]) -> Optional[float]:
    """Return the money that is stated; None where there is none, or an impossible sum."""
    if _COST_FIELDS.isdisjoint(fields):
        return None
    inner = fields.get("cost")
    for place in (fields, inner if isinstance(inner, dict) else {}):
        for name in _PLAIN_COST_FIELDS:
            cost = amount_of(place.get(name))
            if cost is not None and cost <= _MAX_COST:
                return _with_upstream(float(cost), fields) if fields.get("is_byok") is True else float(cost)
    ticks = amount_of(fields.get(_TICKS_FIELD))
    return None if ticks is None or ticks > _MAX_COST * _TICKS_PER_DOLLAR else ticks / _TICKS_PER_DOLLAR


def _with_upstream(fee: float, fields: Dict[str, Any]) -> Optional[float]:
    """Return the fee plus the provider's price, for a key of one's own (OpenRouter); None where that is unknown."""
    details = fields.get("cost_details")
    upstream = amount_of(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    return None if upstream is None or upstream > _MAX_COST else fee + float(upstream)
