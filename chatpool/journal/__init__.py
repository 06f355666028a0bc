"""The journal of a run: every outcome on disk before it is reported, so that a run can go on where it ended."""

from __future__ import annotations

from .durable import AppendOnly, replacing
from .journal import Journal
from .reading import is_journal, read_journal
from .record import (
    ASIDE,
    BACK,
    FAILED,
    GONE,
    OK,
    RETRY,
    Prefix,
    Record,
    decode,
    decode_value,
    encode_value,
    finite,
    has_no_json_form,
    hash_of,
    json_text,
    key_of,
    one_line,
    text_or_null,
    unbroken,
)
from .restore import error_facts, error_of
from .shared import Found, SharedAppender

__all__ = [
    "ASIDE",
    "BACK",
    "FAILED",
    "GONE",
    "OK",
    "RETRY",
    "AppendOnly",
    "Found",
    "Journal",
    "Prefix",
    "Record",
    "SharedAppender",
    "decode",
    "decode_value",
    "encode_value",
    "error_facts",
    "error_of",
    "finite",
    "has_no_json_form",
    "hash_of",
    "is_journal",
    "json_text",
    "key_of",
    "one_line",
    "read_journal",
    "replacing",
    "text_or_null",
    "unbroken",
]
