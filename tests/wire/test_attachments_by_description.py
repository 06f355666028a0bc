"""Requests with attachments, against OpenAI's API description beside the checkout."""

from __future__ import annotations

import json

import pytest

from chatpool import attach
from chatpool._transport import payload_of
from chatpool._wire import responses_request, to_request
from tests.api_description import errors_of, named, needs_description

pytestmark = needs_description

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


def sent(request):
    payload = payload_of(request)
    if isinstance(payload, bytes):  # there are only URLs in it
        return json.loads(payload)
    with payload.opened() as body:
        return json.loads(body)


@pytest.mark.parametrize("item", [*OF_BOTH, [attach(SOUND)], [attach(b"RIFF\0\0\0\0WAVE")]])
def test_of_chat(item):
    assert errors_of(sent(to_request(item, model="m")), named("CreateChatCompletionRequest")) == []


@pytest.mark.parametrize("item", [*OF_BOTH, [attach("https://example.invalid/a.pdf", detail="high")]])
def test_of_responses(item):
    # Not the whole body: by the description a message with parts is two kinds of input item, and may be but one.
    [message] = sent(to_request(responses_request(item), model="m"))["input"]
    assert errors_of(message, named("EasyInputMessage")) == []


def test_a_part_of_the_other_api_would_be_noticed():
    [of_chat] = sent(to_request([attach(IMAGE)]))["messages"]
    [of_responses] = sent(to_request(responses_request([attach(IMAGE)])))["input"]
    assert errors_of(of_chat, named("EasyInputMessage")) != []
    assert errors_of(of_responses, named("ChatCompletionRequestUserMessage")) != []
