"""Multipart bodies, as a test sees them on a request."""

from __future__ import annotations

import random

import pytest
import requests
from urllib3.filepost import encode_multipart_formdata

from chatpool.testing.forms import boundary_of, parse_form
from chatpool.testing.received import Headers, RawRequest, ReceivedRequest


def received(raw: bytes, content_type: str) -> ReceivedRequest:
    headers = Headers([("Content-Type", content_type)])
    return ReceivedRequest(RawRequest("POST", "/v1/files", "HTTP/1.1", headers, raw), number=0, connection=1, time=0.0)


def test_fields_and_files_are_told_apart(make_server):
    server = make_server()
    files = {"file": ("söund.mp3", b"\x00\r\n--x\r\n\xff", "audio/mpeg")}
    fields = {"model": "whisper-1", "prompt": "Käse", "include[]": ["a", "b"], "expires_after[seconds]": "60"}
    requests.post(f"{server.base_url}/files", files=files, data=fields, timeout=10)
    request = server.requests[0]
    assert request.form == {
        "model": "whisper-1",
        "prompt": "Käse",
        "include[]": ["a", "b"],
        "expires_after[seconds]": "60",
    }
    assert request.files == [("file", "söund.mp3", "audio/mpeg", b"\x00\r\n--x\r\n\xff")]
    assert request.files[0].content_type == "audio/mpeg"
    assert request.prompt == "Käse"
    assert request.body is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\r\n", b"\n\n\r\n\r\n", b"a\rb\nc\r\nd", random.Random(1).randbytes(100_000)],
    ids=["nothing", "break", "breaks", "lines", "any bytes"],
)
def test_no_byte_of_a_file_is_changed(content):
    raw, content_type = encode_multipart_formdata([("file", ("x", content))])
    assert received(raw, content_type).files[0].content == content


def test_a_file_stays_what_it_is_whatever_its_own_type_and_encoding_say():
    head = b'Content-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: message/rfc822\r\n'
    raw = b"--b\r\n" + head + b"Content-Transfer-Encoding: base64\r\n\r\nZm9v\r\n--b--\r\n"
    [file] = received(raw, "multipart/form-data; boundary=b").files
    assert (file.content_type, file.content) == ("message/rfc822", b"Zm9v")


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\ncut off', "multipart/form-data; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b\r\n', "multipart/form-data; boundary=b"),
        (b"", "multipart/form-data; boundary=b"),
        (b"--b\r\nno head\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b--", "multipart/form-data"),
        (b"{}", "application/json"),
    ],
)
def test_what_is_no_whole_form_has_no_parts(raw, content_type):
    request = received(raw, content_type)
    assert (request.form, request.files) == ({}, [])


def test_a_part_without_a_name_is_harmless():
    form = parse_form(b"--b\r\nX: \xff\xfe\r\n\r\nx\r\n--b--", b"b")
    assert form.fields == {"": "x"}


def test_a_quoted_boundary_is_read():
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b"') == b"a b"


def test_attempts_with_other_boundaries_are_one_call():
    one, two = (received(*encode_multipart_formdata([("a", "x")], boundary=mark)) for mark in ("b" * 9, "c" * 9))
    other = received(*encode_multipart_formdata([("a", "y")], boundary="c" * 9))
    assert one.call_key == two.call_key != other.call_key
