"""Facts in an error body, in whichever form it comes."""

from __future__ import annotations

import json

import pytest

from chatpool._wire.error_body import ErrorFacts, page_facts, read_error
from chatpool._wire.response import inner_error


def error_facts(payload):
    return read_error(json.dumps(payload).encode())


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}, "no"),
        ({"error": {"message": None, "code": 400}}, ""),
        ({"error": "plain words"}, "plain words"),
        ({"message": "at the top"}, "at the top"),
        ({"object": "error", "message": "from vLLM", "type": "BadRequestError", "code": 400}, "from vLLM"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["body", "n", 0], "msg": "too small", "input": "secret"}]}, "body.n.0: too small"),
        ({"detail": [{"msg": "one"}, {"message": "two"}, "three", 4, {"loc": ["x"]}]}, "one; two; three"),
        ({"detail": {"error": "nested"}}, "nested"),
        ({"error": {"message": {"detail": "in an object"}}}, "in an object"),
        ([{"error": {"code": 400, "message": "from Gemini"}}], "from Gemini"),
        ({"error": {"message": "two\n  lines"}}, "two lines"),
        ({"success": False, "errors": [{"code": 7, "message": "one"}, {"message": "two"}]}, "one; two"),
        ({"success": False, "error": [{"code": 7, "message": "Cloudflare"}], "messages": []}, "Cloudflare"),
        ({"errors": {"message": "an object"}, "request_id": "r"}, "an object"),
        ({"errors": "a text"}, "a text"),
        ({"errors": ["a", "list"]}, "a; list"),
        ({"Message": "AWS"}, "AWS"),
        ({"fault": {"faultstring": "Apigee", "detail": {"errorcode": "policies.x"}}}, "Apigee"),
        ({"code": 500, "msg": "flat", "data": None}, "flat"),
        ({"error_code": 336100, "error_msg": "Baidu"}, "Baidu"),
        ({"type": "about:blank", "title": "A problem", "status": 400}, "A problem"),
        ({"type": "about:blank", "title": "A problem", "detail": "and which one"}, "and which one"),
        ({"id": "x", "choices": None, "base_resp": {"status_code": 2013, "status_msg": "MiniMax"}}, "MiniMax"),
        ({"error": "invalid_request", "error_description": "OAuth"}, "OAuth"),
        ({"statusCode": 401, "error": "Unauthorized", "message": "Nest"}, "Nest"),
        ({"code": "The caller does not have permission", "error": "xAI"}, "xAI"),
        ({"detail": {"error": {"message": "deep"}}}, "deep"),
        ({"error": {"error": {"error": {"error": {"error": {"error": {"error": {"msg": "too deep"}}}}}}}}, ""),
        ("only a string", "only a string"),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_servers_own_words_are_found(payload, message):
    assert error_facts(payload).message == message


def test_all_facts_are_kept():
    payload = {"error": {"message": "no", "type": "Tokens", "param": "messages", "code": "Rate_Limit"}}
    error = error_facts(payload)
    assert error == ErrorFacts("no", "Tokens", "Rate_Limit", "messages", payload)
    assert error.codes == {"tokens", "rate_limit"}


@pytest.mark.parametrize("value", [[], {}, True, 1.5])
def test_facts_of_a_wrong_type_are_dropped(value):
    error = error_facts({"error": {"message": "no", "type": value, "param": value, "code": value}})
    assert (error.type, error.param, error.code) == (None, None, None)


def test_a_flagged_prompt_is_recognised():
    assert error_facts({"error": {"message": "no", "metadata": {"flagged_input": "secret"}}}).flagged
    assert not error_facts({"error": {"message": "no", "metadata": {"raw": "x"}}}).flagged


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ""),
        (b"  \n", ""),
        (b"upstream connect error", "upstream connect error"),
        (b"<html><head><title>502 Bad\n Gateway</title></head>", "an HTML page titled '502 Bad Gateway'"),
        (b"<!DOCTYPE html><p>no title", "an HTML page"),
        (b"<html><title>never closed", "an HTML page titled 'never closed'"),
        (b"\xff\xfe\x00 broken", "\ufffd\ufffd\x00 broken"),
        (b"[1, 2", "[1, 2"),
        (b"[1, 2]", "[1, 2]"),
        (b"[" * 100_000, "[" * 2000),
    ],
)
@pytest.mark.usefixtures("no_collection")
def test_what_is_no_json_is_read_as_text(content, message):
    assert read_error(content).message == message


def test_a_text_body_is_kept_up_to_2000_characters():
    assert read_error(b"x" * 5000).body == "x" * 2000
    assert read_error(b"").body is None


@pytest.mark.parametrize("content", [b"an answer", b"", b"{"])
def test_of_an_answer_that_is_no_json_only_a_title_is_quoted(content):
    assert page_facts(content).message == ""
    assert page_facts(b"<title>Sign in</title>").message == "an HTML page titled 'Sign in'"


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"error": {"code": 1}}, {"code": 1}),
        ({"error": "words"}, "words"),
        ({"object": "error", "message": "no"}, {"object": "error", "message": "no"}),
        ([{"error": {"code": 1}}], {"code": 1}),
        ({"error": None}, None),
        ({"error": {}}, None),
        ({"error": ""}, None),
        ({"choices": []}, None),
        ([], None),
        (["x"], None),
        ("error", None),
        (None, None),
    ],
)
def test_an_error_inside_an_answer_is_found(payload, error):
    assert inner_error(payload) == error


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"errors": [{"code": 7003, "message": "no"}]}, 7003),
        ({"error_code": 336100, "error_msg": "no"}, 336100),
        ({"base_resp": {"status_code": 2013, "status_msg": "no"}}, 2013),
        ({"code": "permission-denied", "error": "no"}, "permission-denied"),
        ({"error": {"message": "no"}, "code": 429}, 429),
    ],
)
def test_the_code_is_found_wherever_it_stands(payload, code):
    assert error_facts(payload).code == code
