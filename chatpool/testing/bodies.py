"""Bodies as an OpenAI-compatible server sends them.  Sources: the public API reference, per function."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Any, Dict, List, Optional, Sequence

__all__ = [
    "chat_completion",
    "embedding_list",
    "embedding_vector",
    "error_body",
    "model_list",
    "moderation",
    "response_object",
    "text_completion",
]

# Fixed, so that the same request always gets the same bytes.
_CREATED = 1_700_000_000


def chat_completion(
    text: Optional[str],
    *,
    id: str = "chatcmpl-0",  # noqa: A002 - the API's own name for it
    model: str = "fake-model",
    finish_reason: str = "stop",
    tool_calls: Sequence[Dict[str, Any]] = (),
    prompt: str = "",
    n: int = 1,
) -> Dict[str, Any]:
    """The body of an answer of ``/chat/completions``, to be sent as it is or changed first.

    Args:
        text: what the assistant says; None for an answer that only calls tools.
        id: the completion's id.
        model: the model that answers.
        finish_reason: ``"stop"``, ``"length"``, ``"content_filter"``, ``"tool_calls"``, ...
        tool_calls: the API's tool-call objects.
        prompt: the text that was asked; only its words are counted, for ``usage``.
        n: how many choices, all alike.

    Example::

        cut = chat_completion("Once upon a", finish_reason="length")
        server = FakeServer(script=[Answer(body=cut)])
    """
    message: Dict[str, Any] = {"role": "assistant", "content": text}
    if tool_calls:
        message["tool_calls"] = list(tool_calls)
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason} for index in range(n)
    ]
    usage = _usage(prompt, [text or ""] * n)
    return {
        "id": id,
        "object": "chat.completion",
        "created": _CREATED,
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def text_completion(texts: Sequence[str], *, id: str, model: str, prompt: str = "") -> Dict[str, Any]:  # noqa: A002
    """The body of an answer of ``/completions``, one choice per text."""
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"} for index, text in enumerate(texts)
    ]
    usage = _usage(prompt, texts)
    return {
        "id": id,
        "object": "text_completion",
        "created": _CREATED,
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def response_object(text: str, *, id: str, model: str, prompt: str = "") -> Dict[str, Any]:  # noqa: A002
    """The body of an answer of ``/responses`` with one message."""
    used = _usage(prompt, [text])
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {"type": "message", "id": f"msg-{id}", "status": "completed", "role": "assistant", "content": content}
    usage = {
        "input_tokens": used["prompt_tokens"],
        "output_tokens": used["completion_tokens"],
        "total_tokens": used["total_tokens"],
    }
    return {
        "id": id,
        "object": "response",
        "created_at": _CREATED,
        "status": "completed",
        "model": model,
        "output": [message],
        "error": None,
        "usage": usage,
    }


def embedding_list(
    inputs: Sequence[Any], *, model: str, dimensions: int = 8, encoding_format: str = "float"
) -> Dict[str, Any]:
    """The body of an answer of ``/embeddings``, one vector per input, as numbers or as base64."""
    vectors: List[Any] = [embedding_vector(str(given), dimensions) for given in inputs]
    if encoding_format == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    tokens = sum(_tokens(str(given)) for given in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def embedding_vector(text: str, dimensions: int = 8) -> List[float]:
    """The unit vector that a :class:`FakeServer` gives for ``text``: the same for the same text, in every process.

    Its numbers fit 32-bit floats exactly, so that they are equal however they were sent.
    """
    raw = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    numbers = [number + 0.5 for number in struct.unpack(f"<{dimensions}h", raw)]
    length = math.sqrt(sum(number * number for number in numbers))
    packed = struct.pack(f"<{dimensions}f", *(number / length for number in numbers))
    return list(struct.unpack(f"<{dimensions}f", packed))


def moderation(inputs: Sequence[Any], *, id: str, model: str) -> Dict[str, Any]:  # noqa: A002
    """The body of an answer of ``/moderations``: nothing is flagged."""
    result = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.0}}
    return {"id": id, "model": model, "results": [result for _ in inputs]}


def model_list(models: Sequence[str]) -> Dict[str, Any]:
    """The body of an answer of ``/models``."""
    data = [{"id": model, "object": "model", "created": _CREATED, "owned_by": "chatpool"} for model in models]
    return {"object": "list", "data": data}


def error_body(message: str, *, type: Optional[str], code: Any, param: Optional[str] = None) -> Dict[str, Any]:  # noqa: A002
    """OpenAI's error body."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def _usage(prompt: str, texts: Sequence[str]) -> Dict[str, int]:
    asked, said = _tokens(prompt), sum(_tokens(text) for text in texts)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _tokens(text: str) -> int:
    """A word is a token here: easy to predict in a test."""
    return len(text.split())
