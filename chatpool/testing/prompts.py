"""The texts inside request bodies."""

from __future__ import annotations

from typing import Any, List

__all__ = ["embedding_inputs", "prompt_of", "prompts_of"]


def prompt_of(body: Any) -> str:
    """The text that a request body asks about: the last user message, the prompt or the input; "" without one."""
    if not isinstance(body, dict):
        return ""
    if "messages" in body:
        return _last_user_text(body["messages"])
    if "prompt" in body:
        return prompts_of(body)[-1]
    return _input_text(body.get("input"))


def prompts_of(body: Any) -> List[str]:
    """The prompts of a /completions body: one, or one per entry of a list."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(entry, str) for entry in prompt):
        return prompt
    return [prompt if isinstance(prompt, str) else ""]


def embedding_inputs(body: Any) -> List[Any]:
    """The inputs of an /embeddings body, one per vector that is asked for: texts or lists of tokens."""
    given = body.get("input")
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [given]


def _last_user_text(messages: Any) -> str:
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role", "user") == "user":
            return _content_text(message.get("content"))
    return ""


def _content_text(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _input_text(given: Any) -> str:
    if isinstance(given, list) and given:
        if isinstance(given[-1], dict):
            return _last_user_text(given)
        given = given[-1]
    return given if isinstance(given, str) else ""
