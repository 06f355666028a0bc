"""The review of several answers to one request (``samples=``), each as if it were the only one."""

from __future__ import annotations

from typing import Any, Optional

from .._engine import Review, Reviewer
from .._wire.sampling import separate_answers
from ..errors import APIResponseError
from ..types import ChatCompletion, ChatRequest

__all__ = ["SamplesReview", "review_of_samples"]


def review_of_samples(review: Optional[Reviewer], samples: int) -> Optional[Reviewer]:
    """Return the review of answers to requests for so many, of which ``review`` reviews one."""
    return review if samples == 1 else SamplesReview(review, samples)


class SamplesReview:
    """Review the choices of a completion, in any number of threads; the first that is not accepted decides.

    Args:
        review: reviews one answer; None accepts each.
        samples: how many answers there have to be.
    """

    def __init__(self, review: Optional[Reviewer], samples: int) -> None:
        self._review = review
        self._samples = samples

    def __call__(self, request: ChatRequest, value: Any, reasks: int) -> Review:
        """Review an answer; see :data:`~chatpool._engine.call.Reviewer`."""
        if not isinstance(value, ChatCompletion):
            return Review(value)
        answers = separate_answers(request, value)
        if len(answers) < self._samples:
            message = f"{len(answers)} of {self._samples} answers came; run the item again"
            error = APIResponseError(message, request_id=value.request_id)
            error.samples = value
            return Review(error=error, reason="too few answers")
        if self._review is None:
            return Review(value)
        for answer in answers:
            review = self._review(request, answer, reasks)
            if review.value is None:
                return review
        for choice, answer in zip(value.choices[1:], answers[1:]):
            choice.parsed = answer.parsed
        value.parsed = answers[0].parsed
        return Review(value)
