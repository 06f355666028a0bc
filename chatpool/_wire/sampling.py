"""Samples: several answers to one request, asked for with ``n`` or by several requests, and joined into one answer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Dict, List, Sequence

from ..errors import ConfigurationError
from ..types import ChatCompletion, ChatRequest, Choice
from .codec import whole
from .error_body import read_error
from .operations import CHAT, COMPLETIONS, RESPONSES, operation_of
from .response import UnusableAnswer, decode_response
from .rules import says_too_large

__all__ = [
    "MAX_CHOICES",
    "TOO_MANY",
    "alone",
    "choices_wanted",
    "is_usable",
    "join_answers",
    "may_refuse_choices",
    "places_of",
    "refuse_unsampled",
    "sampled_request",
    "separate_answers",
    "takes_choices",
    "with_choices",
    "with_seed_of",
]

MAX_CHOICES = 128
"""``n`` at most (https://platform.openai.com/docs/api-reference/chat/create)."""

_CHOICES, _SEED = "n", "seed"
_SAMPLED = (CHAT, COMPLETIONS, RESPONSES)
_REFUSALS = (400, 422, 501)  # of a value, by a schema, of what is not there
TOO_MANY = 429


def refuse_unsampled(request: ChatRequest) -> None:
    """Refuse a request that cannot have several samples.

    Raises:
        ConfigurationError: its answer is no completion, it has ``n`` itself, or it has several prompts.
    """
    operation = operation_of(request.path)
    if operation not in _SAMPLED or request.method.upper() != "POST" or request.response != "json":
        raise ConfigurationError(
            "samples= is for answers of chat, text completions and the Responses API as JSON, and not for "
            f"{request.method} {request.path}"
        )
    if request.body.get(_CHOICES) not in (None, 1):
        raise ConfigurationError(f"samples= says how many answers there are to be: leave out {_CHOICES}")
    if operation == COMPLETIONS and not isinstance(request.body.get("prompt"), str):
        raise ConfigurationError("samples= is for requests of one prompt, a str: send each prompt as an item")


def sampled_request(request: ChatRequest, samples: int) -> ChatRequest:
    """Return the one request for all samples, where there can be no other.

    Raises:
        ConfigurationError: the API has no ``n`` for it, or none as large.
    """
    if samples == 1:
        return request
    if not takes_choices(request):
        raise ConfigurationError(f"samples= needs requests of their own for {request.path}: the API has no n for it")
    if samples > MAX_CHOICES:
        raise ConfigurationError(f"samples= must be {MAX_CHOICES} at most in one request, got {samples}")
    return with_choices(request, samples)


def takes_choices(request: ChatRequest) -> bool:
    """Return whether the API has ``n`` for requests of this kind; a server may refuse or ignore it all the same."""
    return operation_of(request.path) in (CHAT, COMPLETIONS)


def choices_wanted(request: ChatRequest) -> int:
    """Return how many answers a request asks for."""
    return max(1, whole(request.body.get(_CHOICES)) or 1)


def may_refuse_choices(status: int, content: bytes) -> bool:
    """Return whether a response may be due to the number of answers that the request asks for."""
    return status in _REFUSALS or (status == TOO_MANY and says_too_large(read_error(content).message))


def with_choices(request: ChatRequest, count: int) -> ChatRequest:
    """Return a request that asks for so many answers; of one answer nothing is said."""
    body = {name: value for name, value in request.body.items() if name != _CHOICES}
    if count > 1:
        body[_CHOICES] = count
    return ChatRequest(body, request.path, request.method, request.files, request.response)


def with_seed_of(request: ChatRequest, sample: int) -> ChatRequest:
    """Return the request of a sample, from 0, that is asked for apart: with one seed all would be the same.

    A negative seed, which is a random one to some servers, stays as it is.
    """
    seed = whole(request.body.get(_SEED))
    if not sample or seed is None or seed < 0:
        return request
    body = {**request.body, _SEED: seed + sample}
    return ChatRequest(body, request.path, request.method, request.files, request.response)


def separate_answers(request: ChatRequest, completion: ChatCompletion) -> List[ChatCompletion]:
    """Return each usable answer in a completion as a completion of its own."""
    body = completion.raw
    if not isinstance(body.get("choices"), list):
        further = body.get("samples")
        bodies = [body, *(part for part in further or () if isinstance(part, dict))]
    else:
        bodies = [{**body, "choices": [choice]} for choice in body["choices"]]
    answers = []
    for each in bodies:
        with contextlib.suppress(UnusableAnswer):  # a choice with the reason "error", among others
            answers.append(decode_response(request, each, completion.request_id))
    return answers


def alone(answer: ChatCompletion) -> Dict[str, Any]:
    """Return the JSON of one of several answers as if it were the only one; what it alone has cost is not known."""
    body = {name: value for name, value in answer.raw.items() if name not in ("usage", "samples")}
    if isinstance(body.get("choices"), list):
        body["choices"] = [{**choice, "index": 0} for choice in body["choices"]]
    return body


def is_usable(choice: Choice) -> bool:
    """Return whether a choice is an answer: OpenRouter says so of one at which the model's provider has failed."""
    return choice.finish_reason != "error"


def places_of(request: ChatRequest, answers: Sequence[ChatCompletion], samples: int) -> Sequence[int]:
    """Return the places among so many samples that answers of an earlier run get.

    Where each has a seed of its own they have their old ones: those that are asked for again have other seeds.
    """
    numbers = [whole(choice.get("index")) for answer in answers for choice in answer.raw.get("choices") or ()]
    places = [number for number in numbers if number is not None and 0 <= number < samples]
    has_seeds = with_seed_of(request, 1) is not request
    return places if has_seeds and len(set(places)) == len(answers) else range(len(answers))


def join_answers(
    request: ChatRequest, came: Mapping[int, ChatCompletion], usages: Sequence[Mapping[str, Any]]
) -> ChatCompletion:
    """Return answers as one, in the form that the API has for several choices.

    The Responses API has none: there the further answers are the list ``samples`` in the JSON of the first.

    Args:
        request: of all of them.
        came: at least one answer, each a completion of its own, by its place among the samples.
        usages: the usage of each response that they came in, as JSON.
    """
    answers = list(came.values())
    body = dict(answers[0].raw)
    if isinstance(body.get("choices"), list):
        body["choices"] = [{**answer.raw["choices"][0], "index": place} for place, answer in came.items()]
    else:
        body["samples"] = [answer.raw for answer in answers[1:]]
    if usages:
        body["usage"] = _sum(usages)
    joined: ChatCompletion = decode_response(request, body, answers[0].request_id)
    for choice, answer in zip(joined.choices[1:], answers[1:]):
        choice.parsed = answer.parsed
    joined.parsed = answers[0].parsed
    return joined


def _sum(parts: Sequence[Any]) -> Any:
    """Return the sum of numbers, field by field where they are in objects; of anything else the first."""
    if all(isinstance(part, Mapping) for part in parts):
        names = dict.fromkeys(name for part in parts for name in part)
        total: Dict[str, Any] = {}
        for name in names:
            found = [part[name] for part in parts if part.get(name) is not None]
            total[name] = _sum(found) if found else None
        return total
    if all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in parts):
        return sum(parts)
    return parts[0]
