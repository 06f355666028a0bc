"""Messages of errors."""

from __future__ import annotations

import pytest
from requests.structures import CaseInsensitiveDict

from chatpool import ChatRequest
from chatpool._values import HTTPResponse
from chatpool._wire.error_body import compose_message, name_call, shorten, status_line, unusable_line, without_secrets

URL = "http://user:pw@127.0.0.1:1/v1/chat/completions?api-key=secret"
REQUEST = ChatRequest({"model": "m", "messages": [{"role": "user", "content": "secret"}]})


def reply(status, **headers):
    return HTTPResponse(status, CaseInsensitiveDict(headers), b"12", URL)


def test_a_message_says_what_happened_where_why_and_what_to_do():
    assert (
        compose_message("HTTP 400", "/x, model 'm'", "Too long.", "shorten it")
        == "HTTP 400 (/x, model 'm'): Too long; shorten it"
    )
    assert compose_message("HTTP 400", "/x", "", "shorten it") == "HTTP 400 (/x); shorten it"


def test_the_servers_words_are_cut():
    assert len(compose_message("", "", "x" * 1000, "")) < 320


@pytest.mark.parametrize(
    ("status", "call"),
    [
        (400, "/chat/completions, model 'm', request id req_1"),
        (404, "http://127.0.0.1:1/v1/chat/completions, model 'm', request id req_1"),
        (302, "http://127.0.0.1:1/v1/chat/completions, model 'm', request id req_1"),
    ],
)
def test_the_whole_url_is_named_where_base_url_may_be_to_blame(status, call):
    assert name_call(REQUEST, reply(status), "req_1") == call


def test_a_call_without_model_and_id_is_its_path():
    assert name_call(ChatRequest({}, "/models", "GET"), reply(500), None) == "/models"


@pytest.mark.parametrize(
    ("answer", "status", "line"),
    [
        (reply(429), 429, "HTTP 429 Too Many Requests"),
        (reply(529), 529, "HTTP 529"),
        (reply(200), 429, "HTTP 429 Too Many Requests inside an HTTP 200"),
        (
            reply(302, location="https://a:b@other.example/x?key=secret"),
            302,
            "HTTP 302 Found to https://other.example/x",
        ),
        (reply(302), 302, "HTTP 302 Found without a Location"),
    ],
)
def test_a_status_is_named_in_words(answer, status, line):
    assert status_line(answer, status) == line


def test_an_unusable_answer_is_described_and_not_shown():
    answer = reply(200, **{"content-type": "text/html; charset=utf-8"})
    assert unusable_line(answer, "is not JSON") == "unusable answer: HTTP 200 (text/html, 2 bytes) is not JSON"
    assert "no content type" in unusable_line(reply(200), "is not JSON")


@pytest.mark.parametrize(("text", "line"), [("a\n b\t c", "a b c"), ("x" * 9, "xxxxx..."), ("x" * 8, "x" * 8)])
def test_long_text_is_cut_to_one_line(text, line):
    assert shorten(text, 8) == line


def test_urls_are_rid_of_user_password_and_query():
    text = f"Max retries exceeded with url: {URL} (Caused by '/v1?k=secret')"
    assert without_secrets(text) == (
        "Max retries exceeded with url: http://127.0.0.1:1/v1/chat/completions (Caused by '/v1')"
    )
