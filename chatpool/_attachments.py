"""Attachments: files, bytes and URLs beside text; their media types, and how their content is read."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import io
import mimetypes
import os
import re
from dataclasses import dataclass
from typing import BinaryIO, Iterator, Optional, Tuple, Union
from urllib.parse import unquote_to_bytes, urlsplit

from ._files import open_regular
from .errors import ConfigurationError

__all__ = ["Attachment", "attach"]


# https://platform.openai.com/docs/guides/pdf-files: less than 50 MB for each file, and for all files of a request.
_MAX_BYTES = 50 * 1024 * 1024

_HEAD_BYTES = 64
_HASHED_BYTES = 256 * 1024  # at a time
_CACHED_DIGESTS = 1 << 16

_ADVICE = (
    "pass type=, its media type, such as 'image/png', 'audio/wav', 'application/pdf' or 'text/plain', or filename= "
    "with an ending that says it"
)


@dataclass(frozen=True, repr=False)
class Attachment:
    """A file, bytes or a URL that stands beside text; :func:`attach` makes it.

    It is a small value: it can be compared, pickled and used again.  A file is read when it is sent.

    Attributes:
        path: the file, None for bytes and URLs.
        url: the URL, None for files and bytes.
        data: the bytes, None for files and URLs.
        type: the media type, as far as it was given.
        detail: how closely an image is looked at; None for the server's choice.
        filename: the name, as far as it was given.
        max_bytes: the size that is refused if the content is larger.
    """

    path: Optional[str] = None
    url: Optional[str] = None
    data: Optional[bytes] = None
    type: Optional[str] = None
    detail: Optional[str] = None
    filename: Optional[str] = None
    max_bytes: int = _MAX_BYTES

    def __repr__(self) -> str:
        return f"<Attachment {self._shown()}>"

    def __str__(self) -> str:
        """Return a description for messages, without content and without the secrets that a URL may have."""
        return f"the attachment {self._shown()}"

    def _shown(self) -> str:
        if self.data is not None:
            return f"of {len(self.data):,} bytes"
        if self.url is None:
            return str(self.path)
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def name(self) -> str:
        """The file's name without folders: that given, else that of the path or the URL; "" without any."""
        if self.filename is not None:
            return self.filename
        return os.path.basename(self.path or (urlsplit(self.url).path if self.url else ""))

    def media_type(self) -> str:
        """Return the media type: that given, else what the first bytes say, else what the name says.

        Raises:
            ConfigurationError: nothing says it, or the file cannot be read.
        """
        found = self.type
        if found is None and self.url is None:
            with self.reading() as file:
                found = _type_of_head(file.read(_HEAD_BYTES))
        found = found or type_of_name(self.name)
        if found is None:
            raise ConfigurationError(f"{self}: neither its first bytes nor its name say what it is: {_ADVICE}")
        return found

    def open(self) -> BinaryIO:
        """Return the content, to be read and closed.

        Raises:
            ConfigurationError: there is no such file, it cannot be read, is no regular file, is empty, or is larger
                than ``max_bytes``.
        """
        file = io.BytesIO(self.data) if self.data is not None else _opened(str(self.path))
        try:
            self._check_size(_size_of(file))
        except BaseException:
            file.close()
            raise
        return file

    @contextlib.contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """Lend the content; raises as :meth:`open`, also while it is read."""
        with self.open() as file, _told(str(self.path)):
            yield file

    def size(self) -> int:
        """Return the bytes of the content; raises as :meth:`open`."""
        with self.reading() as file:
            return _size_of(file)

    def sha256(self) -> str:
        """Return the SHA-256 of the content in hexadecimal; raises as :meth:`open`.

        That of a file is kept for as long as the file's inode, size and times are the same.
        """
        if self.data is not None:
            return hashlib.sha256(self.data).hexdigest()
        with self.reading() as file:
            identity = _identity_of(file)
        return _digest_of_file(str(self.path), identity)

    def _check_size(self, size: int) -> None:
        if not size:
            raise ConfigurationError(f"{self} is empty: there is nothing to send")
        if size > self.max_bytes:
            raise ConfigurationError(
                f"{self} has {size:,} bytes, and an attachment has at most {self.max_bytes:,}: make it "
                "smaller, or pass max_bytes= to attach if the server takes that much"
            )


def attach(
    source: Union[str, os.PathLike[str], bytes],
    *,
    type: Optional[str] = None,  # noqa: A002 - the word of data: URLs and HTML for it
    detail: Optional[str] = None,
    filename: Optional[str] = None,
    max_bytes: int = _MAX_BYTES,
) -> Attachment:
    """Return a file, bytes or a URL that stands beside the text of a prompt, as in ``["Describe it.", <attachment>]``.

    It becomes the part of the message that its type asks for: an image, sound, a file such as a PDF, or the text of a
    text file (``text/*``, JSON, XML, YAML), which has to be UTF-8.  A file is read when it is sent, at every attempt;
    nothing of it is kept in memory.

    Args:
        source: a path, bytes or a URL. A str is a URL if it begins with ``http://``, ``https://`` (the server fetches
            it) or ``data:``, otherwise a path. Paths of strangers need a check of your own: whatever this process can
            read would be sent.
        type: the media type, such as ``"image/png"``. Default: what the first bytes say, else what the name says.
        detail: ``"low"``, ``"high"``, ``"auto"`` ...: how closely an image (in the Responses API a file too) is
            looked at. Default: the server's.
        filename: the name that the model sees of a PDF and other files. Default: that of the path.
        max_bytes: the largest size that is sent. Default: 50 MiB, OpenAI's limit.

    Raises:
        TypeError: an argument is of another type.
        ConfigurationError: an empty path, a type that is no media type, or a ``data:`` URL that cannot be decoded.
    """
    for name, value in (("type", type), ("detail", detail), ("filename", filename)):
        if value is not None and not (isinstance(value, str) and value):
            raise TypeError(f"{name} must be a str that is not empty, got {value!r}")
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
        raise TypeError(f"max_bytes must be a whole number above 0, got {max_bytes!r}")
    media_type = None if type is None else _checked_type(type)
    path = url = data = None
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, str) and source[:5].lower() == "data:":
        data, stated = _decoded_data_url(source)
        media_type = media_type or stated
    elif isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        url = source
    elif isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        if not path:
            raise ConfigurationError("the path of an attachment is empty: name a file, or leave the attachment out")
    else:
        raise TypeError(
            f"an attachment must be a path, bytes or a URL, got a {source.__class__.__name__}; of an open file pass "
            "its read(), of an image in memory the bytes that it is saved as"
        )
    return Attachment(path, url, data, media_type, detail, filename, max_bytes)


# -- media types ------------------------------------------------------------------------------------------

_MEDIA_TYPE = r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*"  # RFC 6838, 4.2

_HEADS = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"....ftyp(heic|heix|mif1)", "image/heic"),
    (rb"....ftypavif", "image/avif"),
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg"),
    (rb"....ftypM4A ", "audio/mp4"),
    (rb"fLaC", "audio/flac"),
    (rb"OggS", "audio/ogg"),
    (rb"%PDF-", "application/pdf"),
)

_OFFICE = "application/vnd.openxmlformats-officedocument."
_SUFFIXES = {
    "image/webp": (".webp",),
    "image/heic": (".heic",),
    "image/avif": (".avif",),
    "audio/wav": (".wav",),
    "audio/mp4": (".m4a",),
    "audio/flac": (".flac",),
    "audio/mpeg": (".mpga",),
    "audio/ogg": (".ogg", ".oga", ".opus"),
    "text/markdown": (".md",),
    "text/csv": (".csv",),
    "text/tab-separated-values": (".tsv",),
    "text/plain": (".log", ".rst"),
    "application/jsonl": (".jsonl", ".ndjson"),
    "application/yaml": (".yaml", ".yml"),
    "application/toml": (".toml",),
    f"{_OFFICE}wordprocessingml.document": (".docx",),
    f"{_OFFICE}spreadsheetml.sheet": (".xlsx",),
    f"{_OFFICE}presentationml.presentation": (".pptx",),
}

_UNKNOWN_TYPE = "application/octet-stream"


def _type_of_head(head: bytes) -> Optional[str]:
    return next((media_type for pattern, media_type in _HEADS if re.match(pattern, head, re.DOTALL)), None)


@functools.cache
def _types() -> mimetypes.MimeTypes:
    """Python's own, which differ between its versions, and not those of this machine, where a .csv may be Excel's."""
    types = mimetypes.MimeTypes()
    for media_type, suffixes in _SUFFIXES.items():
        for suffix in suffixes:
            types.add_type(media_type, suffix)
    return types


def type_of_name(name: str) -> Optional[str]:
    media_type, compression = _types().guess_type(name)
    return None if compression or media_type == _UNKNOWN_TYPE else media_type


def _checked_type(text: str) -> str:
    media_type = text.partition(";")[0].strip().lower()
    if not re.fullmatch(_MEDIA_TYPE, media_type):
        raise ConfigurationError(f"type must be a media type such as 'image/png', got {text!r}")
    return media_type


def _decoded_data_url(url: str) -> Tuple[bytes, str]:
    """Return the content of a ``data:`` URL and its media type (RFC 2397)."""
    head, comma, text = url[5:].partition(",")
    media_type, *parameters = (part.strip() for part in head.split(";"))
    content = unquote_to_bytes(text)
    try:
        if not comma:
            raise ValueError("there is no comma in it")
        if "base64" in parameters:
            content = base64.b64decode(b"".join(content.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        # Not the original, nor the URL: it is the content.
        raise ConfigurationError(f"the data: URL of an attachment cannot be decoded: {error}") from None
    return content, _checked_type(media_type or "text/plain")


# -- files ------------------------------------------------------------------------------------------------


def _opened(path: str) -> BinaryIO:
    with _told(path):
        return open_regular(path)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Within the block, errors of a file become such as name it."""
    try:
        yield
    except ConfigurationError:  # a ValueError, too
        raise
    except (OSError, ValueError) as error:  # a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"the attachment {path} cannot be read: {reason}") from error


def _size_of(file: BinaryIO) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _identity_of(file: BinaryIO) -> Tuple[int, ...]:
    """Return what changes when a file is written, or another one gets its name."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@functools.lru_cache(maxsize=_CACHED_DIGESTS)
def _digest_of_file(path: str, identity: Tuple[int, ...]) -> str:
    """Return the SHA-256 of the file that has this identity."""
    with _opened(path) as file, _told(path):
        digest = hashlib.sha256()
        for chunk in iter(functools.partial(file.read, _HASHED_BYTES), b""):
            digest.update(chunk)
        if _identity_of(file) != identity:
            raise ConfigurationError(f"the attachment {path} was changed while it was read: run this item again")
    return digest.hexdigest()
