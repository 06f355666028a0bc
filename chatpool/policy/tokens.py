"""How many tokens a request will take, before it is sent."""

from __future__ import annotations

from typing import NamedTuple

from ..measures import RequestSize
from ..types import Usage

__all__ = ["TokenEstimate", "TokenEstimator"]

_TOKENS_PER_BYTE = 0.25  # of UTF-8: right for English within a quarter; learned from the first answer on
_COMPLETION = 256.0  # tokens, before any answer has shown how long they are
_ANSWERS_IN_MEAN = 50


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
    """

    __slots__ = ("_answers", "_completion", "_per_byte")

    def __init__(self) -> None:
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
        return size.prompt_bytes * self._per_byte + size.other_tokens + completion * size.choices

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
            self._per_byte += weight * (text_tokens / size.prompt_bytes - self._per_byte)
        if size.choices and usage.completion_tokens:
            self._completion += weight * (usage.completion_tokens / size.choices - self._completion)
