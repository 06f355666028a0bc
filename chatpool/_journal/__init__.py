"""The journal of a run: every outcome on disk before it is reported, so that a run can go on where it ended."""

from __future__ import annotations

from .append_only import AppendOnly, SharedAppender, StoredRecord
from .digest_table import DigestTable
from .folder_lease import FolderLease, is_leased, newest_journal
from .journal import Journal, count_states, is_journal, pending_mark, read_journal, read_runs
from .lock_file import FileLock, is_locked
from .record import (
    BATCH_API,
    FAILED,
    OK,
    PENDING,
    RENAMED,
    RESTORED,
    RETRY,
    SET_ASIDE,
    Prefix,
    Record,
    decode_record,
    decode_value,
    encode_value,
    error_facts,
    error_of,
    escape_line_breaks,
    hash_of,
    json_text,
    key_of,
    may_hold_nan,
    one_line,
    text_or_null,
    without_nan,
)
from .status_file import StatusFile, read_status

__all__ = [
    "BATCH_API",
    "FAILED",
    "OK",
    "PENDING",
    "RENAMED",
    "RESTORED",
    "RETRY",
    "SET_ASIDE",
    "AppendOnly",
    "DigestTable",
    "FileLock",
    "FolderLease",
    "Journal",
    "Prefix",
    "Record",
    "SharedAppender",
    "StatusFile",
    "StoredRecord",
    "count_states",
    "decode_record",
    "decode_value",
    "encode_value",
    "error_facts",
    "error_of",
    "escape_line_breaks",
    "hash_of",
    "is_journal",
    "is_leased",
    "is_locked",
    "json_text",
    "key_of",
    "may_hold_nan",
    "newest_journal",
    "one_line",
    "pending_mark",
    "read_journal",
    "read_runs",
    "read_status",
    "text_or_null",
    "without_nan",
]
