"""Bodies of the type multipart/form-data (RFC 7578): fields and files.  The bytes are untrusted."""

from __future__ import annotations

from email.message import Message
from email.parser import HeaderParser
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

__all__ = ["Form", "ReceivedFile", "boundary_of", "parse_form"]


class ReceivedFile(NamedTuple):
    """A file in a form.

    Attributes:
        name: the name of the form's field.
        filename: the name that the client gave the file.
        content_type: its type; ``"application/octet-stream"`` where the client says none.
        content: its bytes.
    """

    name: str
    filename: str
    content_type: str
    content: bytes

    def __repr__(self) -> str:
        return f"<ReceivedFile {self.name}: {self.filename!r}, {self.content_type}, {len(self.content)} bytes>"


class Form(NamedTuple):
    """The parts of a form."""

    fields: Dict[str, Any]
    files: List[ReceivedFile]


def boundary_of(content_type: str) -> Optional[bytes]:
    """Return the boundary of a multipart/form-data body; None for other bodies."""
    if not content_type.lower().startswith("multipart/form-data"):
        return None
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    return boundary.encode("latin-1", "replace") if boundary else None


def parse_form(raw: bytes, boundary: bytes) -> Form:
    """Return the parts between the boundaries; an empty form if the last of them is missing."""
    # The line break before a boundary belongs to the boundary (RFC 2046, section 5.1.1).
    _, *pieces = (b"\r\n" + raw).split(b"\r\n--" + boundary)
    form = Form({}, [])
    if not pieces or not pieces[-1].startswith(b"--"):
        return form
    for piece in pieces[:-1]:
        head, separator, content = piece.partition(b"\r\n\r\n")
        if separator:
            _add(form, HeaderParser().parsestr(head.decode("utf-8", "replace").lstrip()), content)
    return form


def _add(form: Form, head: Message, content: bytes) -> None:
    name, filename = _names(head)
    if filename is not None:
        kind = head.get_content_type() if "content-type" in head else "application/octet-stream"
        form.files.append(ReceivedFile(name, filename, kind, content))
    elif name.endswith("[]"):
        form.fields.setdefault(name, []).append(content.decode("utf-8", "replace"))
    else:
        form.fields[name] = content.decode("utf-8", "replace")


def _names(head: Message) -> Tuple[str, Optional[str]]:
    name = head.get_param("name", "", header="content-disposition")
    return str(name), head.get_filename()
