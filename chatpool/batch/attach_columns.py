"""Columns with files: the attachments that the rows of an input name, beside their prompts."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

from .._attachments import Attachment, attach
from .._wire.attachments import takes_attachments, with_attachments
from ..errors import ConfigurationError
from ..types import ChatRequest
from .jsonl import BadLine, EmptyCell, json_type

__all__ = ["AttachColumns"]


class AttachColumns:
    """The columns of an input that name files.

    A field is a path, a URL, bytes (of Parquet), or a list of them, which may be empty.

    Args:
        columns: the name of the column, or of several.
        folder: the folder that relative paths are below.

    Attributes:
        names: the names of the columns.

    Raises:
        ConfigurationError: a name is no text, is empty, or comes twice.
    """

    def __init__(self, columns: Union[str, Sequence[str]], folder: str) -> None:
        self.names: Tuple[str, ...] = (columns,) if isinstance(columns, str) else tuple(columns)
        self._folder = folder
        if not all(isinstance(name, str) and name for name in self.names) or len(set(self.names)) < len(self.names):
            raise ConfigurationError(f"attach must be the name of a column, or a list of names, got {columns!r}")

    def attached(self, request: ChatRequest, fields: Mapping[str, Any]) -> ChatRequest:
        """Return the request of a row with the row's files behind the text of its last user message.

        Raises:
            EmptyCell: a column of the row is empty.
            BadLine: the row lacks a column, or has no path in it; or its request takes no files.
        """
        attachments = [attachment for name in self.names for attachment in self._attachments(fields, name)]
        if not takes_attachments(request):
            raise BadLine(f"rows that go to {request.path} take no files: they need a prompt or messages")
        return with_attachments(request, attachments) if attachments else request

    def without(self, fields: Mapping[str, Any]) -> Dict[str, Any]:
        """Return the fields of a row that are not its files."""
        return {name: value for name, value in fields.items() if name not in self.names}

    def _attachments(self, fields: Mapping[str, Any], name: str) -> List[Attachment]:
        if name not in fields:
            available = ", ".join(list(fields)[:10]) or "none"
            raise BadLine(f"there is no field {name!r} to attach (there are: {available})")
        value = fields[name]
        sources = value if isinstance(value, list) else [value]
        for source in sources:
            if source is None or source == "":
                raise EmptyCell(name)
            if not isinstance(source, (str, bytes)):
                raise BadLine(f"{name!r} must be a path, a URL or a list of them, got {json_type(source)}")
        return [self._attachment(source) for source in sources]

    def _attachment(self, source: Union[str, bytes]) -> Attachment:
        attachment = attach(source)
        return attachment if attachment.path is None else attach(os.path.join(self._folder, attachment.path))
