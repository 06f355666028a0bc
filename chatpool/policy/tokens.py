"""How many tokens a request will take, before it is sent."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

from ..measures import RequestSize
from ..types import Usage

__all__ = ["TokenEstimate", "TokenEstimator"]

_TOKENS_PER_BYTE = 0.25  # of UTF-8: right for English within a quarter; learned from the first answer on
_COMPLETION = 256.0  # tokens, before any answer has shown how long they are
_ANSWERS_IN_MEAN = 50
_LARGEST_STEP = 10.0  # a single answer counts as at most so many times what was thought usual: it may be a mistake
_MOST_PER_BYTE = 1.0  # of a tokenizer that makes each byte one; what is more is no matter of the prompt's length


class TokenEstimate(NamedTuple):
    """Tokens that a request is expected to take.

    Attributes:
        prompt: tokens read.
        completion: tokens written, the most that the request allows where it says so.
    """

    prompt: float
    completion: float

    @property
    def total(self) -> float:
        """Both."""
        return self.prompt + self.completion


class TokenEstimator:
    """Learns from the answers of one (endpoint, model) how many tokens a byte is, and how long answers are.

    OpenAI counts ``max_tokens`` of a request that has it, whatever the answer's length; so does this.

    Args:
        limit: see the attribute; None without one.

    Attributes:
        limit: tokens that may be sent in a minute; no request is thought to need more because others did.
    """

    __slots__ = ("_answers", "_completion", "_per_byte", "limit")

    def __init__(self, limit: Optional[float] = None) -> None:
        self.limit = math.inf if limit is None else limit
        self._answers = 0
        self._per_byte = _TOKENS_PER_BYTE
        self._completion = _COMPLETION

    def estimate(self, size: RequestSize) -> TokenEstimate:
        """The tokens that a request of this size will take."""
        completion = self._completion if size.completion_limit is None else size.completion_limit
        return TokenEstimate(size.prompt_bytes * self._per_byte + size.other_tokens, completion * size.choices)

    def total(self, size: RequestSize) -> float:
        """The tokens of :meth:`estimate`; asked for several times per call."""
        completion = self._completion if size.completion_limit is None else size.completion_limit
        tokens = size.prompt_bytes * self._per_byte + size.other_tokens + completion * size.choices
        return tokens if tokens <= self.limit else max(self.limit, self._least(size))

    def _least(self, size: RequestSize) -> float:
        """What a request of this size says itself that it may take, whatever others took."""
        completion = min(self._completion, _COMPLETION) if size.completion_limit is None else size.completion_limit
        prompt = size.prompt_bytes * min(self._per_byte, _MOST_PER_BYTE)
        return prompt + size.other_tokens + completion * size.choices

    def expected(self, size: RequestSize) -> TokenEstimate:
        """The same, with the usual length of an answer where that is less than the request allows."""
        estimate = self.estimate(size)
        return estimate._replace(completion=min(estimate.completion, self._completion * size.choices))

    def learn(self, size: RequestSize, usage: Usage) -> None:
        """A request of this size has taken so many tokens."""
        self._answers += 1
        weight = 1 / min(_ANSWERS_IN_MEAN, self._answers)
        text_tokens = usage.prompt_tokens - size.other_tokens
        if size.prompt_bytes and text_tokens > 0:
            per_byte = min(text_tokens / size.prompt_bytes, _LARGEST_STEP * max(self._per_byte, _TOKENS_PER_BYTE))
            self._per_byte += weight * (per_byte - self._per_byte)
        if size.choices and usage.completion_tokens:
            completion = min(usage.completion_tokens / size.choices, _LARGEST_STEP * max(self._completion, _COMPLETION))
            self._completion += weight * (completion - self._completion)
