"""The files and uploads of a :class:`FakeServer`: stored in memory, whatever their size."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional

from ..clock import current_clock
from .received import ReceivedRequest
from .routing import Content, Handler, Routes, invalid_request, is_azure, json_handler, list_page, not_found

__all__ = ["FileStore", "StoredFile", "Uploads", "unix_time"]

_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_LIST_LIMIT = 10_000
_UPLOAD_SECONDS = 3600


def unix_time() -> int:
    """Return the whole seconds since 1970 of the installed clock."""
    return int(current_clock().wall())


@dataclass(frozen=True)
class StoredFile:
    """A file at a :class:`FakeServer`.

    Attributes:
        id: its id, ``"file-1"`` and so on.
        filename: the name that the client gave it.
        purpose: ``"batch"``, ``"batch_output"``, ``"user_data"``, ...
        content: its bytes.
        created_at: when it was stored, in seconds since 1970 of the installed clock.
        expires_at: when it was to expire; None for never. The server keeps it all the same.
    """

    id: str
    filename: str
    purpose: str
    content: bytes
    created_at: int
    expires_at: Optional[int] = None

    def __repr__(self) -> str:
        return f"<StoredFile {self.id}: {self.filename!r}, {self.purpose}, {len(self.content)} bytes>"

    def to_object(self, status: str = "processed") -> Dict[str, Any]:
        """Return the API's object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": status,
            **({} if self.expires_at is None else {"expires_at": self.expires_at}),
        }


class FileStore:
    """Answers the paths of ``/files``.

    Args:
        max_batch_bytes: the size above which files for batches are refused.
    """

    def __init__(self, *, max_batch_bytes: int) -> None:
        self._max_batch_bytes = max_batch_bytes
        self._lock = threading.Lock()
        self._files: Dict[str, StoredFile] = {}
        self._added = 0
        self.routes: Routes = {
            ("POST", "/files"): self._create,
            ("GET", "/files"): self._list,
            ("GET", "/files/{id}"): self._of(lambda file: Content(200, file.to_object())),
            ("GET", "/files/{id}/content"): self._of(_download),
            ("DELETE", "/files/{id}"): self._delete,
        }

    def add(self, filename: str, purpose: str, content: bytes, seconds: Optional[int] = None) -> StoredFile:
        """Store a file that expires after ``seconds``, and return it."""
        now = unix_time()
        with self._lock:
            self._added += 1
            expires_at = None if seconds is None else now + seconds
            file = StoredFile(f"file-{self._added}", filename, purpose, content, now, expires_at)
            self._files[file.id] = file
            return file

    def find(self, file_id: object) -> Optional[StoredFile]:
        """Return the file with this id; None if there is none."""
        return self._files.get(file_id) if isinstance(file_id, str) else None

    def remove(self, file_id: str) -> bool:
        """Delete a file; return False if there is none."""
        with self._lock:
            return self._files.pop(file_id, None) is not None

    def all(self) -> List[StoredFile]:
        """Return the files, the oldest first."""
        with self._lock:
            return list(self._files.values())

    def _create(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        parts = [part for part in request.files if part.name == "file"]
        purpose = request.form.get("purpose")
        if not parts or purpose is None:
            missing = "purpose" if parts else "file"
            return invalid_request(f"'{missing}' is a required property", missing)
        if purpose not in _PURPOSES:
            return invalid_request(f"'{purpose}' is not one of {list(_PURPOSES)} - 'purpose'", "purpose")
        if purpose == "batch" and not parts[0].filename.endswith(".jsonl"):
            return invalid_request("Invalid file format for Batch API. Must be .jsonl")
        if purpose == "batch" and len(parts[0].content) > self._max_batch_bytes:
            return invalid_request("File is too large.")
        file = self.add(parts[0].filename, purpose, parts[0].content, _expiry(request.form))
        return Content(200, file.to_object("pending" if is_azure(request.path) else "processed"))

    def _list(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        purpose = request.query.get("purpose")
        files = [file.to_object() for file in self.all() if purpose in (None, file.purpose)]
        if request.query.get("order", "desc") == "desc":
            files.reverse()
        return list_page(files, request.query, default_limit=_LIST_LIMIT)

    def _delete(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        if not self.remove(id_in_path):
            return not_found("File object", id_in_path)
        return Content(200, {"id": id_in_path, "object": "file", "deleted": True})

    def _of(self, answer: Callable[[StoredFile], Content]) -> Handler:
        def handle(request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
            file = self.find(id_in_path)
            return not_found("File object", id_in_path) if file is None else answer(file)

        return handle


def _download(file: StoredFile) -> Content:
    return Content(200, file.content, "application/octet-stream")


def _expiry(form: Mapping[str, str]) -> Optional[int]:
    """Return the seconds that a form gives a file."""
    seconds = form.get("expires_after[seconds]", "")
    return int(seconds) if seconds.isdigit() else None


class Uploads:
    """Answers the paths of ``/uploads``: files that come in parts.

    Args:
        files: where complete files go.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._uploads: Dict[str, Dict[str, Any]] = {}
        self._parts: Dict[str, Dict[str, bytes]] = {}
        self.routes: Routes = {
            ("POST", "/uploads"): json_handler(self._create),
            ("POST", "/uploads/{id}/parts"): self._pending(self._add_part),
            ("POST", "/uploads/{id}/complete"): self._pending(self._complete),
            ("POST", "/uploads/{id}/cancel"): self._pending(self._cancel),
        }

    def _create(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        for name in ("filename", "purpose", "bytes", "mime_type"):
            if name not in request.body:
                return invalid_request(f"Missing required parameter: '{name}'.", name)
        now = unix_time()
        with self._lock:
            upload = {
                "id": f"upload_{len(self._uploads) + 1}",
                "object": "upload",
                "bytes": request.body["bytes"],
                "created_at": now,
                "expires_at": now + _UPLOAD_SECONDS,
                "filename": request.body["filename"],
                "purpose": request.body["purpose"],
                "status": "pending",
            }
            self._uploads[upload["id"]] = upload
            self._parts[upload["id"]] = {}
            return Content(200, dict(upload))

    def _pending(self, answer: Callable[[ReceivedRequest, Dict[str, Any]], Content]) -> Handler:
        """Return a handler for an upload that is neither complete nor cancelled."""

        def handle(request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
            with self._lock:
                upload = self._uploads.get(id_in_path)
                if upload is None:
                    return not_found("Upload object", id_in_path)
                if upload["status"] != "pending":
                    return invalid_request(f"Upload {id_in_path} has status {upload['status']}.")
                return answer(request, upload)

        return handle

    def _add_part(self, request: ReceivedRequest, upload: Dict[str, Any]) -> Content:
        data = [part.content for part in request.files if part.name == "data"]
        if not data:
            return invalid_request("'data' is a required property", "data")
        parts = self._parts[upload["id"]]
        part_id = f"part_{upload['id'][len('upload_') :]}_{len(parts) + 1}"
        parts[part_id] = data[0]
        return Content(
            200,
            {"id": part_id, "object": "upload.part", "created_at": unix_time(), "upload_id": upload["id"]},
        )

    def _complete(self, request: ReceivedRequest, upload: Dict[str, Any]) -> Content:
        parts = self._parts[upload["id"]]
        wanted = request.body.get("part_ids") if isinstance(request.body, dict) else None
        if not isinstance(wanted, list) or any(part_id not in parts for part_id in wanted):
            return invalid_request("Invalid 'part_ids': they must be those of the upload's parts.", "part_ids")
        content = b"".join(parts[part_id] for part_id in wanted)
        if len(content) != upload["bytes"]:
            return invalid_request(f"The parts have {len(content)} bytes, and not {upload['bytes']}.")
        file = self._files.add(upload["filename"], upload["purpose"], content)
        upload.update(status="completed", file=file.to_object())
        return Content(200, dict(upload))

    def _cancel(self, request: ReceivedRequest, upload: Dict[str, Any]) -> Content:
        upload["status"] = "cancelled"
        return Content(200, dict(upload))
