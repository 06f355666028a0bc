"""The model behind a :class:`FakeServer`: its answers to prompts and texts, and their bodies.

Source of the bodies: the public API reference.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Any, Callable, Dict, List, Literal, Optional, Sequence, Union

from ..config import positive_int
from .received import ReceivedRequest, embedding_inputs, prompts_of
from .routing import Content, Routes, invalid_request, json_handler, not_found

__all__ = [
    "MAX_CHOICES",
    "ChoicesLimit",
    "FakeModel",
    "ReplyFunction",
    "chat_completion",
    "embedding_vector",
    "response_object",
]

ReplyFunction = Callable[[Any], Union[str, Sequence[str], Mapping[str, Any]]]

ChoicesLimit = Union[int, Literal["first"]]

MAX_CHOICES = 128
_DEFAULT_MODEL = "fake-model"
# Fixed, so that equal requests get equal bytes.
_CREATED = 1_700_000_000
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class FakeModel:
    """Deterministic answers: the same request gets the same content.

    Args:
        reply: ``callable(body) -> text``, a list of texts, one for each choice, or a whole body as a dict. Default:
            the last user message.
        choices: how many choices ``n`` may ask for, and more is refused; ``"first"``: it is ignored.

    Raises:
        ConfigurationError: ``choices`` is none of these.
    """

    def __init__(self, reply: Optional[ReplyFunction] = None, choices: ChoicesLimit = MAX_CHOICES) -> None:
        if choices != "first":
            positive_int("choices", choices)
        self._reply = reply
        self._choices = choices
        self.routes: Routes = {
            ("POST", "/chat/completions"): json_handler(self._chat),
            ("POST", "/completions"): json_handler(self._completions),
            ("POST", "/responses"): json_handler(self._responses),
            ("POST", "/embeddings"): json_handler(self._embeddings),
            ("POST", "/moderations"): json_handler(self._moderations),
            ("GET", "/models"): self._models,
            ("GET", "/models/{id}"): self._model_of_id,
        }

    def _text(self, request: ReceivedRequest, text: Optional[str], default: str) -> Union[str, Mapping[str, Any]]:
        reply = self._replied(request, text, default)
        return reply if isinstance(reply, (str, Mapping)) else reply[0]

    def _replied(
        self, request: ReceivedRequest, text: Optional[str], default: str
    ) -> Union[str, Sequence[str], Mapping[str, Any]]:
        if text is not None:
            return text
        return default if self._reply is None else self._reply(request.body)

    def _count(self, request: ReceivedRequest) -> int:
        """Return how many choices a request gets; 0 for more than there may be."""
        count = request.body.get("n") or 1
        if self._choices == "first":
            return 1
        return count if count <= self._choices else 0

    def _chat(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("messages"):
            return _missing_parameter("messages")
        count = self._count(request)
        if not count:
            return self._too_many(request)
        reply = self._replied(request, text, request.prompt)
        if isinstance(reply, Mapping):
            return Content(200, reply)
        texts = [reply] * count if isinstance(reply, str) else [reply[place % len(reply)] for place in range(count)]
        body = chat_completion(
            texts[0], id=f"chatcmpl-{request.number}", model=_model(request), prompt=request.prompt, n=count
        )
        for choice, said in zip(body["choices"], texts):
            choice["message"] = {**choice["message"], "content": said}
        return Content(200, {**body, "usage": _usage(request.prompt, texts)})

    def _too_many(self, request: ReceivedRequest) -> Content:
        count = request.body["n"]
        if self._choices == 1:
            only = "Only the default (1) value is supported."
            return invalid_request(f"Unsupported value: 'n' does not support {count} with this model. {only}", "n")
        wanted = f"Expected a value <= {self._choices}, but got {count} instead."
        return invalid_request(f"Invalid 'n': integer above maximum value. {wanted}", "n")

    def _completions(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("prompt"):
            return _missing_parameter("prompt")
        count = self._count(request)
        if not count:
            return self._too_many(request)
        prompts = [prompt for prompt in prompts_of(request.body) for _ in range(count)]
        replies = [self._text(request, text, prompt) for prompt in prompts]
        for reply in replies:
            if not isinstance(reply, str):
                return Content(200, reply)
        texts = [str(reply) for reply in replies]
        joined = " ".join(prompts)
        return Content(200, _text_completion(texts, id=f"cmpl-{request.number}", model=_model(request), prompt=joined))

    def _responses(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("input"):
            return _missing_parameter("input")
        reply = self._text(request, text, request.prompt)
        if not isinstance(reply, str):
            return Content(200, reply)
        body = response_object(reply, id=f"resp-{request.number}", model=_model(request), prompt=request.prompt)
        return Content(200, body)

    def _embeddings(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("input"):
            return _missing_parameter("input")
        body = _embedding_list(
            embedding_inputs(request.body),
            model=_model(request),
            dimensions=request.body.get("dimensions") or 8,
            encoding_format=request.body.get("encoding_format") or "float",
        )
        return Content(200, body)

    def _moderations(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("input"):
            return _missing_parameter("input")
        inputs = embedding_inputs(request.body)
        return Content(200, _moderation(inputs, id=f"modr-{request.number}", model=_model(request)))

    def _models(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        return Content(200, {"object": "list", "data": [_model_object(_DEFAULT_MODEL)]})

    def _model_of_id(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        if id_in_path != _DEFAULT_MODEL:
            return not_found("Model", id_in_path)
        return Content(200, _model_object(id_in_path))


def _model(request: ReceivedRequest) -> str:
    model = request.body.get("model")
    return model if isinstance(model, str) else _DEFAULT_MODEL


def _missing_parameter(name: str) -> Content:
    return invalid_request(f"Missing required parameter: '{name}'.", name)


# -- bodies -----------------------------------------------------------------------------------------------


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
    """Return the body of an answer of ``/chat/completions``, to be sent as it is or changed first.

    Args:
        text: the assistant's text; None for an answer that only calls tools.
        id: the completion's id.
        model: the model that answers.
        finish_reason: ``"stop"``, ``"length"``, ``"content_filter"``, ``"tool_calls"``, ...
        tool_calls: the API's tool-call objects.
        prompt: the prompt; only its words are counted, for ``usage``.
        n: how many choices, all alike.

    Example::

        cut = chat_completion("Once upon a", finish_reason="length")
        server = FakeServer(script=[Answer(body=cut)])
    """
    message: Dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
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


def _text_completion(texts: Sequence[str], *, id: str, model: str, prompt: str = "") -> Dict[str, Any]:  # noqa: A002
    """Return the body of an answer of ``/completions``, one choice per text."""
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
    """Return the body of an answer of ``/responses`` with one message."""
    used = _usage(prompt, [text])
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    message = {"type": "message", "id": f"msg-{id}", "status": "completed", "role": "assistant", "content": content}
    usage = {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
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
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def _embedding_list(
    inputs: Sequence[Any], *, model: str, dimensions: int = 8, encoding_format: str = "float"
) -> Dict[str, Any]:
    """Return the body of an answer of ``/embeddings``, one vector per input, as numbers or as base64."""
    vectors: List[Any] = [embedding_vector(str(item), dimensions) for item in inputs]
    if encoding_format == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    tokens = sum(_tokens(str(item)) for item in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def embedding_vector(text: str, dimensions: int = 8) -> List[float]:
    """Return the unit vector that a :class:`FakeServer` gives for ``text``: equal for equal texts, in every process.

    Its numbers fit 32-bit floats exactly, so that floats and base64 give equal vectors.
    """
    raw = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    numbers = [number + 0.5 for number in struct.unpack(f"<{dimensions}h", raw)]
    length = math.sqrt(sum(number * number for number in numbers))
    packed = struct.pack(f"<{dimensions}f", *(number / length for number in numbers))
    return list(struct.unpack(f"<{dimensions}f", packed))


def _moderation(inputs: Sequence[Any], *, id: str, model: str) -> Dict[str, Any]:  # noqa: A002
    """Return the body of an answer of ``/moderations``: nothing is flagged."""
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {category: ["text"] for category in _CATEGORIES},
    }
    return {"id": id, "model": model, "results": [result for _ in inputs]}


def _model_object(model: str) -> Dict[str, Any]:
    return {"id": model, "object": "model", "created": _CREATED, "owned_by": "chatpool"}


def _usage(prompt: str, texts: Sequence[str]) -> Dict[str, int]:
    read, written = _tokens(prompt), sum(_tokens(text) for text in texts)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _tokens(text: str) -> int:
    """Count words: they are easy to predict in a test."""
    return len(text.split())
