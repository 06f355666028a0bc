"""Why a model stopped, in OpenAI's words, whoever's server it was."""

from __future__ import annotations

import re
from typing import Any, Iterator, NamedTuple

from ..types import ChatCompletion

__all__ = ["CONTENT_FILTER", "LENGTH", "STOP", "TOOL_CALLS", "Ending", "ending_of"]

STOP, TOOL_CALLS, LENGTH, CONTENT_FILTER = "stop", "tool_calls", "length", "content_filter"

# What servers and gateways send in OpenAI's field, without regard to case.  Gemini's own names:
# https://ai.google.dev/api/generate-content#FinishReason
_MEANINGS = {
    STOP: ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete", "completed"),
    TOOL_CALLS: ("tool_calls", "tool_call", "tool_use", "function_call"),
    LENGTH: ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
    CONTENT_FILTER: (
        "content_filter",
        "content_filtered",
        "safety",
        "refusal",
        "sensitive",
        "blocklist",
        "guardrail_intervened",
        "image_prohibited_content",
        "image_recitation",
        "image_safety",
        "model_armor",
        "prohibited_content",
        "recitation",
        "spii",
    ),
}
_MEANING_OF = {name: meaning for meaning, names in _MEANINGS.items() for name in names}

# Names with the name of their type before them, as programs print them.
_OF_A_TYPE = re.compile(r"^(?:finish_?reason[._])", re.IGNORECASE)


class Ending(NamedTuple):
    """The end of an answer.

    Attributes:
        meaning: :data:`STOP`, :data:`TOOL_CALLS`, :data:`LENGTH`, :data:`CONTENT_FILTER`, or what the server said
            where it is none of these.
        refusal: what the model said instead of an answer that it refuses to give, "" as a rule.
    """

    meaning: str
    refusal: str = ""


def ending_of(completion: ChatCompletion) -> Ending:
    """Why the model stopped; a refusal, which servers send with the reason ``stop``, is a content filter's.

    A server that gives no reason has come to the end in its own way: that is a stop.
    """
    said = completion.finish_reason
    meaning = _meaning(said) if said else STOP
    if meaning == STOP and completion.tool_calls:
        return Ending(TOOL_CALLS)
    refusal = "" if completion.text or completion.tool_calls else _refusal_of(completion)
    return Ending(CONTENT_FILTER, refusal) if refusal else Ending(meaning)


def _meaning(said: str) -> str:
    """A reason in OpenAI's words; Gemini's endpoint has its own after one of them, ``content_filter: RECITATION``."""
    name = _OF_A_TYPE.sub("", said.strip()).lower()
    return _MEANING_OF.get(name) or _MEANING_OF.get(name.partition(":")[0].strip(), said)


def _refusal_of(completion: ChatCompletion) -> str:
    refusal = completion.message.get("refusal")
    if isinstance(refusal, str):
        return refusal
    return "".join(_refusals_in(completion.raw))


def _refusals_in(answer: Any) -> Iterator[str]:
    """The refusals among the output items of the Responses API."""
    items = answer.get("output") if isinstance(answer, dict) else None
    for item in items if isinstance(items, list) else ():
        parts = item.get("content") if isinstance(item, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and isinstance(part.get("refusal"), str):
                yield part["refusal"]
