"""Attachments in request bodies: the parts of messages that the API has for them.

Where the API wants base64 or text, a part has an :class:`AttachedContent`, which is read when it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from .._attachments import Attachment
from ..errors import ConfigurationError
from ..types import ChatRequest
from .codec import is_missing
from .operations import CHAT, RESPONSES, operation_of

__all__ = [
    "AttachedContent",
    "are_parts",
    "encoded_length",
    "takes_attachments",
    "user_message",
    "with_attachments",
    "with_parts",
]


@dataclass(frozen=True, repr=False)
class AttachedContent:
    """The content of an attachment, in the place of the text that is sent for it.

    Attributes:
        attachment: the file or the bytes.
        size: bytes of the content, when the request was made.
        prefix: what comes before the base64.
        is_text: whether the text itself is sent.
    """

    attachment: Attachment
    size: int
    prefix: str = ""
    is_text: bool = False

    @classmethod
    def of(cls, attachment: Attachment, *, prefix: str = "", is_text: bool = False) -> AttachedContent:
        """Return the content of an attachment that is no URL; raises as :meth:`Attachment.open`."""
        return cls(attachment, attachment.size(), prefix, is_text)

    def __repr__(self) -> str:
        return f"<content of {self.attachment!r}>"

    def __len__(self) -> int:
        """Return the characters that are sent for it, about."""
        return self.size if self.is_text else len(self.prefix) + encoded_length(self.size)

    def identity(self) -> str:
        """Return a text by which the content is known, whatever its file is called; raises as Attachment.open."""
        return f"{self.prefix}sha256:{self.attachment.sha256()}"

    def text(self) -> str:
        """Return the text of a text file.

        Raises:
            ConfigurationError: the file cannot be read, or is no text in UTF-8.
        """
        with self.attachment.reading() as file:
            data = file.read()
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"{self.attachment} is no text in UTF-8 (at byte {error.start:,}): convert it, or pass its text"
            ) from None


def encoded_length(size: int) -> int:
    """Return the characters of base64 for as many bytes."""
    return (size + 2) // 3 * 4  # RFC 4648, 4


# -- parts ------------------------------------------------------------------------------------------------

IMAGE, SOUND, TEXT, FILE = "image", "sound", "text", "file"

# Types that are text beside text/*, and structured syntaxes (RFC 6839) that are.
_TEXT_TYPES = frozenset(
    f"application/{name}"
    for name in ("json", "jsonl", "x-ndjson", "xml", "yaml", "x-yaml", "toml", "javascript", "x-sh", "x-tex", "sql")
)
_TEXT_SUFFIXES = ("+json", "+xml", "+yaml")

# What OpenAI calls the two formats that it takes; other servers take further ones, by the names of their types.
_SOUND_FORMATS = {"mpeg": "mp3", "mp3": "mp3", "vnd.wave": "wav", "wave": "wav", "mp4": "m4a"}


def _kind_of(media_type: str) -> Optional[str]:
    """Return the kind of part for a media type, None for one that the API has no part for."""
    top, _, subtype = media_type.partition("/")
    if top == "image":
        return IMAGE
    if top == "audio":
        return SOUND
    if top == "text" or media_type in _TEXT_TYPES or subtype.endswith(_TEXT_SUFFIXES):
        return TEXT
    return FILE if top == "application" else None


def _part_of(attachment: Attachment, operation: str) -> Dict[str, Any]:
    """Return the part of a message for an attachment.

    Raises:
        ConfigurationError: the file cannot be used, or the API has no part for it.
    """
    media_type = attachment.media_type()
    kind = _kind_of(media_type)
    if kind is None:
        raise ConfigurationError(
            f"{attachment} is of the type {media_type}, and a message takes images, sound, PDF files and text: "
            "pass type= if it is one of these, or put the part that your server has for it into the content as a dict"
        )
    is_responses = operation == RESPONSES
    if attachment.url is not None and not (kind == IMAGE or (kind == FILE and is_responses)):
        takes = "images and of files" if is_responses else "images"
        raise ConfigurationError(
            f"{attachment} is of the type {media_type}, and this API fetches the URLs of {takes} only: download it "
            "and attach the file" + ("" if is_responses or kind != FILE else ", or use pool.responses")
        )
    if attachment.detail is not None and not (kind == IMAGE or (kind == FILE and is_responses)):
        raise ConfigurationError(f"{attachment}: detail= is for images, and this is of the type {media_type}")
    return _BUILDERS[kind](attachment, media_type, is_responses)


def _encoded(attachment: Attachment, media_type: str) -> Union[str, AttachedContent]:
    """Return the URL of an attachment: its own, or that of its data."""
    return attachment.url or AttachedContent.of(attachment, prefix=f"data:{media_type};base64,")


def _image(attachment: Attachment, media_type: str, is_responses: bool) -> Dict[str, Any]:
    url = _encoded(attachment, media_type)
    if is_responses:  # where detail has to be there
        return {"type": "input_image", "image_url": url, "detail": attachment.detail or "auto"}
    detail = {} if attachment.detail is None else {"detail": attachment.detail}
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def _sound(attachment: Attachment, media_type: str, is_responses: bool) -> Dict[str, Any]:
    subtype = media_type.partition("/")[2].removeprefix("x-")
    sound = {"data": AttachedContent.of(attachment), "format": _SOUND_FORMATS.get(subtype, subtype)}
    return {"type": "input_audio", "input_audio": sound}


def _file(attachment: Attachment, media_type: str, is_responses: bool) -> Dict[str, Any]:
    detail = {} if attachment.detail is None else {"detail": attachment.detail}
    if attachment.url is not None:
        return {"type": "input_file", "file_url": attachment.url, **detail}
    subtype = media_type.partition("/")[2]
    file = {"filename": attachment.name or f"file.{subtype}", "file_data": _encoded(attachment, media_type)}
    return {"type": "input_file", **file, **detail} if is_responses else {"type": "file", "file": file}


def _text(attachment: Attachment, media_type: str, is_responses: bool) -> Dict[str, Any]:
    return _text_part(AttachedContent.of(attachment, is_text=True), is_responses)


def _text_part(text: Union[str, AttachedContent], is_responses: bool) -> Dict[str, Any]:
    return {"type": "input_text" if is_responses else "text", "text": text}


_BUILDERS: Mapping[str, Callable[[Attachment, str, bool], Dict[str, Any]]] = {
    IMAGE: _image,
    SOUND: _sound,
    TEXT: _text,
    FILE: _file,
}


# -- parts in messages --------------------------------------------------------------------------------------


_FIELDS = {CHAT: "messages", RESPONSES: "input"}  # that have messages, by operation


def are_parts(item: Any) -> bool:
    """Return whether an item is an attachment, or a list with attachments in it: the content of one message."""
    return isinstance(item, Attachment) or (
        isinstance(item, (list, tuple)) and any(isinstance(part, Attachment) for part in item)
    )


def user_message(item: Any) -> Dict[str, Any]:
    """Return the message whose content is ``item``: an attachment, or a list of attachments, texts and parts.

    Raises:
        TypeError: something else is in the list.
    """
    content = [item] if isinstance(item, Attachment) else list(item)
    for place, part in enumerate(content):
        if isinstance(part, Mapping) and "role" in part:
            raise TypeError(
                f"part {place} beside an attachment is a message: put the attachment into the list of its 'content'"
            )
        if not isinstance(part, (str, Attachment, Mapping)):
            shown = "an empty cell" if is_missing(part) else f"a value of type {type(part).__name__}"
            raise TypeError(f"part {place} beside an attachment must be a str or an attachment, got {shown}")
    return {"role": "user", "content": content}


def with_parts(body: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return ``body`` with the API's parts in the place of attachments in its messages; the same if there are none.

    Args:
        body: the body.
        path: the path that it goes to.

    Raises:
        ConfigurationError: as :func:`_part_of`.
    """
    operation = operation_of(path)
    field = _FIELDS.get(operation)
    messages = body.get(field) if field else None
    if field == "input" and are_parts(messages):
        messages = [user_message(messages)]
    elif not isinstance(messages, (list, tuple)):
        return body
    changed: Optional[List[Any]] = None
    for place, message in enumerate(messages):
        if type(message) is not dict and not isinstance(message, Mapping):
            continue
        for name in ("content", "output"):  # the latter has what a function has returned, in the Responses API
            content = message.get(name)
            if content is not None and type(content) is not str and are_parts(content):
                changed = changed or list(messages)
                changed[place] = {**message, name: _parts_in(content, operation)}
    return body if changed is None or field is None else {**body, field: changed}


def _parts_in(content: Any, operation: str) -> List[Any]:
    parts: Sequence[Any] = [content] if isinstance(content, Attachment) else content
    return [
        _part_of(part, operation)
        if isinstance(part, Attachment)
        else _text_part(part, operation == RESPONSES)
        if isinstance(part, str)
        else part
        for part in parts
    ]


def takes_attachments(request: ChatRequest) -> bool:
    """Return whether a request has messages, or a text that can be one."""
    return operation_of(request.path) in _FIELDS


def with_attachments(request: ChatRequest, attachments: Sequence[Attachment]) -> ChatRequest:
    """Return a request for which :func:`takes_attachments` is true with attachments in its last user message."""
    field = _FIELDS[operation_of(request.path)]
    value = request.body.get(field)
    messages: List[Any] = [{"role": "user", "content": value}] if isinstance(value, str) else list(value or ())
    of_user = [place for place, message in enumerate(messages) if _is_of_user(message)]
    if not of_user:
        messages.append({"role": "user", "content": list(attachments)})
    else:
        message = messages[of_user[-1]]
        content = message.get("content")
        texts = content if isinstance(content, (list, tuple)) else [content] if content else []
        messages[of_user[-1]] = {**message, "content": [*texts, *attachments]}
    return ChatRequest({**request.body, field: messages}, request.path, request.method)


def _is_of_user(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") == "user"
