"""How large a request is, as far as its body shows."""

from __future__ import annotations

from collections import abc
from typing import Any, Callable, Mapping, Optional

from ..measures import RequestSize
from ..types import ChatRequest
from .paths import EMBEDDINGS, MODERATIONS, operation_of

__all__ = ["request_size"]

_COMPLETION_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_TEXTS = ("messages", "prompt", "input", "instructions", "tools", "functions", "response_format", "text")

_PER_MESSAGE = 12  # bytes' worth of the tokens that separate messages
_DEEPEST = 50

# https://platform.openai.com/docs/guides/images-vision: an image of usual size in full detail is 765 tokens.
_IMAGE_TOKENS = 800
_SMALL_IMAGE_TOKENS = 85  # detail="low", whatever its size
_VIDEO_TOKENS = 5000
# Sound is ten tokens a second; a second of MP3 at 128 kbit/s is 21,000 characters of base64, one of WAV more.
_CHARACTERS_PER_SOUND_TOKEN = 2000
# A page of a PDF file is read as text and as an image: about 1,200 tokens in 30,000 characters of base64.
_CHARACTERS_PER_FILE_TOKEN = 25


def request_size(request: ChatRequest) -> RequestSize:
    """The size of a request.  Never raises: what makes no sense counts nothing."""
    body, found = request.body, _Found()
    for name in _TEXTS:
        if name in body:
            found.add(body[name], 0)
    answers = 0 if operation_of(request.path) in (EMBEDDINGS, MODERATIONS) else _whole(body, "n", "best_of") or 1
    return RequestSize(found.text_bytes, found.tokens, _whole(body, *_COMPLETION_LIMITS), answers)


def _whole(body: Mapping[str, Any], *names: str) -> Optional[int]:
    for name in names:
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


class _Found:
    """Adds up the parts of a body; it is looked at once per call, so exact types are tried first.

    Attributes:
        text_bytes: bytes of text.
        tokens: tokens for what is no text.
    """

    __slots__ = ("text_bytes", "tokens")

    def __init__(self) -> None:
        self.text_bytes = 0
        self.tokens = 0

    def add(self, value: Any, depth: int) -> None:
        """Count a part of a body."""
        kind = type(value)
        if kind is str or isinstance(value, str):
            if _is_data(value):
                self.tokens += _IMAGE_TOKENS
            else:
                self.text_bytes += _length(value)
        elif depth > _DEEPEST:
            return
        elif kind is list or isinstance(value, (list, tuple)):
            if value and isinstance(value[0], int):
                self.text_bytes += 4 * len(value)  # tokens already, at a quarter of a token per byte
                return
            for part in value:
                self.add(part, depth + 1)
        elif kind is dict or isinstance(value, abc.Mapping):
            self._add_object(value, depth)

    def _add_object(self, value: Mapping[str, Any], depth: int) -> None:
        tokens = _media_tokens(value) if "type" in value else None
        if tokens is not None:
            self.tokens += tokens
            return
        if "role" in value:
            self.text_bytes += _PER_MESSAGE
        for part in value.values():
            self.add(part, depth + 1)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _is_data(text: str) -> bool:
    return text.startswith("data:") and ";base64," in text[:200]


def _media_tokens(part: Mapping[str, Any]) -> Optional[int]:
    """Tokens of an image, sound, film or file in a message; None for any other part of a body."""
    kind = part.get("type")
    if not isinstance(kind, str):
        return None
    measure = _MEDIA.get(kind)
    if measure is None:
        return None
    # Chat has an object of the type's name in the part, the Responses API the fields themselves.
    inner = part.get(kind)
    return measure({**part, **inner} if isinstance(inner, Mapping) else part)


def _image(fields: Mapping[str, Any]) -> int:
    return _SMALL_IMAGE_TOKENS if fields.get("detail") == "low" else _IMAGE_TOKENS


def _sound(fields: Mapping[str, Any]) -> int:
    return _by_length(fields.get("data") or fields.get("url"), _CHARACTERS_PER_SOUND_TOKEN)


def _file(fields: Mapping[str, Any]) -> int:
    return _by_length(fields.get("file_data"), _CHARACTERS_PER_FILE_TOKEN)


def _by_length(data: Any, characters_per_token: int) -> int:
    """Of data in the request; what the server fetches by itself has a size that nobody knows."""
    length = len(data) if isinstance(data, str) else 0
    return max(_IMAGE_TOKENS, length // characters_per_token)


# The names of chat, of the Responses API and (the last two) of vLLM.
_MEDIA: Mapping[str, Callable[[Mapping[str, Any]], int]] = {
    "image_url": _image,
    "input_image": _image,
    "input_audio": _sound,
    "file": _file,
    "input_file": _file,
    "audio_url": _sound,
    "video_url": lambda fields: _VIDEO_TOKENS,
}
