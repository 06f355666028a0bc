"""Size of a request, as far as its body shows it."""

from __future__ import annotations

import contextlib
import re
from collections import abc
from collections.abc import Mapping
from typing import Any, Callable, Optional

from .._values import RequestSize
from ..types import ChatRequest
from .attachments import AttachedContent
from .codec import plain, whole
from .operations import EMBEDDINGS, MODERATIONS, operation_of

__all__ = ["request_size"]

_COMPLETION_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_SIZED_FIELDS = (
    *("messages", "prompt", "input", "instructions", "tools", "functions", "response_format", "text"),
    # Of dialects: Anthropic's, Ollama's, those that rerank, Cohere's and Voyage's.
    *("system", "image", "images", "query", "documents", "inputs", "texts"),
)

_MESSAGE_BYTES = 12  # bytes' worth of the tokens that separate messages
_MAX_DEPTH = 50

# https://platform.openai.com/docs/guides/images-vision: an image of usual size in full detail is 765 tokens.
_IMAGE_TOKENS = 800
_SMALL_IMAGE_TOKENS = 85  # detail="low", whatever its size
_VIDEO_TOKENS = 5000
# Sound is ten tokens a second; a second of MP3 at 128 kbit/s is 21,000 characters of base64, one of WAV more.
_CHARACTERS_PER_SOUND_TOKEN = 2000
# A page of a PDF file is read as text and as an image: about 1,200 tokens in 30,000 characters of base64.
_CHARACTERS_PER_FILE_TOKEN = 25
_CHARACTERS_PER_TEXT_TOKEN = 5  # of a text file in base64

# Fields whose text is text, whatever it looks like; in others it may be base64.
_NAMES_OF_TEXT = frozenset(
    {"arguments", "code", "content", "description", "documents", "encrypted_content", "input", "instructions", "output"}
    | {"prompt", "query", "reasoning", "reasoning_content", "refusal", "signature", "summary", "system", "text"}
    | {"thinking", "title"}
)
_NAMES_OF_IMAGES = frozenset({"image", "images", "image_url", "image_urls", "image_base64"})
_NAMES_OF_OTHERS = frozenset({"audio", "input_audio", "video", "file", "document", "pdf"})
_FIELDS_OF_IMAGES = frozenset({"url", "source", "data", "bytes", "base64", "b64_json", "file_id"})
_MIN_ENCODED_CHARACTERS = 256
_LOOKS_ENCODED = r"[A-Za-z0-9+/_-][A-Za-z0-9+/_=\r\n-]{255}"


def request_size(request: ChatRequest) -> RequestSize:
    """Return the size of a request.  Never raises: a part that makes no sense counts nothing."""
    body, counter = request.body, _Counter()
    for name in _SIZED_FIELDS:
        if name in body:
            counter.add(body[name], 0, name)
    has_choices = operation_of(request.path) not in (EMBEDDINGS, MODERATIONS)
    choices = _positive_number(body, "n", "best_of") or 1 if has_choices else 0
    return RequestSize(counter.text_bytes, counter.tokens, _positive_number(body, *_COMPLETION_LIMITS), choices)


def _positive_number(body: Mapping[str, Any], *names: str) -> Optional[int]:
    for name in names:
        value = body.get(name)
        number = None if value is None else whole(value)
        if number is not None and number > 0:
            return number
    return None


class _Counter:
    """Adds up the parts of a body; this runs once per call, so exact types are tried first.

    Attributes:
        text_bytes: bytes of text.
        tokens: tokens for content that is not text.
    """

    __slots__ = ("text_bytes", "tokens")

    def __init__(self) -> None:
        self.text_bytes = 0
        self.tokens = 0

    def add(self, value: Any, depth: int, name: str = "", media_type: str = "") -> None:
        """Count a part of a body.

        Args:
            value: the part.
            depth: number of objects and lists around it.
            name: its field's name, in a list that of the list.
            media_type: media type of its data, as far as the body names one.
        """
        kind = type(value)
        if kind is str or isinstance(value, str):
            if _is_media(value, name):
                self.tokens += _tokens_of_data(value, name if name in _NAMES_OF_OTHERS else media_type)
            else:
                self.text_bytes += _length(value)
        elif depth > _MAX_DEPTH:
            return
        elif kind is list or isinstance(value, (list, tuple)):
            if value and (isinstance(value[0], int) or (hasattr(value[0], "dtype") and whole(value[0]) is not None)):
                self.text_bytes += 4 * len(value)  # tokens already, at a quarter of a token per byte
                return
            for part in value:
                self.add(part, depth + 1, name, media_type)
        elif kind is dict or isinstance(value, abc.Mapping):
            self._add_object(value, depth, name, media_type)
        elif kind is AttachedContent:
            self.text_bytes += len(value)
        elif value is not None and not isinstance(value, (int, float)):
            with contextlib.suppress(TypeError):  # it will not be sent
                self.add(plain(value), depth + 1, name, media_type)

    def _add_object(self, value: Mapping[str, Any], depth: int, name: str, media_type: str) -> None:
        tokens = _media_tokens(value) if "type" in value else None
        if tokens is None and name in _NAMES_OF_IMAGES and not _FIELDS_OF_IMAGES.isdisjoint(value):
            tokens = _image(value)
        if tokens is not None:
            self.tokens += tokens
            return
        if "role" in value:
            self.text_bytes += _MESSAGE_BYTES
        media_type = _media_type_of(value) or (name if name in _NAMES_OF_OTHERS else media_type)
        for field, part in value.items():
            self.add(part, depth + 1, field, media_type)


def _media_type_of(value: Mapping[str, Any]) -> str:
    """Return the media type that an object names for its data; "" where it names none."""
    for field in ("mime_type", "mimeType", "media_type", "mediaType"):
        media_type = value.get(field)
        if media_type and isinstance(media_type, str):
            return media_type
    return ""


def _is_media(text: str, name: str) -> bool:
    """Return whether a text is an image, sound or file: data, or the address of one where an image has to be."""
    if text.startswith("data:"):
        return ";base64," in text[:200]
    if name in _NAMES_OF_IMAGES:
        return " " not in text[:200]
    return (
        len(text) >= _MIN_ENCODED_CHARACTERS
        and name not in _NAMES_OF_TEXT
        and re.match(_LOOKS_ENCODED, text) is not None
    )


def _tokens_of_data(data: str, media_type: str) -> int:
    """Return the tokens of data, by its media type; those of an image where that is unknown."""
    kind = data[5:200].partition(";")[0] if data.startswith("data:") else media_type
    if "audio" in kind:
        return _by_length(data, _CHARACTERS_PER_SOUND_TOKEN)
    if "video" in kind:
        return _VIDEO_TOKENS
    if kind.startswith("text/"):
        return len(data) // _CHARACTERS_PER_TEXT_TOKEN
    if any(word in kind for word in ("pdf", "file", "document")):
        return _by_length(data, _CHARACTERS_PER_FILE_TOKEN)
    return _IMAGE_TOKENS


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _media_tokens(part: Mapping[str, Any]) -> Optional[int]:
    """Return the tokens of an image, sound, video or file in a message; None for any other part of a body."""
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
    data = fields.get("data") or fields.get("url") or fields.get("audio")
    return _by_length(data, _CHARACTERS_PER_SOUND_TOKEN)


def _file(fields: Mapping[str, Any]) -> int:
    data = fields.get("file_data") or fields.get("data")
    if isinstance(data, AttachedContent):
        return _by_length(data, _CHARACTERS_PER_FILE_TOKEN)
    return _tokens_of_data(data, _media_type_of(fields) or "file") if isinstance(data, str) else _IMAGE_TOKENS


def _by_length(data: Any, characters_per_token: int) -> int:
    """Return the tokens of data in the request; those of an image where the server fetches it, of unknown size."""
    length = len(data) if isinstance(data, (str, AttachedContent)) else 0
    return max(_IMAGE_TOKENS, length // characters_per_token)


def _document(fields: Mapping[str, Any]) -> Optional[int]:
    """Return the tokens of Anthropic's documents; None for one of text, which is counted as text."""
    source = fields.get("source")
    if not isinstance(source, Mapping) or source.get("type") in ("text", "content"):
        return None
    return _by_length(source.get("data"), _CHARACTERS_PER_FILE_TOKEN)


# The names of chat, of the Responses API (and what it puts out, which goes into the next request), of Anthropic and
# MCP, and of vLLM.
_MEDIA: Mapping[str, Callable[[Mapping[str, Any]], Optional[int]]] = {
    "image_url": _image,
    "input_image": _image,
    "image": _image,
    "image_file": _image,
    "image_generation_call": _image,
    "computer_screenshot": _image,
    "audio": _sound,
    "document": _document,
    "video": lambda fields: _VIDEO_TOKENS,
    "input_video": lambda fields: _VIDEO_TOKENS,
    "input_audio": _sound,
    "file": _file,
    "input_file": _file,
    "audio_url": _sound,
    "video_url": lambda fields: _VIDEO_TOKENS,
}
