"""Pictures at a FakeServer."""

from __future__ import annotations

import base64
import struct
import urllib.request
import zlib

import pytest

from chatpool.testing import BatchScenario


@pytest.fixture
def api(make_server, api_of):
    return api_of(make_server())


def pixels(png):
    """Width, height and the bytes of the pixels, read by the specification of PNG."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, place = {}, 8
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        data = png[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", png, place + 8 + length)[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        place += 12 + length
    width, height, depth, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (list(chunks)[-1], depth, colours) == (b"IEND", 8, 2)
    return width, height, zlib.decompress(chunks[b"IDAT"])


def test_a_picture_is_a_png(api):
    body = api.post("/images/generations", {"model": "gpt-image-1", "prompt": "a cat", "n": 2}).json
    one, two = (base64.b64decode(entry["b64_json"]) for entry in body["data"])
    width, height, data = pixels(one)
    assert len(data) == height * (1 + 3 * width)
    assert one != two
    again = api.post("/images/generations", {"model": "gpt-image-1", "prompt": "a cat"}).json
    assert base64.b64decode(again["data"][0]["b64_json"]) == one


@pytest.mark.parametrize("fields", [{"model": "dall-e-3"}, {"response_format": "url"}])
def test_the_address_of_a_picture_leads_to_it(api, fields):
    url = api.post("/images/generations", {"prompt": "a cat", **fields}).json["data"][0]["url"]
    assert url.startswith(api.server.origin)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["content-type"] == "image/png"
        pixels(answer.read())


@pytest.mark.parametrize("name", ["x", "zz.png", "00.png", "000000"])
def test_other_addresses_lead_nowhere(api, name):
    assert api.get(f"/images/{name}").status == 404


def test_pictures_are_changed(api):
    image = [("image[]", ("a.png", b"x")), ("image[]", ("b.png", b"y"))]
    edited = api.form("/images/edits", [("prompt", "a hat"), ("n", "3")], image).json
    assert len(edited["data"]) == 3
    as_json = api.post("/images/edits", {"prompt": "a hat", "images": [{"file_id": "file-1"}]}).json
    assert as_json["data"] == edited["data"][:1]
    one, other = (api.form("/images/variations", [], [("image", ("a.png", data))]).json for data in (b"x", b"y"))
    assert one["data"] != other["data"]


@pytest.mark.parametrize(
    ("path", "fields", "files", "param"),
    [
        ("/images/edits", [("prompt", "x")], [], "image"),
        ("/images/edits", [], [("image", ("a.png", b"x"))], "prompt"),
        ("/images/variations", [], [], "image"),
        ("/images/variations", [("n", "11")], [("image", ("a.png", b"x"))], "n"),
        ("/images/variations", [("n", "x")], [("image", ("a.png", b"x"))], "n"),
        ("/images/variations", [("response_format", "gif")], [("image", ("a.png", b"x"))], "response_format"),
    ],
)
def test_a_wrong_form_is_refused(api, path, fields, files, param):
    answer = api.form(path, fields, files)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


def test_a_picture_needs_a_prompt(api):
    assert api.post("/images/generations", {"model": "m"}).json["error"]["param"] == "prompt"


def test_a_batch_makes_pictures(make_server, api_of):
    api = api_of(make_server(batches=BatchScenario(polls=0)))
    row = b'{"custom_id": "a", "method": "POST", "url": "/v1/images/generations", "body": {"prompt": "a cat"}}\n'
    done = api.poll(api.batch(row, "/v1/images/generations"))
    assert api.lines(done["output_file_id"])["a"]["response"]["body"]["data"]
