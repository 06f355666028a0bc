"""The answers of a FakeServer, against OpenAI's API description beside the checkout.

The description leaves out that fields which have no value yet are null on the wire: those are taken off before.
"""

from __future__ import annotations

import pytest

from chatpool.testing import BackgroundScenario, BatchLimits, BatchScenario, Error
from tests.api_description import answer_schema, errors_of, named, needs_description

pytestmark = needs_description

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SOUND = [("file", ("a.mp3", b"one two\nthree"))]
UPLOAD = {"filename": "a.jsonl", "purpose": "batch", "bytes": 2, "mime_type": "application/jsonl"}


@pytest.fixture
def check():
    """Checks a body against a schema: one that has a name, or that of an operation's answer."""

    def check_body(body, name=None, operation=None):
        assert errors_of(body, named(name) if operation is None else answer_schema(operation)) == []

    return check_body


@pytest.fixture
def api_with(make_server, api_of):
    return lambda **options: api_of(make_server(**options))


def without_nulls(value):
    return {name: entry for name, entry in value.items() if entry is not None}


def test_a_wrong_body_is_noticed(check):
    with pytest.raises(AssertionError, match="is a required property"):
        check({"id": "x", "object": "file"}, operation="GET /files/{file_id}")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", CHAT),
        ("/completions", {"model": "m", "prompt": "hello"}),
        ("/embeddings", {"model": "m", "input": ["a", "b"]}),
        ("/moderations", {"input": ["a", "b"]}),
        ("/responses", {"model": "m", "input": "hello"}),
        ("/images/generations", {"model": "gpt-image-1", "prompt": "a cat", "n": 2}),
        ("/images/generations", {"model": "dall-e-3", "prompt": "a cat"}),
    ],
)
def test_answers_of_the_model(api_with, check, path, body):
    check(api_with().post(path, body).json, operation=f"POST {path}")


def test_models(api_with, check):
    api = api_with()
    check(api.get("/models").json, operation="GET /models")
    check(api.get("/models/fake-model").json, operation="GET /models/{model}")


def test_files(api_with, check):
    api = api_with()
    check(api.upload(b"{}"), operation="POST /files")
    check(api.get("/files").json, operation="GET /files")
    check(api.get("/files/file-1").json, operation="GET /files/{file_id}")
    check(api.delete("/files/file-1").json, operation="DELETE /files/{file_id}")


def test_uploads(api_with, check):
    api = api_with()
    upload = api.post("/uploads", UPLOAD).json
    check(upload, operation="POST /uploads")
    part = api.form(f"/uploads/{upload['id']}/parts", [], [("data", ("x", b"{}"))]).json
    check(part, operation="POST /uploads/{upload_id}/parts")
    done = api.post(f"/uploads/{upload['id']}/complete", {"part_ids": [part["id"]]}).json
    check(done, operation="POST /uploads/{upload_id}/complete")


@pytest.mark.parametrize("end", ["completed", "expired", "failed", "cancelled"])
def test_batches_in_all_states(api_with, check, end):
    api = api_with(batches=BatchScenario(end=end, rows={"row-0": Error(400)}))
    batch = api.batch(["a", "b", "c"], metadata={"run": "7"})
    check(without_nulls(batch), operation="POST /batches")
    for _ in range(4):
        check(without_nulls(api.poll(batch)), operation="GET /batches/{batch_id}")
    page = api.get("/batches").json
    check({**page, "data": [without_nulls(entry) for entry in page["data"]]}, operation="GET /batches")


def test_a_batch_that_is_not_valid_and_one_that_is_cancelled(api_with, check):
    api = api_with(batch_limits=BatchLimits(rows=2))
    batch = api.batch(["a", "b", "c"])
    check(without_nulls(api.poll(batch, 2)), "Batch")
    batch = api.batch(["a"])
    check(without_nulls(api.post(f"/batches/{batch['id']}/cancel").json), operation="POST /batches/{batch_id}/cancel")


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [("json", "CreateTranscriptionResponseJson"), ("verbose_json", "CreateTranscriptionResponseVerboseJson")],
)
def test_transcriptions(api_with, check, response_format, schema):
    fields = [("model", "whisper-1"), ("response_format", response_format)]
    fields += [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")]
    check(api_with().form("/audio/transcriptions", fields, SOUND).json, schema)
    check(api_with().form("/audio/translations", fields, SOUND).json, schema.replace("Transcription", "Translation"))


@pytest.mark.parametrize("path", ["/images/edits", "/images/variations"])
def test_changed_pictures(api_with, check, path):
    answer = api_with().form(path, [("prompt", "a hat"), ("n", "2")], [("image", ("a.png", b"x"))])
    check(answer.json, operation=f"POST {path}")


@pytest.mark.parametrize("end", ["completed", "failed", "incomplete", "cancelled"])
def test_background_responses_in_all_states(api_with, check, end):
    api = api_with(background=BackgroundScenario(end=end))
    response = api.post("/responses", {"model": "m", "input": "hello", "background": True}).json
    for _ in range(4):
        check(without_usage_of_nothing(response), operation="GET /responses/{response_id}")
        response = api.get(f"/responses/{response['id']}").json
    assert response["status"] == end


def without_usage_of_nothing(response):
    return response if response["usage"] else {name: value for name, value in response.items() if name != "usage"}
