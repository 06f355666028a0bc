"""Files of sound: those whose texts are asked for, in a folder or named by rows, and those that spoken rows go to."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, Optional

from .._attachments import type_of_name
from .._journal import Record, decode_value
from .._wire.media import sound_format, transcription, transcription_fields
from ..errors import ConfigurationError
from ..types import ChatRequest
from .input_files import Source
from .input_tables import Heading, InputLine, Uncomputed
from .jsonl import BadLine, EmptyCell, json_type

__all__ = ["FILE", "SaveFolder", "SoundColumn", "SoundFolder", "is_sound"]

FILE = "file"
"""The column of paths, unless another one is named."""

_MAX_NAME_BYTES = 180  # with a digest and an ending behind it: most file systems take 255
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff/\\:*?"<>|]|^[.\s]+|[.\s]+$')
_ENDING = re.compile(r"[A-Za-z0-9]{1,10}")


def is_sound(name: str) -> bool:
    """Return whether a file is sound or video by its name."""
    return (type_of_name(name) or "").startswith(("audio/", "video/"))


class SoundFolder(Source):
    """The sounds and videos of a folder as an input: a row for each, in the order of their names.

    Hidden files, and those of folders in it, are no rows.

    Args:
        path: the folder.

    Raises:
        ConfigurationError: the folder cannot be read, or has no sound.
    """

    def __init__(self, path: str) -> None:
        self.name = self.folder = path
        self.format, self.unit, self.is_stream, self.heading = "folder", "file", False, Heading()
        self._rows_before, self._being_read = 0, []
        try:
            with os.scandir(path) as entries:
                found = [entry.name for entry in entries if is_sound(entry.name) and entry.is_file()]
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
        self._names: List[str] = sorted(name for name in found if not name.startswith("."))
        if not self._names:
            raise ConfigurationError(
                f"there is no sound in the folder {path}: its files are known by their endings (.mp3, .m4a, .wav ...); "
                "name a folder that has such files, or a list of their paths"
            )

    def _input_lines(self) -> Iterator[InputLine]:
        for number, name in enumerate(self._names, 1):
            yield InputLine(number, {FILE: name}, number, number)


class SoundColumn:
    """The field of rows that is the path of a sound.

    Args:
        path: where the requests go.
        column: its name. Default: :data:`FILE`.
        folder: the folder that relative paths are below.

    Attributes:
        name: its name.
    """

    def __init__(self, path: str, column: Optional[str], folder: str) -> None:
        self.name = column or FILE
        self._path = path
        self._folder = folder

    def request(self, fields: Mapping[str, Any]) -> ChatRequest:
        """Return the request of a row, with those of its other fields that the API knows and that are not empty.

        Raises:
            EmptyCell: there is no path.
            BadLine: the row lacks the field, or it is no path.
        """
        if self.name not in fields:
            available = ", ".join(list(fields)[:10]) or "none"
            raise BadLine(f"there is no field {self.name!r} with the path of a sound (there are: {available})")
        source = fields[self.name]
        if isinstance(source, Uncomputed):
            source.refuse()
        if source is None or (isinstance(source, str) and not source.strip()):
            raise EmptyCell(self.name)
        if not isinstance(source, str):
            raise BadLine(f"{self.name!r} must be the path of a sound, got {json_type(source)}")
        body = transcription_fields({name: value for name, value in fields.items() if name != self.name})
        for value in body.values():
            if isinstance(value, Uncomputed):
                value.refuse()
        return replace(transcription(os.path.join(self._folder, source)), body=body, path=self._path)


class SaveFolder:
    """The folder that the sounds of spoken rows go to, each to a file that is named by its row.

    Args:
        path: the folder.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._ids: Dict[str, str] = {}

    def make(self) -> None:
        """Make the folder, if it is not there.

        Raises:
            ConfigurationError: it cannot be made.
        """
        try:
            os.makedirs(self._path, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"save_to (--save-to): cannot make the folder {self._path}: {error.strerror or error}"
            ) from error

    def saved(self, request: ChatRequest, custom_id: str) -> ChatRequest:
        """Return a row's request, whose answer goes to the row's file.

        Raises:
            ConfigurationError: another row has this file, or the format can be no ending of it.
        """
        ending = sound_format(request)
        if not (isinstance(ending, str) and _ENDING.fullmatch(ending)):
            raise ConfigurationError(f"the format must be one of sound, such as mp3 or wav, got {ending!r}")
        name = f"{_safe_name(custom_id)}.{ending}"
        # Without regard to case: the folder may be on a disk, or be copied to one, that has none.
        if self._ids.setdefault(name.casefold(), custom_id) != custom_id:
            raise ConfigurationError(
                f"the rows {self._ids[name.casefold()]!r} and {custom_id!r} would have one file, {name}: give them "
                "names that differ in more than the case of letters"
            )
        return replace(request, response=pathlib.Path(self._path, name))

    @staticmethod
    def is_there(request: ChatRequest, record: Optional[Record]) -> bool:
        """Return whether the file of a row that was answered is still there, as long as it was."""
        stored = None if record is None else decode_value(record.value)
        try:
            return isinstance(stored, dict) and os.path.getsize(request.response) == stored.get("bytes")
        except OSError:
            return False


def _safe_name(custom_id: str) -> str:
    """Return a name for the file of a row; it has a digest behind it where the row's own can be none."""
    name = _UNSAFE.sub("_", custom_id).encode()[:_MAX_NAME_BYTES].decode("utf-8", "ignore")
    if name == custom_id and name:
        return name
    digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{name}-{digest}"
