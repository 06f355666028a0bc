"""Size of a request, before it is sent."""

from __future__ import annotations

import decimal

import numpy
import pytest

from chatpool._wire.request_size import request_size
from chatpool.types import ChatRequest


def size(path="/chat/completions", **body):
    return request_size(ChatRequest({"model": "m", **body}, path))


def message(content):
    return {"role": "user", "content": content}


def test_text_counts_in_bytes():
    assert size(prompt="four").prompt_bytes == 4
    assert size(prompt="日本語").prompt_bytes == 9


def test_messages_cost_a_little_more_than_their_text():
    one = size(messages=[message("x" * 100)]).prompt_bytes
    assert 100 < one < 130
    assert size(messages=[message("x" * 100)] * 3).prompt_bytes == 3 * one


def test_parts_of_a_message_count_like_its_text():
    parts = [{"type": "text", "text": "x" * 100}]
    assert 100 < size(messages=[message(parts)]).prompt_bytes < 140


@pytest.mark.parametrize("number", [numpy.int64, numpy.uint8, decimal.Decimal])
def test_numbers_and_texts_of_tables_count_as_they_will_be_sent(number):
    assert size(prompt="four", n=number(3), max_tokens=number(7)) == size(prompt="four", n=3, max_tokens=7)
    assert size(prompt=[numpy.int64(5)] * 8, n=number(0)) == size(prompt=[5] * 8)
    tokens = numpy.array([1, 2, 3])
    assert size("/embeddings", input=tokens) == size("/embeddings", input=[1, 2, 3])
    assert size("/embeddings", input=[tokens, tokens]) == size("/embeddings", input=[[1, 2, 3]] * 2)
    assert size("/embeddings", input=numpy.array(["some", "texts"])) == size("/embeddings", input=["some", "texts"])
    assert size(prompt=object(), max_tokens=1j) == size()


def test_images_count_as_images_and_not_by_the_length_of_their_data():
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}]
    measured = size(messages=[message(parts)])
    assert measured.prompt_bytes < 50
    assert measured.other_tokens == 800
    assert size("/responses", input=[message([{"type": "input_image", "image_url": "x" * 9999}])]).other_tokens == 800


def test_an_image_in_low_detail_counts_less():
    chat = {"type": "image_url", "image_url": {"url": "https://example.invalid/a.png", "detail": "low"}}
    responses = {"type": "input_image", "image_url": "https://example.invalid/a.png", "detail": "low"}
    assert size(messages=[message([chat])]).other_tokens == 85
    assert size("/responses", input=[message([responses])]).other_tokens == 85


@pytest.mark.parametrize(
    ("part", "least", "most"),
    [
        ({"type": "input_audio", "input_audio": {"data": "A" * 2_000_000, "format": "mp3"}}, 500, 5000),
        ({"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64," + "A" * 2_000_000}}, 500, 5000),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 2_000_000}}, 500, 50_000),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": "A" * 2_000_000}}, 5000, 200_000),
        ({"type": "input_file", "filename": "a.pdf", "file_data": "A" * 2_000_000}, 5000, 200_000),
        ({"type": "file", "file": {"file_id": "file-abc"}}, 100, 5000),
        ({"type": "of tomorrow", "data": "data:image/png;base64," + "A" * 2_000_000}, 100, 5000),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_sound_films_and_files_count_by_what_they_are_and_not_by_their_characters(part, least, most):
    measured = size(messages=[message([{"type": "text", "text": "What is this?"}, part])])
    assert measured.prompt_bytes < 60
    assert least <= measured.other_tokens <= most


def test_a_part_that_makes_no_sense_is_measured_like_any_other():
    assert size(messages=[message([{"type": ["image_url"], "text": "x" * 100}])]).prompt_bytes > 100
    assert size(messages=[message([{"type": "input_audio", "input_audio": 7}])]).other_tokens < 5000


def test_tools_and_instructions_are_read_by_the_model_too():
    assert size(messages=[], tools=[{"type": "function", "function": {"name": "f" * 50}}]).prompt_bytes >= 50
    assert size("/responses", input="hi", instructions="x" * 40).prompt_bytes == 42


def test_what_is_no_text_counts_nothing():
    assert size(messages=[message("hi")], metadata={"x": "y" * 1000}, user="z" * 1000).prompt_bytes < 30


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_the_longest_answer_is_read_from_all_its_names(name):
    assert size(**{name: 77}).completion_limit == 77


@pytest.mark.parametrize("nonsense", [None, 0, -5, "77", True, 1.5])
def test_a_limit_that_makes_no_sense_is_none(nonsense):
    assert size(max_tokens=nonsense).completion_limit is None


def test_several_answers_may_be_asked_for():
    assert size(n=4).choices == 4
    assert size().choices == 1


@pytest.mark.parametrize("path", ["/embeddings", "/moderations"])
def test_some_requests_are_answered_without_writing(path):
    assert size(path, input=["a", "b"]).choices == 0


def test_tokens_that_are_numbers_already_count_as_such():
    assert size("/embeddings", input=[[1, 2, 3], [4]]).prompt_bytes == 16


def test_a_body_of_any_depth_is_measured():
    deep = "x"
    for _ in range(5000):
        deep = [deep]
    assert size(messages=deep).prompt_bytes == 0


DATA = "iVBORw0KGgo" + "A" * 1_000_000
URL = "data:image/png;base64," + DATA
SOURCE = {"type": "base64", "media_type": "image/png", "data": DATA}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [message([{"type": "image", "source": SOURCE}])]},
        {"messages": [message([{"type": "tool_result", "content": [{"type": "image", "source": SOURCE}]}])]},
        {"messages": [message([{"type": "image", "mimeType": "image/png", "data": DATA}])]},
        {"messages": [message([{"type": "resource", "resource": {"mimeType": "image/png", "blob": DATA}}])]},
        {"messages": [{"role": "user", "content": "what is it?", "images": [DATA]}]},
        {"prompt": "what is it?", "images": [DATA]},
        {"messages": [message([{"type": "image_url", "image_url": URL}])]},
        {"messages": [message([{"image_url": {"url": "https://example.invalid/a.png"}}])]},
        {"messages": [message([{"type": "image", "image": URL}])]},
        {"messages": [message([{"type": "image", "base64": DATA, "mime_type": "image/png"}])]},
        {"messages": [message([{"type": "file", "data": DATA, "mediaType": "image/png"}])]},
        {"messages": [message([{"image": {"format": "png", "source": {"bytes": DATA}}}])]},
        {"messages": [message([{"inline_data": {"mime_type": "image/png", "data": DATA}}])]},
        {"messages": [message([{"type": "picture of tomorrow", "picture": {"bits": DATA}}])]},
        {"input": [{"image": DATA}]},
        {"input": [{"image": "https://example.invalid/a.png"}]},
        {"inputs": [{"content": [{"type": "image_base64", "image_base64": DATA}]}]},
        {"input": [{"type": "image_generation_call", "id": "ig_1", "result": DATA}]},
        {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": URL}}]},
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": URL}]}]},
        {"input": [{"type": "code_interpreter_call", "outputs": [{"type": "image", "url": URL}]}]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_an_image_is_one_in_whatever_shape_it_comes(body):
    measured = size(**body)
    assert measured.other_tokens == 800
    assert measured.prompt_bytes < 60


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"type": "audio", "mimeType": "audio/wav", "data": "A" * 4_000_000}, 2000),
        ({"inline_data": {"mime_type": "audio/mp3", "data": "A" * 4_000_000}}, 2000),
        ({"inlineData": {"mimeType": "application/pdf", "data": "A" * 4_000_000}}, 160_000),
        ({"type": "document", "source": {"type": "base64", "data": "A" * 4_000_000}}, 160_000),
        ({"type": "input_video", "data": "A" * 4_000_000}, 5000),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64," + "A" * 5000}}, 1004),
    ],
)
def test_other_data_counts_by_its_kind(part, tokens):
    assert size(messages=[message([part])]).other_tokens == tokens


def test_text_is_text_whatever_it_looks_like():
    encoded = "A" * 4000
    assert size(messages=[message(encoded)]).prompt_bytes >= 4000
    assert size(messages=[message([{"type": "text", "text": encoded}])]).prompt_bytes >= 4000
    assert size("/embeddings", input=[encoded]).prompt_bytes == 4000
    document = {"type": "document", "source": {"type": "text", "data": "plain words " * 100}}
    assert size(messages=[message([document])]).prompt_bytes > 1200
    schema = {"type": "object", "properties": {"image": {"type": "string", "description": "d" * 100}}}
    assert size(messages=[], tools=[{"type": "function", "function": {"parameters": schema}}]).other_tokens == 0
