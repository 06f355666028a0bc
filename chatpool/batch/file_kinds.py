"""Files that are no rows of text: told by their first bytes, and named with what to do."""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO, NoReturn, Optional

from ..errors import ConfigurationError

__all__ = ["EXCEL", "PARQUET", "refuse_binary", "refuse_text", "table_kind"]

EXCEL, PARQUET = "excel", "parquet"

_ROWS = "an input has one row a line: name such files in its rows, or put what they hold into a table"
_AS_CSV = 'save the sheet as "CSV UTF-8" or as .xlsx'
_EXPORT = "export its rows as CSV, as JSON lines or as Parquet"
_UNPACK = "unpack it first (only gzip is unpacked on the way)"
_READ = "read it with Python and write JSON lines"

# (the first bytes, what it is, what to do)
_SIGNATURES = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or protected document of Excel or Word", _AS_CSV),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "write it as Parquet"),
    (b"ORC", "an ORC file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or as JSON lines"),
    (b"\x93NUMPY", "an array of numpy's", _READ),
    (b"\x89HDF\r\n", "an HDF5 file", _READ),
    (b"%PDF-", "a PDF document", _ROWS),
    (b"{\\rtf", "an RTF document", "save it as plain text in UTF-8"),
    (b"\x89PNG", "a picture (PNG)", _ROWS),
    (b"\xff\xd8\xff", "a picture (JPEG)", _ROWS),
    (b"GIF8", "a picture (GIF)", _ROWS),
    (b"II*\x00", "a picture (TIFF)", _ROWS),
    (b"MM\x00*", "a picture (TIFF)", _ROWS),
    (b"ID3", "a sound (MP3)", _ROWS),
    (b"OggS", "a sound (Ogg)", _ROWS),
    (b"fLaC", "a sound (FLAC)", _ROWS),
    (b"\x1aE\xdf\xa3", "a film (Matroska, WebM)", _ROWS),
    (b"(\xb5/\xfd", "compressed by zstd", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed by xz", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
)
_RIFF = {b"WEBP": "a picture (WebP)", b"WAVE": "a sound (WAV)", b"AVI ": "a film (AVI)"}
_ZIPPED = (
    ("word/", "a Word document", "save it as plain text in UTF-8"),
    ("ppt/", "a PowerPoint document", "save it as plain text in UTF-8"),
    ("content.xml", "an OpenDocument file", _AS_CSV),
    ("", "a zip archive", _UNPACK),
)


def table_kind(head: bytes, file: BinaryIO) -> Optional[str]:
    """:data:`EXCEL` or :data:`PARQUET` where the file is one of these.

    Args:
        head: its first bytes.
        file: it, if it can be sought in; otherwise ``head`` has to tell.
    """
    if head.startswith(b"PAR1"):
        return PARQUET
    if head.startswith(b"PK\x03\x04") and any(name.startswith("xl/") for name in _names(head, file)):
        return EXCEL
    return None


def refuse_binary(name: str, head: bytes, file: BinaryIO) -> None:
    """Refuse what is no text.

    Raises:
        ConfigurationError: it is something else; the message says what, and what to do.
    """
    for start, what, cure in _SIGNATURES:
        if head.startswith(start):
            _refuse(name, what, cure)
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        _refuse(name, _RIFF[head[8:12]], _ROWS)
    if head[4:8] == b"ftyp":
        _refuse(name, "a film or a picture (MP4, HEIC)", _ROWS)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        _refuse(name, "a pickle of Python's", _READ)
    if head.startswith(b"PK\x03\x04"):
        names = list(_names(head, file))
        what, cure = next(found[1:] for found in _ZIPPED if any(one.startswith(found[0]) for one in [*names, ""]))
        _refuse(name, what, cure)
    if head.count(b"\x00") > len(head) // 8:
        _refuse(name, "no text in UTF-8 (it has NUL bytes)", "if it is UTF-16, say so: encoding=, --encoding utf-16-le")


def refuse_text(name: str, text: str, *, is_json: bool, is_table: bool) -> None:
    """Refuse texts that have no row a line.

    Args:
        name: the file.
        text: its beginning.
        is_json: whether each line should be JSON.
        is_table: whether it should be CSV.

    Raises:
        ConfigurationError: as for :func:`refuse_binary`.
    """
    if text.startswith("version https://git-lfs"):
        _refuse(name, "a pointer of Git LFS and not the file itself", "get it with: git lfs pull")
    if (is_json or is_table) and re.match(r"<(!doctype|html|\?xml|table)", text, re.IGNORECASE):
        _refuse(name, "a page of HTML or XML", "perhaps a download that went wrong; get the file itself")
    first, _, more = text.partition("\n")
    if is_json and more.strip() and first.startswith("[") and not first.rstrip().endswith("]"):
        refuse_array(name)
    if is_json and more.strip() and first.rstrip() == "{":
        _refuse(name, "one JSON object over several lines", "write each object on one line: jq -c . IN > OUT.jsonl")


def refuse_array(name: str) -> NoReturn:
    """Refuse a JSON array.

    Raises:
        ConfigurationError: always.
    """
    cure = "write each of them on a line of its own: jq -c '.[]' IN > OUT.jsonl"
    _refuse(
        name, "a JSON array, a list of requests", f"{cure}, or, of pandas, to_json(..., orient='records', lines=True)"
    )


def _refuse(name: str, what: str, cure: str) -> NoReturn:
    raise ConfigurationError(f"{name} is {what}: {cure}")


def _names(head: bytes, file: BinaryIO) -> list[str]:
    """The names of the files in a zip archive; from its beginning, where no more can be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        known = ("xl/", "word/", "ppt/", "content.xml")
        return [name for name in known if name.encode() in head]
