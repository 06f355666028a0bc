"""Requests with attachments, against OpenAI's API description beside the checkout."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from chatpool import attach
from chatpool._transport import payload_of
from chatpool._wire import responses_request, to_request

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "openai-openapi.json"
DESCRIPTION = Path(os.environ.get("CHATPOOL_API_DESCRIPTION", _BESIDE))

pytestmark = pytest.mark.skipif(
    not DESCRIPTION.is_file(), reason=f"OpenAI's API description is not beside the checkout ({DESCRIPTION})"
)

IMAGE, SOUND, PDF = b"\x89PNG\r\n\x1a\n", b"ID3\x03", b"%PDF-1.4"
OF_BOTH = [
    [attach(IMAGE)],
    [attach(IMAGE, detail="low")],
    [attach("https://example.invalid/a.png")],
    [attach(PDF)],
    [attach(PDF, filename="a.pdf")],
    [attach(b"text", type="text/markdown")],
    ["text", attach(IMAGE), attach(PDF)],
]


@pytest.fixture(scope="module")
def description():
    return json.loads(DESCRIPTION.read_text(encoding="utf-8"))


@pytest.fixture
def errors_of(description):
    """Returns what is wrong with a value by the schema of a name."""

    def check(value, name):
        schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
        return [error.message[:300] for error in Draft202012Validator(schema).iter_errors(value)]

    return check


def sent(request):
    payload = payload_of(request)
    if isinstance(payload, bytes):  # there are only URLs in it
        return json.loads(payload)
    with payload.opened() as body:
        return json.loads(body)


@pytest.mark.parametrize("item", [*OF_BOTH, [attach(SOUND)], [attach(b"RIFF\0\0\0\0WAVE")]])
def test_of_chat(errors_of, item):
    assert errors_of(sent(to_request(item, model="m")), "CreateChatCompletionRequest") == []


@pytest.mark.parametrize("item", [*OF_BOTH, [attach("https://example.invalid/a.pdf", detail="high")]])
def test_of_responses(errors_of, item):
    # Not the whole body: by the description a message with parts is two kinds of input item, and may be but one.
    [message] = sent(to_request(responses_request(item), model="m"))["input"]
    assert errors_of(message, "EasyInputMessage") == []


def test_a_part_of_the_other_api_would_be_noticed(errors_of):
    [of_chat] = sent(to_request([attach(IMAGE)]))["messages"]
    [of_responses] = sent(to_request(responses_request([attach(IMAGE)])))["input"]
    assert errors_of(of_chat, "EasyInputMessage") != []
    assert errors_of(of_responses, "ChatCompletionRequestUserMessage") != []
