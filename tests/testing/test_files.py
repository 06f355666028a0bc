"""Files and uploads at a FakeServer."""

from __future__ import annotations

import http.client

import pytest

from chatpool.testing import BatchLimits, EachCall, Error, LostAnswer, Reset, StoredFile


@pytest.fixture
def api(make_server, api_of):
    return api_of(make_server())


def test_a_file_is_stored_described_given_back_and_deleted(api):
    stored = api.upload(b'{"a": 1}\n')
    assert (stored["filename"], stored["bytes"], stored["purpose"]) == ("rows.jsonl", 9, "batch")
    assert stored["status"] == "processed"
    assert api.get(f"/files/{stored['id']}").json == stored
    answer = api.get(f"/files/{stored['id']}/content")
    assert (answer.raw, answer.headers["content-type"]) == (b'{"a": 1}\n', "application/octet-stream")
    assert api.delete(f"/files/{stored['id']}").json == {"id": stored["id"], "object": "file", "deleted": True}
    for method, path in ((api.get, ""), (api.get, "/content"), (api.delete, "")):
        answer = method(f"/files/{stored['id']}{path}")
        assert answer.status == 404
        assert answer.json["error"]["message"] == f"No such File object: {stored['id']}"


def test_a_test_sees_the_files(api):
    api.upload(b"x", "a.txt", "user_data")
    [file] = api.server.files
    assert isinstance(file, StoredFile)
    assert (file.id, file.filename, file.purpose, file.content) == ("file-1", "a.txt", "user_data", b"x")
    assert "x" not in repr(file).replace("txt", "")


def test_pages_of_files(api):
    for purpose in ("user_data", "vision", "user_data"):
        api.upload(b"x", "a.txt", purpose)

    def ids(query):
        body = api.get(f"/files?{query}").json
        return [file["id"] for file in body["data"]], body["has_more"]

    assert ids("") == (["file-3", "file-2", "file-1"], False)
    assert ids("limit=2") == (["file-3", "file-2"], True)
    assert ids("limit=2&after=file-2") == (["file-1"], False)
    assert ids("order=asc&limit=1&after=file-1") == (["file-2"], True)
    assert ids("purpose=vision") == (["file-2"], False)
    assert api.get("/files?purpose=evals").json["first_id"] is None
    assert api.get("/files?after=file-9").status == 404
    assert api.get("/files?limit=0").status == 400


def test_a_file_expires_when_its_form_says(api):
    fields = [("purpose", "user_data"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")]
    stored = api.form("/files", fields, [("file", ("a.txt", b"x"))]).json
    assert stored["expires_at"] == stored["created_at"] + 3600


@pytest.mark.parametrize(
    ("fields", "files", "said"),
    [
        ([("purpose", "batch")], [], "'file' is a required property"),
        ([], [("file", ("a.jsonl", b"x"))], "'purpose' is a required property"),
        ([("purpose", "fun")], [("file", ("a.jsonl", b"x"))], "'fun' is not one of"),
        ([("purpose", "batch")], [("file", ("a.txt", b"x"))], "Must be .jsonl"),
        ([("purpose", "batch")], [("file", ("a.jsonl", b"x" * 11))], "File is too large."),
    ],
)
def test_a_wrong_upload_is_refused(make_server, api_of, fields, files, said):
    server = make_server(batch_limits=BatchLimits(file_bytes=10))
    answer = api_of(server).form("/files", fields, files)
    assert answer.status == 400
    assert said in answer.json["error"]["message"]
    assert server.files == []


def test_azure_has_its_own_paths_and_a_state_before_processed(api):
    api.root = "/openai"
    stored = api.upload(b"{}")
    assert stored["status"] == "pending"
    assert api.get(f"/files/{stored['id']}?api-version=2024-10-21").json["status"] == "processed"


def test_an_upload_can_be_stored_though_its_answer_is_lost(make_server, api_of):
    server = make_server(script=[LostAnswer(), Reset(), LostAnswer(Error(504)), Error(504)])
    api = api_of(server)
    for stored in (1, 1):
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            api.upload(b"x")
        assert len(server.files) == stored
    for _ in range(2):
        assert "error" in api.upload(b"x")
        assert len(server.files) == 2


def test_the_attempts_of_an_upload_are_one_call(make_server, api_of):
    api = api_of(make_server(script=EachCall(Error(503))))
    assert "error" in api.upload(b"x")
    assert api.upload(b"x")["id"] == "file-1"
    assert api.get("/files").status == 503
    assert api.get("/files/file-1").status == 503
    assert api.get("/files").status == 200


def test_a_file_comes_in_parts(api):
    body = {"filename": "a.jsonl", "purpose": "batch", "bytes": 4, "mime_type": "application/jsonl"}
    upload = api.post("/uploads", body).json
    assert upload["status"] == "pending"
    path = f"/uploads/{upload['id']}"
    parts = [api.form(f"{path}/parts", [], [("data", ("x", data))]).json for data in (b"CD", b"AB")]
    assert api.post(f"{path}/complete", {"part_ids": [parts[0]["id"]]}).status == 400
    done = api.post(f"{path}/complete", {"part_ids": [parts[1]["id"], parts[0]["id"]]}).json
    assert done["status"] == "completed"
    assert api.get(f"/files/{done['file']['id']}/content").raw == b"ABCD"
    assert api.form(f"{path}/parts", [], [("data", ("x", b"more"))]).status == 400


def test_an_upload_is_cancelled(api):
    body = {"filename": "a.jsonl", "purpose": "batch", "bytes": 4, "mime_type": "application/jsonl"}
    upload = api.post("/uploads", body).json
    assert api.post(f"/uploads/{upload['id']}/cancel").json["status"] == "cancelled"
    assert api.post(f"/uploads/{upload['id']}/complete", {"part_ids": []}).status == 400
    assert api.post("/uploads/upload_9/cancel").status == 404
    assert api.post("/uploads", {}).status == 400
