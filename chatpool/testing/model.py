"""The model behind a FakeServer: what it answers on each path when no script says otherwise."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

from . import bodies
from .prompts import embedding_inputs, prompts_of
from .received import ReceivedRequest

__all__ = ["FakeModel", "ReplyFunction"]

ReplyFunction = Callable[[Any], Union[str, Mapping[str, Any]]]

Content = Tuple[int, Any]

_DEFAULT_MODEL = "fake-model"


class FakeModel:
    """Deterministic answers: the same request gets the same content.

    Args:
        reply: ``callable(body) -> text``, or a whole body as a dict. Default: the last user message.
    """

    def __init__(self, reply: Optional[ReplyFunction] = None) -> None:
        self._reply = reply
        self._paths: Dict[Tuple[str, str], Callable[[ReceivedRequest, Optional[str]], Content]] = {
            ("POST", "/chat/completions"): self._chat,
            ("POST", "/completions"): self._completions,
            ("POST", "/responses"): self._responses,
            ("POST", "/embeddings"): self._embeddings,
            ("POST", "/moderations"): self._moderations,
            ("GET", "/models"): self._models,
        }

    def content(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        """Status and JSON body of the answer to ``request``; ``text`` is what the model says, if that is given."""
        path = api_path(request.path)
        answer = self._paths.get((request.method, path or ""))
        if answer is None:
            return self._not_found(request, path)
        if request.method == "POST" and not isinstance(request.body, dict):
            return _refused("We could not parse the JSON body of your request: it must be an object.", None)
        return answer(request, text)

    def _text(self, request: ReceivedRequest, text: Optional[str], default: str) -> Union[str, Mapping[str, Any]]:
        if text is not None:
            return text
        return default if self._reply is None else self._reply(request.body)

    def _chat(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("messages"):
            return _missing("messages")
        said = self._text(request, text, request.prompt)
        if not isinstance(said, str):
            return 200, said
        count = request.body.get("n") or 1
        body = bodies.chat_completion(
            said, id=f"chatcmpl-{request.number}", model=_model(request), prompt=request.prompt, n=count
        )
        return 200, body

    def _completions(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("prompt"):
            return _missing("prompt")
        prompts = prompts_of(request.body)
        said = [self._text(request, text, prompt) for prompt in prompts]
        for one in said:
            if not isinstance(one, str):
                return 200, one
        texts = [str(one) for one in said]
        return 200, bodies.text_completion(
            texts, id=f"cmpl-{request.number}", model=_model(request), prompt=" ".join(prompts)
        )

    def _responses(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("input"):
            return _missing("input")
        said = self._text(request, text, request.prompt)
        if not isinstance(said, str):
            return 200, said
        return 200, bodies.response_object(
            said, id=f"resp-{request.number}", model=_model(request), prompt=request.prompt
        )

    def _embeddings(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("input"):
            return _missing("input")
        return 200, bodies.embedding_list(
            embedding_inputs(request.body),
            model=_model(request),
            dimensions=request.body.get("dimensions") or 8,
            encoding_format=request.body.get("encoding_format") or "float",
        )

    def _moderations(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("input"):
            return _missing("input")
        inputs = embedding_inputs(request.body)
        return 200, bodies.moderation(inputs, id=f"modr-{request.number}", model=_model(request))

    def _models(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        return 200, bodies.model_list([_DEFAULT_MODEL])

    def _not_found(self, request: ReceivedRequest, path: Optional[str]) -> Content:
        message = f"Unknown request URL: {request.method} {request.path}."
        if path is None:
            message += " The paths of this server begin with /v1."
        status = 405 if any(known == path for _, known in self._paths) else 404
        return status, bodies.error_body(message, type="invalid_request_error", code="unknown_url")


def api_path(path: str) -> Optional[str]:
    """The path below ``/v1``, or below an Azure deployment; None for a path that is neither."""
    if path.startswith("/openai/deployments/"):
        _, _, below = path[len("/openai/deployments/") :].partition("/")
        return "/" + below
    _, found, below = path.partition("/v1/")
    return "/" + below if found else None


def _model(request: ReceivedRequest) -> str:
    model = request.body.get("model")
    return model if isinstance(model, str) else _DEFAULT_MODEL


def _missing(name: str) -> Content:
    return _refused(f"Missing required parameter: '{name}'.", name)


def _refused(message: str, param: Optional[str]) -> Content:
    return 400, bodies.error_body(message, type="invalid_request_error", code=None, param=param)
