"""Requests for sound, pictures, moderation and stored files, and what a program wants of their answers."""

from __future__ import annotations

import base64
import binascii
import os
import pathlib
from dataclasses import replace
from typing import Any, BinaryIO, Dict, List, Literal, Mapping, Optional, Tuple, Union
from urllib.parse import quote

from .._attachments import attach
from .._files import whole_content
from ..errors import APIResponseError, ConfigurationError
from ..types import ChatRequest
from .operations import (
    IMAGE_EDITS,
    IMAGES,
    MODERATIONS,
    SOUND_PATHS,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    operation_of,
)

__all__ = [
    "FileLike",
    "completed_sound",
    "in_its_form",
    "is_sound_request",
    "moderation_request",
    "picture_request",
    "pictures_in",
    "results_in",
    "sound_format",
    "speech",
    "stored_file_path",
    "stored_files_in",
    "text_in",
    "transcription",
    "transcription_fields",
    "translation",
    "upload_request",
]

FileLike = Union[str, os.PathLike[str], bytes, BinaryIO, Tuple[str, Any]]
"""A file's path, its bytes, an open binary file, or a tuple (filename, content)."""

_FILES = "/files"
_TEXTS = frozenset({"srt", "text", "vtt"})  # formats of transcripts that are no JSON
_LISTS = frozenset(
    ("timestamp_granularities", "include", "languages", "keywords", "known_speaker_names", "known_speaker_references")
)
_FORM_FIELDS = _LISTS | {"model", "language", "prompt", "temperature", "response_format", "chunking_strategy"}
_SOUND_FORMATS = {"ogg": "opus", **{name: name for name in ("mp3", "opus", "aac", "flac", "wav", "pcm")}}


# -- sound --------------------------------------------------------------------------------------------------------


def transcription(audio: FileLike, *, response_format: str = "json", **fields: Any) -> ChatRequest:
    """Return the request for the text that is spoken in a sound, for :meth:`ChatPool.map` and the like.

    ::

        requests = [transcription(path, model="whisper-1") for path in paths]
        texts = [answer["text"] for answer in pool.map(requests, journal="texts.journal", on_error="raise")]

    Args:
        audio: a path (a str too), bytes, a binary file, or a tuple (filename, content).
        response_format: ``"json"``, ``"verbose_json"``, ``"diarized_json"``: the answer is a dict. ``"srt"``,
            ``"vtt"``, ``"text"``: it is a str.
        fields: further fields of the form, ``model`` among them.

    Raises:
        TypeError: ``audio`` is of no such kind.
        ConfigurationError: the file cannot be read, or bytes are of no kind of sound that is known.
    """
    return _sound_request(TRANSCRIPTIONS, audio, response_format, fields)


def translation(audio: FileLike, *, response_format: str = "json", **fields: Any) -> ChatRequest:
    """Return the request for the English text of a sound; arguments and errors as for :func:`transcription`."""
    return _sound_request(TRANSLATIONS, audio, response_format, fields)


def speech(
    text: str,
    *,
    to: Union[str, os.PathLike[str], None] = None,
    voice: Any = "alloy",
    response_format: Optional[str] = None,
    **fields: Any,
) -> ChatRequest:
    """Return the request for a sound in which a text is spoken, for :meth:`ChatPool.map` and the like.

    Args:
        text: the text.
        to: the file for the sound. Default: the answer is its bytes.
        voice: a name that the server knows.
        response_format: ``"mp3"``, ``"opus"``, ``"aac"``, ``"flac"``, ``"wav"``, ``"pcm"``, or what else the server
            has. Default: by the ending of ``to``, else the server's, which is mp3 at OpenAI.
        fields: further body fields, ``model`` among them.

    Raises:
        TypeError: ``text`` is no str.
        ConfigurationError: the ending of ``to`` is of no sound that is known.
    """
    if not isinstance(text, str) or not text:
        raise TypeError(f"a text to speak must be a str that is not empty, got {type(text).__name__}")
    path = None if to is None else pathlib.Path(to)
    if response_format is None and path is not None:
        response_format = _SOUND_FORMATS.get(path.suffix[1:].lower())
        if response_format is None:
            raise ConfigurationError(
                f"to={str(path)!r} does not say what sound is wanted: let it end in "
                f"{', '.join('.' + name for name in _SOUND_FORMATS)}, or pass response_format="
            )
    body = {"input": text, "voice": voice, "response_format": response_format, **fields}
    return ChatRequest(_without_none(body), SPEECH, response="bytes" if path is None else path)


def _sound_request(path: str, audio: FileLike, response_format: str, fields: Mapping[str, Any]) -> ChatRequest:
    body = _without_none({**fields, "response_format": response_format})
    response: Literal["text", "json"] = "text" if response_format in _TEXTS else "json"
    return ChatRequest(body, path, files=(("file", _named("audio", audio)),), response=response)


def is_sound_request(request: ChatRequest) -> bool:
    """Return whether a request is for a sound, or for the text of one."""
    return operation_of(request.path) in SOUND_PATHS


def completed_sound(request: ChatRequest, model: Optional[str], defaults: Mapping[str, Any]) -> ChatRequest:
    """Return a request about a sound with a pool's model and fields, where it has none of its own."""
    body = {**defaults, **request.body}
    named = request.body.get("model") or model or defaults.get("model")
    return replace(request, body={**body, "model": named} if named else body)


def transcription_fields(fields: Mapping[str, Any]) -> Dict[str, Any]:
    """Return those of a row's fields that the form for a transcript has, and that are not empty.

    A list may be a text with commas between its entries, as the cells of tables have it.
    """
    known = {name: _entries(name, value) for name, value in fields.items() if name in _FORM_FIELDS}
    return {name: value for name, value in known.items() if value not in (None, "", [])}


def _entries(name: str, value: Any) -> Any:
    if name not in _LISTS or not isinstance(value, str):
        return value
    return [entry.strip() for entry in value.split(",") if entry.strip()]


def sound_format(request: ChatRequest) -> Any:
    """Return the format of the sound that a request is for."""
    return request.body.get("response_format") or "mp3"  # OpenAI's default


def in_its_form(request: ChatRequest) -> ChatRequest:
    """Return a request about a sound with the fields that it needs, and the form of answer that these ask for."""
    if operation_of(request.path) == SPEECH:
        return replace(request, body={"voice": "alloy", **request.body})
    form = request.body.get("response_format") or "json"
    return replace(
        request, body={**request.body, "response_format": form}, response="text" if form in _TEXTS else "json"
    )


def text_in(answer: Any) -> str:
    """Return the text of a transcript that came as JSON."""
    return str(answer["text"])  # an answer without it is not taken for one


# -- pictures -------------------------------------------------------------------------------------------------------


def picture_request(prompt: str, image: Any, mask: Any, fields: Mapping[str, Any]) -> ChatRequest:
    """Return the request for pictures: new ones, or changes of ``image``, which may be a list.

    Raises:
        TypeError: a picture is none.
        ConfigurationError: a picture is of no kind that is known, or cannot be read.
    """
    body: Dict[str, Any] = {"prompt": prompt, **fields}
    if str(body.get("model") or "").startswith("dall-e"):
        body.setdefault("response_format", "b64_json")  # otherwise an address; other models refuse the field
    several = isinstance(image, (list, tuple))
    pictures = list(image) if several else [] if image is None else [image]
    files = [("image[]" if several else "image", _named("image", picture)) for picture in pictures]
    if mask is not None:
        files.append(("mask", _named("mask", mask)))
    return ChatRequest(body, IMAGE_EDITS if files else IMAGES, files=files)


def pictures_in(answer: Any) -> List[Union[bytes, str]]:
    """Return the pictures of an answer: their bytes, or the addresses where the server has not sent them.

    Raises:
        APIResponseError: an entry is no picture.
    """
    return [_picture(entry, answer) for entry in answer["data"]]


def _picture(entry: Any, answer: Any) -> Union[bytes, str]:
    encoded, url = (entry.get("b64_json"), entry.get("url")) if isinstance(entry, dict) else (None, None)
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise APIResponseError("a picture in the server's answer is no base64", body=answer) from None
    if isinstance(url, str):
        return url
    raise APIResponseError("an entry of the server's answer has no picture", body=answer)


# -- moderation and stored files ------------------------------------------------------------------------------------


def moderation_request(text: Any, fields: Mapping[str, Any]) -> ChatRequest:
    """Return the request for the moderation of a text, or of several."""
    return ChatRequest({"input": text, **fields}, MODERATIONS)


def results_in(answer: Any) -> List[Dict[str, Any]]:
    """Return the moderation of each text."""
    results: List[Dict[str, Any]] = answer["results"]
    return results


def upload_request(file: FileLike, purpose: str, expires_after: Optional[int]) -> ChatRequest:
    """Return the request that stores a file."""
    body: Dict[str, Any] = {"purpose": purpose}
    if expires_after is not None:
        body["expires_after"] = {"anchor": "created_at", "seconds": expires_after}
    return ChatRequest(body, _FILES, files=(("file", pathlib.Path(file) if isinstance(file, str) else file),))


def stored_file_path(file_id: str) -> str:
    """Return the path of a stored file.

    Raises:
        TypeError: the id is none.
    """
    if not isinstance(file_id, str) or not file_id:
        raise TypeError(f"file_id must be a str such as 'file-abc123', got {file_id!r}")
    return f"{_FILES}/{quote(file_id, safe='')}"


def stored_files_in(page: Any) -> Tuple[List[Dict[str, Any]], Optional[str]]:
    """Return the files on a page of a list, and the id after which the next page begins; None for the last.

    Raises:
        APIResponseError: it is no such page.
    """
    found = page.get("data") if isinstance(page, dict) else None
    if not isinstance(found, list) or not all(isinstance(file, dict) for file in found):
        raise APIResponseError(f"the server's answer to GET {_FILES} is no list of files", body=page)
    last = found[-1].get("id") if found else None
    return found, last if page.get("has_more") and isinstance(last, str) else None


# -- names ------------------------------------------------------------------------------------------------------------


def _named(name: str, content: Any) -> Any:
    """Return the part of a form for a file; bytes get a name with an ending, by which servers know what they are."""
    if isinstance(content, (tuple, os.PathLike)):
        return content
    if isinstance(content, str):
        return pathlib.Path(content)
    own_name = getattr(content, "name", None)
    if hasattr(content, "read"):
        content = whole_content(content)
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"{name} must be a path, bytes, a file opened in binary mode, or a tuple (filename, content), "
            f"got {type(content).__name__}"
        )
    data = bytes(content)
    if isinstance(own_name, str):
        return os.path.basename(own_name), data
    media_type = attach(data).media_type()
    return f"{name}.{_ENDINGS.get(media_type, media_type.partition('/')[2])}", data, media_type


_ENDINGS = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mp4": "m4a"}


def _without_none(fields: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
